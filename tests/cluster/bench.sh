#!/usr/bin/env bash
# bench.sh monta|baselines|dedup|packets [--format json] [--launches 5] [--rounds 1] [--rate 200mbit] [--bytes 16M] [--plan]
# bench.sh grid [--keep grid] [--cases FILE] [--quick] [--format json] [options of grid_run.py]
#
# monta: 2 hosts x 8 ranks, TP=8, EP=2: tokens once for each TP rank (replicated), or an eighth each and then gathered
#   inside the host (sliced), in 1 to 32 chunks. --plan profiles the cluster first, and says which n the planner takes.
# baselines: ours beside what others do (baselines.cpp), in several shapes and sizes; ratios are of one launch, and then
#   the median over launches. --plan profiles the clusters first: ours is then what the planner takes, before it is timed.
# dedup: 4 hosts x 4 ranks, 64 experts, top-8: bytes between hosts against what such a draw gives, time against bytes.
# packets: 64 bytes a pair of ranks where every packet costs 1.5 ms: two_level against flat.
# grid: 70 cases on 6 clusters, each profiled once: what the planner's picks are worth (grid.py, grid_cases.txt).
#
# Each launch runs all variants interleaved, after one round of warm-up. Printed: medians over launches of each launch's
# median, and over the bound: the drawn payload through the busiest NIC at 0.956 of its rate, which TCP and Ethernet
# headers leave (1448 of 1514 bytes a packet). TOPOMOE names the program; baselines is beside it.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
undisturbed "$@"
self=$(readlink -f "$0")

if [ "${1:-}" = --launches-of ]; then # inside the cluster: LAUNCHES RANKS program ...
  launches=$2 ranks=$3
  shift 3
  for ((i = 0; i < launches; i++)); do
    # A draw of its own for each launch of what draws.
    timeout --kill-after=5 300 "$here/mpirun.sh" "$ranks" -- "${@//@LAUNCH@/$((i + 1))}" || fail "launch $i failed"
  done
  exit
fi
if [ "${1:-}" = --profile ]; then # inside the cluster: PREFIX HOSTS RANKS RATE program [layout]
  "$here/cluster_json.sh" --hosts "$3" --ranks "$4" --rate "$5" >"$2.cluster.json"
  timeout --kill-after=5 300 "$here/mpirun.sh" "$4" -- "$6" profile --backend mpi --cluster "$2.cluster.json" "${@:7}" \
    -o "$2.calibration.json" >&2
  exit
fi

case=${1:-}
[[ " monta baselines dedup packets grid " = *" $case "* ]] || fail "what? see the head of the script"
shift
format=text launches=5 rounds=1 rate='' bytes=16M plan='' keep=grid grid=()
while [ $# -gt 0 ]; do
  case $1 in
    --plan) plan=1 && shift && continue ;;
    --quick | --blind) grid+=("$1") && shift && continue ;;
    --format) format=$2 ;;
    --launches) launches=$2 grid+=("$1" "$2") ;;
    --rounds) rounds=$2 ;;
    --rate) rate=$2 ;;
    --bytes) bytes=$2 ;;
    --keep) keep=$2 ;;
    --cases | --profile-seconds) grid+=("$1" "$2") ;;
    *) fail "$1: unknown; see the head of the script" ;;
  esac
  shift 2 || fail "value missing; see the head of the script"
done
require_cluster
topomoe=$(topomoe_binary)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# GBps RATE: of payload
payload() { awk -v g="$(GBps_of "$1")" 'BEGIN { printf "%.9g", g * 1448 / 1514 }'; }

# HOSTS RANKS NAME program ...: all launches of it, into a file of that name
measure() {
  local hosts=$1 ranks=$2 name=$3
  shift 3
  "$here/up.sh" --hosts "$hosts" --rate "$rate" ${mpu:+--mpu "$mpu"} -- "$self" --launches-of "$launches" "$ranks" "$@" >"$work/$name"
}
alltoall=("$topomoe" bench alltoall --backend mpi --warmup 1 --repeat "$rounds" --format json)

case $case in
  grid)
    "$here/grid_run.py" --topomoe "$topomoe" --keep "$keep" "${grid[@]}"
    exec "$here/grid.py" --format "$format" "$keep/rows.jsonl"
    ;;
  monta)
    rate=${rate:-200mbit} variants=replicated:flat:1
    for n in 1 2 4 8 16 32; do variants+=,sliced:flat:$n; done
    if [ -n "$plan" ]; then
      "$here/up.sh" --hosts 2 --rate "$rate" -- "$self" --profile "$work/plan" 2 8 "$rate" "$topomoe" --tp 8 --ep 2
      alltoall+=(--cluster "$work/plan.cluster.json" --calibration "$work/plan.calibration.json")
    fi
    measure 2 8 monta "${alltoall[@]}" --tp 8 --ep 2 --experts 8 --top-k 2 --bytes "$bytes" --rate-GBps "$(payload "$rate")" \
      --variants "$variants"
    ;;
  dedup)
    rate=${rate:-200mbit}
    measure 4 4 dedup "${alltoall[@]}" --tp 1 --ep 16 --experts 64 --top-k 8 --bytes "$bytes" --rate-GBps "$(payload "$rate")" \
      --token-bytes 4096 --variants sliced:node_dedup:1,sliced:node_dedup:4,sliced:node_dedup:8 --seed @LAUNCH@
    ;;
  packets)
    rate=${rate:-8mbit} mpu=1500
    measure 2 8 packets "${alltoall[@]}" --tp 1 --ep 16 --experts 64 --top-k 1 --bytes 1K --rate-GBps "$(payload "$rate")" \
      --variants sliced:flat:1,sliced:two_level:1
    ;;
  baselines)
    rate=${rate:-200mbit}
    baselines=$(dirname "$topomoe")/baselines
    [ -x "$baselines" ] || fail "no $baselines: build the target baselines"
    all=$(numfmt --from=iec "$bytes")
    # hosts ranks TP, and the share of --bytes
    for one in ${plan:+"2 8" "4 4"}; do
      read -r hosts ranks <<<"$one"
      "$here/up.sh" --hosts "$hosts" --rate "$rate" -- "$self" --profile "$work/$hosts" "$hosts" "$ranks" "$rate" "$topomoe" --seconds 45
    done
    for one in "2 8 8 1" "2 8 8 16" "2 8 2 8" "2 8 1 4" "2 8 1 64" "4 4 1 4" "4 4 2 4" "4 4 4 8"; do
      read -r hosts ranks tp share <<<"$one"
      measure "$hosts" "$ranks" "${hosts}x$ranks TP=$tp $((all / share / 1024)) KiB" "$baselines" --tp "$tp" --per-host "$ranks" \
        --bytes $((all / share)) --rate-GBps "$(payload "$rate")" --repeat "$rounds" \
        ${plan:+--cluster "$work/$hosts.cluster.json" --calibration "$work/$hosts.calibration.json"}
    done
    ;;
esac
"$here/table.py" "$case" --format "$format" --launches "$launches" "$work"/*
