#!/usr/bin/env bash
# A cluster on a laptop: two hosts of four ranks, made of network namespaces with 200 Mbit between them (tests/cluster).
# What it is is written down, what it does is measured, a layer is planned for it and run across it, and the exchanges
# that could have been chosen are timed beside the one that was. Needs root, iproute2 and Open MPI; about a minute.
#
#   sudo examples/virtual_cluster.sh [FOLDER]      TOPOMOE names the program, else the newest build of this tree
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cluster=$root/tests/cluster
. "$cluster/common.sh"
hosts=2 ranks=4 rate=200mbit

if [ -z "${CLUSTER:-}" ]; then
  require_cluster
  TOPOMOE=$(topomoe_binary)
  out=${1:-$root/build/virtual-cluster}
  mkdir -p "$out"
  export TOPOMOE out
  echo "== two hosts of four ranks, $rate between them"
  # Run again inside, beside the hosts; they are gone when it ends.
  exec "$cluster/up.sh" --hosts "$hosts" --rate "$rate" -- "${BASH_SOURCE[0]}"
fi

cd "$out"
step() {
  printf '\n== %s\n' "$1"
  shift
  echo "\$ ${*/#$root\//}"
  "$@"
}
everywhere() { step "$1" "$cluster/mpirun.sh" "$ranks" -- "$TOPOMOE" "${@:2}"; }

printf '\n== what it is: %s\n' "$out/cluster.json"
"$cluster/cluster_json.sh" --hosts "$hosts" --ranks "$ranks" --rate "$rate" >cluster.json
everywhere "what it does: each kind of exchange by size, on these very links" \
  profile --backend mpi --cluster cluster.json --seconds 8 -o calibration.json
step "a plan for it: TP=4 inside the hosts, EP=2 across (explained in plan.txt)" \
  "$TOPOMOE" plan --cluster cluster.json --calibration calibration.json --model "$root/configs/models/mixtral-8x7b.json" \
  --memory-GiB 500 --dtype f32 --sequence 1024 --micro-batch 1 --fix tp=4,ep=2,etp=4,pp=1 --sequence-parallel off -o plan.json >plan.txt
grep -E '^(layout|algorithm|MoE layer)' plan.txt
everywhere "run that plan's MoE layer, and compare" \
  run plan.json --backend mpi --cluster cluster.json --calibration calibration.json --shrink hidden=1024,ffn=512,tokens=1024 \
  --verify --trace trace.json
everywhere "its exchange beside those that were not chosen" \
  bench alltoall --backend mpi --tp 4 --ep 2 --experts 8 --top-k 2 --bytes 8M --rate-GBps 0.0239 --cluster cluster.json \
  --calibration calibration.json --variants all --chunks 1,4 --repeat 3
printf '\nWritten to %s: cluster.json, calibration.json, plan.json, trace.json (open in ui.perfetto.dev).\n' "$out"
