#!/usr/bin/env bash
# Faults in mid-step: kills (SIGKILL) or stops (SIGSTOP) a random rank of `topomoe run --backend mpi`, or sets the NIC of
# its host down, at a random time, and looks at the survivors: nobody may live longer than deadline + 2 s, each must
# name the culprit on stderr, and nobody may print a result.
#
#   faults.sh [--hosts 2|1] [--binary PATH] [--count N] [--seed S] [--deadline SECONDS] [--recovery no|yes|both]
#             [--faults kill,stop,nic] [--keep DIR]
#
# Four ranks, two on each of two hosts of a virtual cluster (up.sh), whose NICs are slow enough that most of the time is
# an exchange, or with --hosts 1 on this machine; over TCP all of them; faults and Open MPI's --enable-recovery in turn. Which rank of a host is to blame for its NIC is open. A rank is
# hit while the layer runs. Needs Open MPI's mpirun and Linux' /proc, and what up.sh needs for two hosts; exits with 77
# where they are missing. Prints a table; exits with 1 if any case failed; failed cases' files go to --keep.
set -u

. "$(dirname "$(readlink -f "$0")")/common.sh"

ranks=4 hosts=2 count=4 seed=1 deadline=3 binary='' keep='' recoveries=both faults=''
arguments=("$@")
while [ $# -gt 0 ]; do
  case $1 in
    --hosts) hosts=$2 ;;
    --binary) binary=$2 ;;
    --count) count=$2 ;;
    --seed) seed=$2 ;;
    --deadline) deadline=$2 ;;
    --recovery) recoveries=$2 ;;
    --faults) faults=$2 ;;
    --keep) keep=$2 ;;
    *) echo "faults.sh: $1: unknown; see the head of the script" >&2; exit 2 ;;
  esac
  [ $# -ge 2 ] || { echo "faults.sh: $1: missing: a value" >&2; exit 2; }
  shift 2
done
case $hosts in 1) all_faults=kill,stop ;; 2) all_faults=kill,stop,nic ;; *) echo "faults.sh: --hosts: '$hosts': 1 or 2" >&2; exit 2 ;; esac
case $recoveries in no | yes | both) ;; *) echo "faults.sh: --recovery: '$recoveries': no, yes or both" >&2; exit 2 ;; esac
IFS=, read -ra fault_list <<< "${faults:-$all_faults}"
for fault in "${fault_list[@]}"; do
  case ,$all_faults, in *,"$fault",*) ;; *) echo "faults.sh: --faults: '$fault': some of $all_faults with --hosts $hosts" >&2; exit 2 ;; esac
done
binary=${binary:-$(topomoe_binary)} || exit 2
[ -x "$binary" ] || { echo "faults.sh: --binary: '$binary': the topomoe program" >&2; exit 2; }
binary=$(readlink -f "$binary")
skip() { echo "skipped: $1"; exit $skip_code; }
command -v mpirun > /dev/null || skip "no mpirun"
mpirun --version 2> /dev/null | grep -q 'Open MPI' || skip "mpirun is not Open MPI's"
[ -r /proc/self/environ ] || skip "no /proc"
if [ "$hosts" = 2 ] && [ -z "${CLUSTER:-}" ]; then exec "$here/up.sh" --hosts 2 --rate 500mbit -- "$here/faults.sh" "${arguments[@]}"; fi

work=$(mktemp -d)
started=()  # processes of the case under way
finish() {
  for pid in "${started[@]}"; do kill -KILL "$pid" 2> /dev/null; done
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

plan_of_four "$binary" "$work"

if [ "$hosts" = 1 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
  export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo
  launch=(mpirun -n $ranks) before_program=()
else
  launch=("$here/mpirun.sh" $((ranks / hosts)) --mca btl self,tcp) before_program=(--)
fi
RANDOM=$seed

now_ms() { date +%s%3N; }

# The processes that may be ranks: children of mpirun, or all that a cluster's namespace of processes has.
candidates() {
  if [ "$hosts" = 1 ]; then cat "/proc/$1/task/$1/children" 2> /dev/null; else cd /proc && echo [0-9]*; fi
}
host_of() { echo $(($1 * hosts / ranks)); }

# Of a rank, in the case under way.
survives() { [ "$fault" = nic ] || [ "$1" -ne "$victim" ]; }
# What a report begins with; seen below in one that nobody disturbs.
result='predicted'

# one_case RECOVERY FAULT VICTIM DELAY_MS: fills `verdict`, `took_ms` and `how` the survivors ended.
one_case() {
  local recovery=$1 fault=$2 victim=$3 delay=$4 dir=$work/case pid r line sent named culprits=" $3 "
  local -a pid_of=() options=()
  rm -rf "$dir" && mkdir "$dir"
  [ "$recovery" = yes ] && options=(--enable-recovery)
  # Each rank writes a file of its own: mpirun loses what a dying rank says.
  # shellcheck disable=SC2016
  "${launch[@]}" "${options[@]}" "${before_program[@]}" sh -c 'exec "$0" run "$1" --backend mpi --deadline "$2" --repeat 1000 \
    --shrink hidden=1024,ffn=8,tokens=2048 2> "$3/err.$OMPI_COMM_WORLD_RANK"' \
    "$binary" "$work/plan.json" "$deadline" "$dir" > "$dir/out" 2>&1 &
  local mpirun=$!
  started=("$mpirun")
  verdict='' took_ms=0 how=''
  local waited=0
  # Until every rank has sent so much that its layer runs, whatever else this machine does.
  while :; do
    sleep 0.05
    local ready=0
    for pid in $(candidates "$mpirun"); do
      [ "$hosts" = 1 ] || [ "/proc/$pid/exe" -ef "$binary" ] || continue
      r=$(tr '\0' '\n' 2> /dev/null < "/proc/$pid/environ" | sed -n 's/^OMPI_COMM_WORLD_RANK=//p')
      [ -n "$r" ] || continue
      pid_of[r]=$pid
      sent=$(sed -n 's/^wchar: //p' "/proc/$pid/io" 2> /dev/null)
      [ "${sent:-0}" -ge 50000000 ] && ready=$((ready + 1))
    done
    [ $ready -eq $ranks ] && break
    lives "$mpirun" || { verdict='ended before the fault'; break; }
    waited=$((waited + 1))
    [ $waited -lt 1200 ] || { verdict='never started'; break; }
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
    case $fault in
      kill) kill -KILL "${pid_of[victim]}" ;;
      stop) kill -STOP "${pid_of[victim]}" ;;
      nic)
        ip -n "h$(host_of "$victim")" link set eth0 down
        for ((r = 0; r < ranks; r++)); do [ "$(host_of "$r")" = "$(host_of "$victim")" ] && culprits+="$r "; done
        ;;
    esac
    while :; do
      alive=''
      for ((r = 0; r < ranks; r++)); do survives "$r" && lives "${pid_of[r]}" && alive+=" $r"; done
      took_ms=$(($(now_ms) - begin))
      [ -n "$alive" ] || break
      if [ "$(now_ms)" -ge $end ]; then
        verdict="hangs:$alive"
        for r in $alive; do
          (cd "/proc/${pid_of[r]}" && cat status wchan task/*/stat task/*/syscall) > "$dir/hangs.$r" 2> /dev/null
        done
        break
      fi
      sleep 0.02
    done
    for ((r = 0; r < ranks; r++)); do
      survives "$r" || continue
      line=$(grep -a "topomoe: rank $r," "$dir/err.$r")
      case $line in
        *deadline*) how+=d ;;
        *'another rank named'*) how+=t ;;
        *SIGTERM*) how+=s ;;
        *'still inside'*) how+=w ;;
        *'MPI library'*) how+=m ;;
        *MPI_ERR* | *'socket'*) how+=e ;;
        *) how+=- ;;
      esac
      named=$(sed -n 's/.*culprit \([0-9]*\),.*/\1/p' <<< "$line")
      case $line in
        '') verdict+=" $r silent" ;;
        *culprit*) case $culprits in *" $named "*) ;; *) verdict+=" $r blames $named" ;; esac ;;
        *) verdict+=" $r names nobody" ;;
      esac
      case $line in *step*bytes*) ;; *) verdict+=" $r names no step" ;; esac
    done
    ! grep -aq "$result" "$dir/out" || verdict+=' a result was printed'
    [ "$fault" != nic ] || ip -n "h$(host_of "$victim")" link set eth0 up
  fi
  for pid in "${started[@]}"; do kill -KILL "$pid" 2> /dev/null; done
  wait "$mpirun" 2> /dev/null
  started=()
  if [ -n "$verdict" ] && [ -n "$keep" ]; then mkdir -p "$keep" && rm -rf "${keep:?}/$number" && cp -r "$dir" "$keep/$number"; fi
}

failed=0
echo 'how each survivor ended: d at its deadline, t told by another, s SIGTERM, m _exit from inside MPI,'
echo '  w stuck inside MPI and made to speak, e an error of MPI, - otherwise'
printf '%4s  %-5s  %-8s  %4s  %8s  %8s  %-4s  %s\n' case fault recovery rank 'after ms' 'gone ms' how result
for ((number = 0; number < count; number++)); do
  fault=${fault_list[number % ${#fault_list[@]}]} recovery=no
  if [ $recoveries = yes ] || { [ $recoveries = both ] && [ $((number / ${#fault_list[@]} % 2)) -eq 1 ]; }; then recovery=yes; fi
  victim=$((RANDOM % ranks)) delay=$((RANDOM % 2000))
  for _ in 1 2 3; do
    one_case $recovery "$fault" $victim $delay
    # On a machine that others use a rank may pass the deadline all by itself.
    [ "$verdict" = 'ended before the fault' ] || break
  done
  [ -n "$verdict" ] && failed=$((failed + 1))
  printf '%4d  %-5s  %-8s  %4d  %8d  %8d  %-4s  %s\n' \
    $number "$fault" $recovery $victim $delay "$took_ms" "$how" "${verdict:-ok}"
done
echo "$((count - failed)) of $count: nobody lived beyond deadline ($deadline s) + 2 s, every survivor named the culprit, no result"
[ $failed -eq 0 ]
