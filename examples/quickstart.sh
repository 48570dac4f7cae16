#!/usr/bin/env bash
# From nothing to a plan that ran: installs what is missing (Debian 12), builds, plans Mixtral-8x7B training on
# 2 hosts x 8 H100, explains the plan, runs it on 16 ranks of this machine, and compares two ways of moving tokens.
# No GPU is needed, nor used: CUDA is left out of this build, which is for looking, not for running on a cluster
# (nvcc takes minutes; `cmake --preset release` has everything).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export HOME="${HOME:-/tmp}"

bash cmake/install-debian-packages.sh build optional

launcher=()
if command -v ccache > /dev/null; then launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
build=build/quickstart out=build/quickstart-out
mkdir -p build "$out"
echo "== building in $build"
cmake --preset release -B "$build" -DTOPOMOE_BUILD_TESTS=OFF -DTOPOMOE_BUILD_BENCHMARKS=OFF -DTOPOMOE_WITH_CUDA=OFF \
  "${launcher[@]}" > "$build.log" 2>&1 || { cat "$build.log" >&2; exit 3; }
cmake --build "$build" --target topomoe
topomoe=$build/topomoe
cluster=configs/clusters/quickstart-2xh100.json model=configs/models/mixtral-8x7b.json

step() { printf '\n== %s\n' "$1"; shift; echo "\$ $*"; "$@"; }

step "the cluster (drawing: $out/topology.svg)" \
  "$topomoe" topo show "$cluster" --svg "$out/topology.svg"
step "plan Mixtral-8x7B training on 2 hosts x 8 H100, and why" \
  "$topomoe" plan --cluster "$cluster" --model "$model" -o "$out/plan.json"
step "run that plan's MoE layer on 16 local ranks, and verify" \
  "$topomoe" run "$out/plan.json" --verify --trace "$out/trace.json"

# The same layout twice, TP=8 and EP=2: replicated sends each token from every TP rank, sliced from one of them,
# in chunks whose gather inside the node runs beside the next chunk's exchange between nodes.
layout=(--fix "tp=8,ep=2,etp=8" --sequence-parallel off)
for split in replicated sliced; do
  if [ "$split" = sliced ]; then chunks=4; else chunks=1; fi
  echo
  echo "== plan TP=8, EP=2, $split, n=$chunks (explained in $out/$split.txt)"
  "$topomoe" plan --cluster "$cluster" --model "$model" "${layout[@]}" --split "$split" --transport flat --chunks "$chunks" \
    -o "$out/$split.json" > "$out/$split.txt"
done
step "run replicated" \
  "$topomoe" run "$out/replicated.json" --verify | tee "$out/replicated-run.txt"
step "run sliced" \
  "$topomoe" run "$out/sliced.json" --verify | tee "$out/sliced-run.txt"

# Both tables above in one: bytes by link class, and the time of the layer.
cat << END

== replicated against sliced (TP=8, EP=2, ETP=8; one layer, forward and backward)
$(printf '%-28s%16s%16s%16s%16s' '' 'replicated' '' 'sliced, n=4' '')
$(printf '%-28s%16s%16s%16s%16s' '' predicted measured predicted measured)
$(paste -d' ' <(grep -E '^  (payload|layer)' "$out/replicated-run.txt") <(grep -E '^  (payload|layer)' "$out/sliced-run.txt") |
  awk '{ what = $1 " " $2 " " $3; n = 0; for (i = 4; i <= NF; ++i) if ($i ~ /^[0-9.]+$/) v[n++] = $i
         printf "%-28s%16s%16s%16s%16s\n", what, v[0], v[1], v[2], v[3] }')
(bytes, all ranks; the last row is us: predicted on H100s at full size, measured here, where there is no GPU)

Written to $out: plan.json (the plan), trace.json (open in ui.perfetto.dev), topology.svg (the cluster).
END
