#!/usr/bin/env bash
# start_faults.sh BINARY SHIM: one of four ranks of `topomoe run --backend mpi` is killed or stopped while MPI starts, while
# the caller's communicator is split, while ranks exchange addresses, or while channels are opened (the shim,
# stuck_in_mpi.c, does it on entering MPI's function), with and without Open MPI's --enable-recovery. All others must end,
# each with one line that names itself, its peers and the step: after the deadline of 3 s, in MPI's start after 20 s, and
# later on a machine that others use; the table says when, and a hang is what lasts 20 s longer. Prints a table; exits
# with 1 if any case failed.
set -u
. "$(dirname "$(readlink -f "$0")")/common.sh"
binary=$1 shim=$2 deadline=3 ranks=4 victim=2
open_mpi_here
work=$(mktemp -d)
# Of processes that were started here: each writes its own before it becomes the program.
finish() {
  for pid in $(cat "$work"/*/pid.* "$work"/*/mpirun 2> /dev/null); do kill -KILL "$pid" 2> /dev/null; done
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM
plan_of_four "$binary" "$work"

# Stopped, or gone.
is_hit() { case $(sed 's/.*) //' "/proc/$1/stat" 2> /dev/null) in '' | Z* | X* | T* | t*) return 0 ;; *) return 1 ;; esac; }

# one_case FUNCTION STEP SIGNAL RECOVERY LIMIT_S
one_case() {
  local at=$1 step=$2 signal=$3 recovery=$4 limit=$5 dir verdict='' took=0 r alive begin
  dir=$work/$at.$signal.$recovery
  mkdir "$dir"
  local -a options=() pid_of=()
  [ "$recovery" = yes ] && options=(--enable-recovery)
  # shellcheck disable=SC2016
  FAULT_AT=$at FAULT_RANK=$victim FAULT_SIGNAL=$(kill -l "$signal") mpirun -n $ranks "${options[@]}" \
    sh -c 'echo $$ > "$3/pid.$OMPI_COMM_WORLD_RANK" && LD_PRELOAD=$4 exec "$0" run "$1" --backend mpi --deadline "$2" \
      --repeat 1000 --shrink hidden=64,ffn=8,tokens=256 2> "$3/err.$OMPI_COMM_WORLD_RANK"' \
    "$binary" "$work/plan.json" $deadline "$dir" "$shim" > "$dir/out" 2>&1 &
  local mpirun=$!
  echo $mpirun > "$dir/mpirun"
  for ((waited = 0; waited < 600; waited++)); do
    sleep 0.05
    [ "$(cat "$dir"/pid.* 2> /dev/null | wc -l)" = $ranks ] && is_hit "$(cat "$dir/pid.$victim")" && break
  done
  begin=$(date +%s%3N)
  for ((r = 0; r < ranks; r++)); do pid_of[r]=$(cat "$dir/pid.$r" 2> /dev/null); done
  [ "$waited" -lt 600 ] || verdict=' the fault never came'
  while [ -z "$verdict" ]; do
    alive=''
    for ((r = 0; r < ranks; r++)); do [ $r -ne $victim ] && lives "${pid_of[r]}" && alive+=" $r"; done
    took=$(($(date +%s%3N) - begin))
    [ -n "$alive" ] || break
    [ $took -le $((1000 * limit)) ] || verdict=" hang:$alive"
    sleep 0.05
  done
  for ((r = 0; r < ranks; r++)); do
    [ $r -ne $victim ] || continue
    [ "$(grep -ac '^topomoe: ' "$dir/err.$r")" = 1 ] &&
      grep -aEq "^topomoe: rank $r, peers?( [0-3])+, (culprit $victim, )?step $step, 0 bytes: " "$dir/err.$r" && continue
    verdict+=" rank $r said: $(cat "$dir/err.$r")"
  done
  kill -KILL "${pid_of[@]}" 2> /dev/null
  kill -KILL $mpirun 2> /dev/null
  wait $mpirun 2> /dev/null
  rm -f "$dir"/pid.* "$dir/mpirun"
  printf '%-16s  %-4s  %-8s  %8d  %s\n' "$at" "$signal" "$recovery" "$took" "${verdict:- ok}"
  [ -z "$verdict" ]
}

printf '%-16s  %-4s  %-8s  %8s  %s\n' in signal recovery 'gone ms' result
# Those that take 20 s beside the others.
starting=()
for signal in KILL STOP; do
  for recovery in no yes; do
    one_case MPI_Init_thread MPI_Init $signal $recovery 40 &
    starting+=($!)
  done
done
failed=0
for signal in KILL STOP; do
  for recovery in no yes; do
    one_case MPI_Comm_split "split the caller's communicator" $signal $recovery $((deadline + 20)) || failed=1
    one_case MPI_Allgather "addresses" $signal $recovery $((deadline + 20)) || failed=1
    one_case MPI_Iallreduce "open channel" $signal $recovery $((deadline + 20)) || failed=1
  done
done
for pid in "${starting[@]}"; do wait "$pid" || failed=1; done
exit $failed
