#!/usr/bin/env bash
# A short functional pass, which ctest runs: 2 hosts x 2 ranks, the bench over MPI between them, and what the NICs
# counted must be the payload that was drawn, with headers and little else. No time is judged. TOPOMOE names the program.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
if [ -z "${CLUSTER:-}" ]; then
  require_cluster
  exec timeout --kill-after=5 90 "$here/up.sh" --hosts 2 --rate 1gbit --burst 65536 -- "$(readlink -f "$0")"
fi

rounds=4
sent() { "$here/nic_bytes.sh" | awk '{ bytes += $2 } END { print bytes }'; }
before=$(sent)
rows=$(timeout 60 "$here/mpirun.sh" 2 -- "$(topomoe_binary)" bench alltoall --backend mpi --tp 2 --ep 2 --bytes 2M \
  --split replicated,sliced --chunks 1,3 --warmup 0 --repeat $rounds --format json)
wire=$(($(sent) - before))
echo "$rows"

# FIELD: its values, one a row
values() { sed -n "s/.*\"$1\":\([0-9.e+]*\).*/\1/p" <<<"$rows"; }
[ "$(values hosts | sort -u)" = 2 ] || fail "ranks of two hosts were not told apart"
payload=$(values inter_bytes | awk -v rounds=$rounds '{ bytes += rounds * $1 } END { printf "%.0f", bytes }')
# 66 bytes of headers in a packet of 1514 are 4.6%, an acknowledgement for every other packet 2.2%; the rest, at most, is
# MPI's start, barriers and counts.
most=$((payload * 107 / 100 + 1000000))
echo "payload between hosts $payload B, on their NICs $wire B"
[ "$wire" -ge "$payload" ] || fail "less on the wire than the drawn payload"
[ "$wire" -le "$most" ] || fail "more on the wire than $most B: something else crosses between hosts"
