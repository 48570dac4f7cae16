# What the scripts of this folder share; sourced.
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")

# Exit code of "cannot be run here"; ctest calls it skipped.
skip_code=77

fail() {
  echo "${0##*/}: $*" >&2
  exit 1
}

# Says what this machine lacks for a cluster, and ends.
require_cluster() {
  local tool
  skip() {
    echo "${0##*/}: skipped: $*"
    exit $skip_code
  }
  [ "$(id -u)" = 0 ] || skip "needs root, for network namespaces"
  for tool in ip tc nsenter unshare mpirun; do
    command -v "$tool" >/dev/null || skip "needs $tool (cmake/install-debian-packages.sh)"
  done
  unshare --net --mount --pid --fork true 2>/dev/null || skip "this machine allows no namespaces (a container without CAP_SYS_ADMIN?)"
  unshare --net sh -c 'ip link add near type veth peer name far && tc qdisc add dev near root tbf rate 1mbit burst 16kb limit 1mb' \
    2>/dev/null || skip "the kernel lacks veth or tbf, or a container forbids them (CAP_NET_ADMIN)"
}

# `topomoe`: $TOPOMOE, or the newest build of this tree.
topomoe_binary() {
  local found=${TOPOMOE:-$(ls -t "$here"/../../build/*/topomoe 2>/dev/null | head -1)}
  [ -x "$found" ] || fail "no topomoe: build it, or name it in TOPOMOE"
  readlink -f "$found"
}

# plan_of_four BINARY DIR: DIR/plan.json, of one layer on a host of four GPUs, one rank each, all of them peers.
plan_of_four() {
  local configs
  configs=$(cd "$here/../../configs" && pwd)
  sed -e 's/"gpus": 8/"gpus": 4/' -e 's/"nics": 8/"nics": 4/' "$configs/clusters/dgx-a100.json" > "$2/cluster.json"
  "$1" plan --cluster "$2/cluster.json" --model "$configs/models/mixtral-8x7b.json" --memory-GiB 500 --dtype f32 \
    --fix tp=1,ep=4,etp=1,pp=1 --transport flat --chunks 1 -o "$2/plan.json" > "$2/plan.out" 2>&1 ||
    { cat "$2/plan.out"; exit 1; }
}

# Open MPI on this machine alone, with more ranks than cores, also as root (containers).
open_mpi_here() {
  mpirun --version 2> /dev/null | grep -q 'Open MPI' || { echo "skipped: mpirun is not Open MPI's"; exit $skip_code; }
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
  export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl=self,vader,tcp OMPI_MCA_btl_vader_single_copy_mechanism=none
}

# Neither gone nor a zombie.
lives() { case $(sed 's/.*) //' "/proc/$1/stat" 2> /dev/null) in '' | Z* | X*) return 1 ;; esac; }

# RATE as tc writes it (200mbit, 1gbit, 500kbit, none): GB/s on the wire, 0 for none.
GBps_of() {
  case $1 in
    none) echo 0 ;;
    *kbit) awk -v r="${1%kbit}" 'BEGIN { printf "%.9g", r / 8e6 }' ;;
    *mbit) awk -v r="${1%mbit}" 'BEGIN { printf "%.9g", r / 8e3 }' ;;
    *gbit) awk -v r="${1%gbit}" 'BEGIN { printf "%.9g", r / 8 }' ;;
    *) fail "$1: a rate as 200mbit, 1gbit or none" ;;
  esac
}

# undisturbed "$@": runs the script again, ahead of whatever else this machine does, where it may say so. Sessions share
# the cores evenly where the kernel groups them (sched_autogroup), whatever the nice values inside: so in one of its own.
undisturbed() {
  [ -z "${TOPOMOE_UNDISTURBED:-}" ] && [ "$(id -u)" = 0 ] || return 0
  TOPOMOE_UNDISTURBED=1 setsid --wait bash -c '
    { echo -20 >/proc/self/autogroup; } 2>/dev/null
    exec nice -n -20 "$@"' undisturbed "$(readlink -f "$0")" "$@" &
  trap 'kill -TERM -- -$! 2>/dev/null' INT TERM
  wait $!
  exit $?
}
