#!/usr/bin/env bash
# Kills (SIGKILL) or stops (SIGSTOP) a random rank of `topomoe run --backend mpi` at a random time, and looks at the
# survivors: nobody may live longer than deadline + 2 s, and each must name the culprit on stderr.
#
#   faults.sh --binary build/release/topomoe [--count N] [--seed S] [--deadline SECONDS] [--recovery no|yes|both] [--keep DIR]
#
# Four ranks on this machine over TCP, in turn with and without Open MPI's --enable-recovery. A rank is hit while the
# layer runs: opening channels at the start blocks inside MPI, without a deadline. Needs Open MPI's mpirun and Linux'
# /proc; exits with 77 where they are missing. Prints a table; exits with 1 if any case failed.
set -u

ranks=4 count=4 seed=1 deadline=3 binary= keep= recoveries=both
while [ $# -gt 0 ]; do
  case $1 in
    --binary) binary=$2 ;;
    --count) count=$2 ;;
    --seed) seed=$2 ;;
    --deadline) deadline=$2 ;;
    --recovery) recoveries=$2 ;;
    --keep) keep=$2 ;;
    *) echo "faults.sh: $1: unknown; --binary --count --seed --deadline --recovery --keep" >&2; exit 2 ;;
  esac
  [ $# -ge 2 ] || { echo "faults.sh: $1: missing: a value" >&2; exit 2; }
  shift 2
done
case $recoveries in no | yes | both) ;; *) echo "faults.sh: --recovery: '$recoveries': no, yes or both" >&2; exit 2 ;; esac
[ -x "$binary" ] || { echo "faults.sh: --binary: '$binary': the topomoe program" >&2; exit 2; }
skip() { echo "skipped: $1"; exit 77; }
command -v mpirun > /dev/null || skip "no mpirun"
mpirun --version 2> /dev/null | grep -q 'Open MPI' || skip "mpirun is not Open MPI's"
[ -r /proc/self/environ ] || skip "no /proc"

configs=$(cd "$(dirname "$0")/../../configs" && pwd)
work=$(mktemp -d)
started=()  # processes of the case under way
finish() {
  for pid in "${started[@]}"; do kill -KILL "$pid" 2> /dev/null; done
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

# A host of four GPUs, one rank each, all of them peers of each other.
sed -e 's/"gpus": 8/"gpus": 4/' -e 's/"nics": 8/"nics": 4/' "$configs/clusters/dgx-a100.json" > "$work/cluster.json"
"$binary" plan --cluster "$work/cluster.json" --model "$configs/models/mixtral-8x7b.json" --memory-GiB 500 --dtype f32 \
  --fix tp=1,ep=4,etp=1,pp=1 --transport flat --chunks 1 -o "$work/plan.json" > "$work/plan.out" 2>&1 ||
  { cat "$work/plan.out"; exit 1; }

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo
RANDOM=$seed

now_ms() { date +%s%3N; }
# Neither gone nor a zombie.
lives() { case $(sed 's/.*) //' "/proc/$1/stat" 2> /dev/null) in '' | Z* | X*) return 1 ;; esac; }

# one_case RECOVERY SIGNAL VICTIM DELAY_MS: fills `verdict`, `took_ms` and `how` the survivors ended.
one_case() {
  local recovery=$1 signal=$2 victim=$3 delay=$4 dir=$work/case pid r line sent
  local -a pid_of=() options=()
  rm -rf "$dir" && mkdir "$dir"
  [ "$recovery" = yes ] && options=(--enable-recovery)
  # Each rank writes a file of its own: mpirun loses what a dying rank says.
  # shellcheck disable=SC2016
  mpirun -n $ranks "${options[@]}" sh -c 'exec "$0" run "$1" --backend mpi --deadline "$2" --repeat 1000 \
    --shrink hidden=1024,ffn=8,tokens=4096 2> "$3/err.$OMPI_COMM_WORLD_RANK"' \
    "$binary" "$work/plan.json" "$deadline" "$dir" > "$dir/out" 2>&1 &
  local mpirun=$!
  started=("$mpirun")
  verdict='' took_ms=0 how=''
  local waited=0
  # Until every rank has sent so much that its layer runs, whatever else this machine does.
  while :; do
    sleep 0.05
    local ready=0
    for pid in $(cat "/proc/$mpirun/task/$mpirun/children" 2> /dev/null); do
      r=$(tr '\0' '\n' 2> /dev/null < "/proc/$pid/environ" | sed -n 's/^OMPI_COMM_WORLD_RANK=//p')
      [ -n "$r" ] || continue
      pid_of[r]=$pid
      sent=$(sed -n 's/^wchar: //p' "/proc/$pid/io" 2> /dev/null)
      [ "${sent:-0}" -ge 100000000 ] && ready=$((ready + 1))
    done
    [ $ready -eq $ranks ] && break
    waited=$((waited + 1))
    [ $waited -lt 600 ] || { verdict='never started'; break; }
  done
  started+=("${pid_of[@]}")
  sleep "$((delay / 1000)).$(printf %03d $((delay % 1000)))"
  if [ -n "$verdict" ]; then
    :
  elif [ ${#pid_of[@]} -ne $ranks ]; then
    verdict="only ${#pid_of[@]} ranks before the fault"
  else
    local begin alive end
    begin=$(now_ms)
    end=$((begin + 1000 * deadline + 2000))
    kill "-$signal" "${pid_of[victim]}"
    while :; do
      alive=''
      for ((r = 0; r < ranks; r++)); do [ "$r" -ne "$victim" ] && lives "${pid_of[r]}" && alive+=" $r"; done
      took_ms=$(($(now_ms) - begin))
      [ -n "$alive" ] || break
      [ "$(now_ms)" -lt $end ] || { verdict="hangs:$alive"; break; }
      sleep 0.02
    done
    for ((r = 0; r < ranks; r++)); do
      [ "$r" -eq "$victim" ] && continue
      line=$(grep -a "topomoe: rank $r," "$dir/err.$r")
      case $line in
        *deadline*) how+=d ;;
        *'another rank named'*) how+=t ;;
        *SIGTERM*) how+=s ;;
        *'MPI library'*) how+=m ;;
        *) how+=- ;;
      esac
      case $line in
        *"culprit $victim,"*) ;;
        *culprit*) verdict+=" $r blames $(sed 's/.*culprit \([0-9]*\).*/\1/' <<< "$line")" ;;
        '') verdict+=" $r silent" ;;
        *) verdict+=" $r names nobody" ;;
      esac
    done
  fi
  for pid in "${started[@]}"; do kill -KILL "$pid" 2> /dev/null; done
  wait "$mpirun" 2> /dev/null
  started=()
  if [ -n "$verdict" ] && [ -n "$keep" ]; then mkdir -p "$keep" && rm -rf "${keep:?}/$number" && cp -r "$dir" "$keep/$number"; fi
}

failed=0
echo 'how each survivor ended: d at its deadline, t told by another, s SIGTERM, m _exit from inside MPI, - otherwise'
printf '%4s  %-4s  %-8s  %4s  %8s  %8s  %-3s  %s\n' case fault recovery rank 'after ms' 'gone ms' how result
for ((number = 0; number < count; number++)); do
  signal=KILL recovery=no
  [ $((number % 2)) -eq 1 ] && signal=STOP
  if [ $recoveries = yes ] || { [ $recoveries = both ] && [ $((number / 2 % 2)) -eq 1 ]; }; then recovery=yes; fi
  victim=$((RANDOM % ranks)) delay=$((RANDOM % 2000))
  one_case $recovery $signal $victim $delay
  [ -n "$verdict" ] && failed=$((failed + 1))
  printf '%4d  %-4s  %-8s  %4d  %8d  %8d  %-3s  %s\n' \
    $number $signal $recovery $victim $delay "$took_ms" "$how" "${verdict:-ok}"
done
echo "$((count - failed)) of $count: nobody lived beyond deadline ($deadline s) + 2 s, every survivor named the culprit"
[ $failed -eq 0 ]
