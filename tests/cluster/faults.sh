#!/usr/bin/env bash
# faults.sh [--count N] [--seed S] ...: ranks killed and stopped at random times, as tests/runtime/faults.sh does it and
# describes its options; here with the newest build where --binary is not given.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
[[ " $* " = *" --binary "* ]] || set -- --binary "$(topomoe_binary)" "$@"
exec "$here/../runtime/faults.sh" "$@"
