#!/usr/bin/env bash
# Bytes that each host's shaped NIC has sent, headers and acknowledgements included, and packets dropped:
# one line a host, "h0 12345 0".
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
[ -n "${CLUSTER:-}" ] || fail "no cluster around: run this under up.sh"
for ((i = 0; i < $(<"$CLUSTER/count"); i++)); do
  tc -n "h$i" -s qdisc show dev eth0 | awk -v host="h$i" '/Sent/ { sub(",", "", $7); print host, $2, $7 }'
done
