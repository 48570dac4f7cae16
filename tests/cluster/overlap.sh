#!/usr/bin/env bash
# overlap.sh [--rate 200mbit] [options of overlap.cpp]: an exchange beside a caller's own kernel, with and without the
# progress hook; one rank on each of two hosts. One JSON row. OVERLAP names the program, else the newest build's.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
rate=200mbit
if [ "${1:-}" = --rate ]; then rate=$2 && shift 2; fi
require_cluster
program=${OVERLAP:-$(ls -t "$here"/../../build/*/overlap 2>/dev/null | head -1)}
[ -x "$program" ] || fail "no overlap: build it (TOPOMOE_BUILD_BENCHMARKS), or name it in OVERLAP"
exec "$here/up.sh" --hosts 2 --rate "$rate" -- "$here/mpirun.sh" 1 -- "$(readlink -f "$program")" "$@"
