#!/usr/bin/env bash
# bench.sh monta|baselines [--format json] [--launches 5] [--rounds 1] [--rate 200mbit] [--bytes 16M]
#
# monta: 2 hosts x 8 ranks, TP=8, EP=2: tokens once for each TP rank (replicated), or an eighth each and then gathered
# inside the host (sliced), in 1 to 32 chunks.
# baselines: the same, beside what others do (baselines.cpp), and once more with TP=1, EP=16 and a quarter of the bytes.
# Each launch runs all variants interleaved, after one round of warm-up. Printed: medians over launches of each launch's
# median, and over the bound: the drawn payload through the busiest NIC at 0.956 of its rate, which TCP and Ethernet
# headers leave (1448 of 1514 bytes a packet). TOPOMOE names the program; baselines is beside it.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"

if [ "${1:-}" = --launches-of ]; then # inside the cluster
  shift
  launches=$1
  shift
  for ((i = 0; i < launches; i++)); do
    timeout --kill-after=5 300 "$here/mpirun.sh" 8 -- "$@" ||
      fail "launch $i failed"
  done
  exit
fi

case=${1:-}
[ "$case" = monta ] || [ "$case" = baselines ] || fail "what? bench.sh monta|baselines [options]"
shift
format=text launches=5 rounds=1 rate=200mbit bytes=16M
while [ $# -gt 0 ]; do
  case $1 in
    --format) format=$2 ;;
    --launches) launches=$2 ;;
    --rounds) rounds=$2 ;;
    --rate) rate=$2 ;;
    --bytes) bytes=$2 ;;
    *) fail "$1: unknown; see the head of the script" ;;
  esac
  shift 2
done
require_cluster
case $rate in
  *mbit) GBps=$(awk -v r="${rate%mbit}" 'BEGIN { printf "%.9g", r / 8000 * 0.956 }') ;;
  *gbit) GBps=$(awk -v r="${rate%gbit}" 'BEGIN { printf "%.9g", r / 8 * 0.956 }') ;;
  *) fail "--rate $rate: as 200mbit or 1gbit" ;;
esac
# About half a millisecond of the rate: a NIC's own buffer, and few enough packets that two lanes share it evenly.
burst=$(awk -v g="$GBps" 'BEGIN { b = 16384; while (b < 0.4e6 * g) b *= 2; print b }')
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT

# PROGRAM ...: all launches of it, and the table
measure() {
  "$here/up.sh" --hosts 2 --rate "$rate" --burst "$burst" -- "$self" --launches-of "$launches" "$@" >"$rows"
  awk -v format="$format" -v launches="$launches" "$table" "$rows"
}

self=$(readlink -f "$0")
table='
  function value(key) { match($0, "\"" key "\":[^,}]*"); return substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) }
  /"algorithm"/ {
    name = value("algorithm"); gsub("\"", "", name)
    key = name " n=" value("chunks")
    if (!(key in count)) order[++variants] = key
    time[key, ++count[key]] = value("time_us_median") + 0
    bound[key] = value("bound_us")
    line[key] = $0
  }
  END {
    if (format == "text") printf "%-20s %12s %12s %12s %12s %8s\n", "(us, " launches " launches)", "median", "min", "max", "bound", "/bound"
    for (v = 1; v <= variants; v++) {
      key = order[v]; n = count[key]
      if (n != launches) { print "bench.sh: a launch gave no row for " key > "/dev/stderr"; exit 1 }
      for (i = 1; i <= n; i++) t[i] = time[key, i]
      for (i = 2; i <= n; i++) { x = t[i]; for (j = i - 1; j > 0 && t[j] > x; j--) t[j + 1] = t[j]; t[j + 1] = x }
      m = (t[int((n + 1) / 2)] + t[int(n / 2) + 1]) / 2
      if (format == "text") { printf "%-20s %12.0f %12.0f %12.0f %12.0f %8.3f\n", key, m, t[1], t[n], bound[key], m / bound[key]; continue }
      row = line[key]; sub(/,$/, "", row)
      sub(/"time_us_median":[^,]*/, sprintf("\"time_us_median\":%.1f", m), row)
      sub(/"time_us_min":[^,]*/, sprintf("\"time_us_min\":%.1f", t[1]), row)
      sub(/"time_us_max":[^,]*/, sprintf("\"time_us_max\":%.1f", t[n]), row)
      print (v == 1 ? "[\n" : ",\n") row (v == variants ? "\n]" : "")
    }
  }'

topomoe=$(topomoe_binary)
if [ "$case" = monta ]; then
  variants=replicated:flat:1
  for n in 1 2 4 8 16 32; do variants+=,sliced:flat:$n; done
  measure "$topomoe" bench alltoall --backend mpi --tp 8 --ep 2 --experts 8 --top-k 2 --bytes "$bytes" \
    --rate-GBps "$GBps" --variants "$variants" --warmup 1 --repeat "$rounds" --format json
else
  baselines=$(dirname "$topomoe")/baselines
  [ -x "$baselines" ] || fail "no $baselines: build the target baselines"
  all=$(numfmt --from=iec "$bytes")
  measure "$baselines" --tp 8 --bytes "$all" --rate-GBps "$GBps" --repeat "$rounds"
  measure "$baselines" --tp 1 --bytes $((all / 4)) --rate-GBps "$GBps" --repeat "$rounds"
fi
