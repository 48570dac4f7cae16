#!/usr/bin/env bash
# Bytes and packets that each shaped NIC has sent, headers and acknowledgements included, and packets dropped:
# one line a NIC, "h0 eth0 12345 67 0".
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
[ -n "${CLUSTER:-}" ] || fail "no cluster around: run this under up.sh"
for ((i = 0; i < $(<"$CLUSTER/count"); i++)); do
  for ((r = 0; r < $(<"$CLUSTER/rails"); r++)); do
    tc -n "h$i" -s qdisc show dev "eth$r" | awk -v nic="h$i eth$r" '/Sent/ { sub(",", "", $7); print nic, $2, $4, $7 }'
  done
done
