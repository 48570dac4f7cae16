#!/usr/bin/env bash
# stuck.sh BINARY SHIM: ranks of `topomoe run` that are all stuck inside MPI (stuck_in_mpi.c) still say their last words in
# time, each for itself, also where their threads take no signals.
set -u
. "$(dirname "$(readlink -f "$0")")/common.sh"
binary=$1 shim=$2
open_mpi_here
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
plan_of_four "$binary" "$work"

failed=0
# What they say WHAT, with the shim's settings. mpirun's timeout is none of ours: it would be SIGKILL.
expect() {
  local what=$1 r
  shift
  # shellcheck disable=SC2016
  env "$@" timeout --signal=KILL 60 mpirun -n 4 --enable-recovery sh -c 'LD_PRELOAD=$4 exec "$0" run "$1" --backend mpi \
    --deadline "$2" --repeat 1000 --shrink hidden=64,ffn=8,tokens=256 2> "$3/err.$OMPI_COMM_WORLD_RANK"' \
    "$binary" "$work/plan.json" 3 "$work" "$shim" > "$work/out" 2>&1
  [ $? -ne 137 ] || { echo "$*: hangs" && failed=1; }
  for r in 0 1 2 3; do
    grep -aEq "^topomoe: rank $r, peers?( [0-3])+, $what" "$work/err.$r" && continue
    echo "$*: rank $r said:" && cat "$work/err.$r" && failed=1
  done
}
why='bytes: still inside the MPI library after the deadline'
# One that takes signals also asks the others, who are silent.
expect "(culprit [0-3], )?step .*, [0-9]+ $why" STUCK_AFTER=40
expect "step .*, [0-9]+ $why" STUCK_AFTER=40 STUCK_DEAF=1
exit $failed
