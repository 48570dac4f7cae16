#!/usr/bin/env bash
# A short functional pass, which ctest runs. 2 hosts x 2 ranks: the bench over MPI between them, and what the NICs counted
# must be the payload that was drawn, with headers and little else. 4 hosts x 2 ranks on two rails and two leaves: each
# rail carries its half, and nothing is faster than the uplinks. Slow is not judged. TOPOMOE names the program.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
self=$(readlink -f "$0")
if [ -z "${CLUSTER:-}" ]; then
  require_cluster
  timeout --kill-after=5 60 "$here/up.sh" --hosts 2 --rate 1gbit -- "$self" bytes
  timeout --kill-after=5 60 "$here/up.sh" --hosts 4 --rails 2 --rate 100mbit --leaf-hosts 2 --uplink 100mbit -- "$self" fabric
  exit
fi

# KEY: its values, one a row
values() { sed -n "s/.*\"$1\":\([0-9.e+]*\).*/\1/p" <<<"$rows"; }
bench() { timeout 60 "$here/mpirun.sh" 2 -- "$(topomoe_binary)" bench alltoall --backend mpi --format json "$@"; }

bytes() {
  local rounds=4 before wire payload most
  sent() { "$here/nic_bytes.sh" | awk '{ bytes += $3 } END { print bytes }'; }
  before=$(sent)
  rows=$(bench --tp 2 --ep 2 --bytes 2M --split replicated,sliced --chunks 1,3 --warmup 0 --repeat $rounds)
  wire=$(($(sent) - before))
  echo "$rows"
  [ "$(values hosts | sort -u)" = 2 ] || fail "ranks of two hosts were not told apart"
  payload=$(values inter_bytes | awk -v rounds=$rounds '{ bytes += rounds * $1 } END { printf "%.0f", bytes }')
  # 66 bytes of headers in a packet of 1514 are 4.6%, an acknowledgement for every other packet 2.2%; the rest, at most, is
  # MPI's start, barriers and counts.
  most=$((payload * 107 / 100 + 1000000))
  echo "payload between hosts $payload B, on their NICs $wire B"
  [ "$wire" -ge "$payload" ] || fail "less on the wire than the drawn payload"
  [ "$wire" -le "$most" ] || fail "more on the wire than $most B: something else crosses between hosts"
}

fabric() {
  rows=$(bench --tp 1 --ep 8 --top-k 1 --bytes 1M --warmup 0 --repeat 2)
  echo "$rows"
  "$here/nic_bytes.sh"
  "$here/nic_bytes.sh" | awk '{ bytes[$2] += $3 } END { exit !(bytes["eth1"] > 0.8 * bytes["eth0"] && bytes["eth0"] > 0.8 * bytes["eth1"]) }' ||
    fail "rails carry unlike shares"
  # Half of 8 MiB is for the other leaf, one half of that each way, over an uplink a rail: 2.1 MB at 11.95 MB/s are 88 ms on
  # two. What buckets hold at first makes that 1% less, a draw some more.
  values time_us_min | awk '{ print "took " $1 " us"; exit !($1 > 0.9 * 88000) }' || fail "faster than the uplinks are shaped"
}

"$1"
