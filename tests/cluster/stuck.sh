#!/usr/bin/env bash
# stuck.sh BINARY SHIM: ranks of `topomoe run` that are all stuck inside MPI (stuck_in_mpi.c) still say their last words in
# time, each for itself, also where their threads take no signals.
set -u
. "$(dirname "$(readlink -f "$0")")/common.sh"
binary=$1 shim=$2
mpirun --version 2> /dev/null | grep -q 'Open MPI' || { echo "skipped: mpirun is not Open MPI's"; exit $skip_code; }
configs=$(cd "$here/../../configs" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sed -e 's/"gpus": 8/"gpus": 4/' -e 's/"nics": 8/"nics": 4/' "$configs/clusters/dgx-a100.json" > "$work/cluster.json"
"$binary" plan --cluster "$work/cluster.json" --model "$configs/models/mixtral-8x7b.json" --memory-GiB 500 --dtype f32 \
  --fix tp=1,ep=4,etp=1,pp=1 --transport flat --chunks 1 -o "$work/plan.json" > "$work/plan.out" 2>&1 ||
  { cat "$work/plan.out"; exit 1; }
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl=self,vader,tcp OMPI_MCA_btl_vader_single_copy_mechanism=none

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
