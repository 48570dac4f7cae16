#!/usr/bin/env bash
# mpirun.sh RANKS_A_HOST [options of mpirun] -- program ...: an Open MPI job over all hosts of the cluster around us.
#
# Settings, all of them overridable by --mca:
#  mpi_yield_when_idle  more ranks than cores: without it small collectives take 50 times as long.
#  btl_tcp_flags=1      send only. The default (put) makes a large exchange in both directions half duplex over one
#                       connection, at 60% of the rate, and so fakes a gain of chunks. Hangs with btl_tcp_links above 1.
#  btl_tcp_sndbuf, _rcvbuf  32 KiB: with the kernel's megabytes a few of the many flows of an all-to-all fill a NIC's queue,
#                       and towards its end other NICs idle: 18% for 4 hosts, against 8%. A NIC's own queues are no deeper.
#  btl_tcp_if_include   data on the shaped NICs, the launcher's talk on mgmt. With several rails a rank uses one, its place
#                       on the host modulo rails: Open MPI's own striping reaches half of two.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
[ -n "${CLUSTER:-}" ] || fail "no cluster around: run this under up.sh"
if [ "$1" = --pinned ]; then # on a host, in place of the program
  shift
  OMPI_MCA_btl_tcp_if_include=eth$((OMPI_COMM_WORLD_LOCAL_RANK % $(<"$CLUSTER/rails"))) exec "$@"
fi
ranks=$1
shift
options=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  options+=("$1")
  shift
done
[ $# -gt 1 ] || fail "no program: mpirun.sh RANKS_A_HOST [options] -- program ..."
shift
list=''
for ((i = 0; i < $(<"$CLUSTER/count"); i++)); do list+=${list:+,}h$i:$ranks; done
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader,tcp OMPI_MCA_btl_tcp_flags=1 \
  OMPI_MCA_btl_tcp_sndbuf=32768 OMPI_MCA_btl_tcp_rcvbuf=32768 OMPI_MCA_mpi_yield_when_idle=1 \
  OMPI_MCA_btl_tcp_if_include=10.50.0.0/24 OMPI_MCA_oob_tcp_if_include=10.49.0.0/24 OMPI_MCA_plm_rsh_agent="$here/host.sh --line"
[ "$(<"$CLUSTER/rails")" = 1 ] || set -- "$here/mpirun.sh" --pinned "$@"
exec "$here/host.sh" h0 mpirun --allow-run-as-root --oversubscribe --bind-to none --map-by slot --leave-session-attached --host "$list" \
  -x CLUSTER "${options[@]}" "$@" </dev/null
