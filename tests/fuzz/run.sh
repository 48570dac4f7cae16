#!/usr/bin/env bash
# Fuzzes the readers for SECONDS in all, two at a time: bash tests/fuzz/run.sh SECONDS [READER...] [-libFuzzer_option=...]
# Installs Clang where it is missing (Debian 12). What is found stays below build/fuzz/work: corpus/READER is where the
# next run begins, artifacts/READER holds inputs that crashed, took 10 s or 2 GiB. Exit 1 where there are any.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export HOME="${HOME:-/tmp}"
usage="usage is bash tests/fuzz/run.sh SECONDS [READER...] [-libFuzzer_option=...]"
case "${1:-}" in "" | *[!0-9]*) echo "topomoe: ${1:-SECONDS missing}: $usage" >&2; exit 2 ;; esac
seconds=$1
shift

program=build/fuzz/tests/fuzz/reader_fuzz work=build/fuzz/work
bash cmake/install-debian-packages.sh fuzz
mkdir -p "$work"
cmake --preset fuzz > "$work/configure.log" || { cat "$work/configure.log"; exit 1; }
built=$SECONDS
cmake --build --preset fuzz > "$work/build.log" || { cat "$work/build.log"; exit 1; }
echo "topomoe: fuzzers built in $((SECONDS - built)) s"

readers=() options=()
for word in "$@"; do
  case $word in -*) options+=("$word") ;; *) readers+=("$word") ;; esac
done
if [ ${#readers[@]} -eq 0 ]; then mapfile -t readers < <("$program" --list); fi
rm -rf "$work/seeds" "$work/logs"
"$program" --seeds "$work/seeds" tests/data/topology/* tests/data/measured/* configs/clusters/*
mkdir -p "$work/logs"
each=$((2 * seconds / ${#readers[@]}))
[ "$each" -ge 2 ] || each=2

export UBSAN_OPTIONS="print_stacktrace=1:${UBSAN_OPTIONS:-}"
# Lines of a crash are named by LLVM's symbolizer, of any version, or else by that of binutils.
if symbolizer=$(command -v llvm-symbolizer); then
  export ASAN_SYMBOLIZER_PATH=$symbolizer
else
  export ASAN_OPTIONS="allow_addr2line=1:${ASAN_OPTIONS:-}"
fi

fuzz_one() {
  local reader=$1 log=$work/logs/$1.log
  local folders=("$work/corpus/$reader") artifacts=$work/artifacts/$reader
  mkdir -p "$artifacts" "${folders[0]}"
  [ ! -d "$work/seeds/$reader" ] || folders+=("$work/seeds/$reader")
  local dictionary=()
  [ ! -f "$work/seeds/$reader.dict" ] || dictionary=("-dict=$work/seeds/$reader.dict")
  local ended=0
  "$program" "$reader" -max_total_time="$each" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
    -artifact_prefix="$artifacts/" "${dictionary[@]}" "${options[@]}" "${folders[@]}" > "$log" 2>&1 || ended=$?
  local runs speed covered
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  speed=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
  covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
  if [ "$ended" -eq 0 ]; then
    echo "fuzz: $reader: $each s, ${runs:-?} runs, ${speed:-?} a second, ${covered:-0} edges covered, no crash"
    return
  fi
  local found
  found=$(sed -n 's/.*Test unit written to \(.*\)/\1/p' "$log" | tail -n 1)
  grep -E '^topomoe: |ERROR: |runtime error: |SUMMARY: ' "$log" || tail -n 20 "$log"
  echo "fuzz: $reader: CRASH after ${runs:-?} runs; again: $program $reader ${found:-(see $log)}"
  return 1
}

failed=0 running=()
for reader in "${readers[@]}"; do
  fuzz_one "$reader" &
  running+=($!)
  if [ ${#running[@]} -eq 2 ]; then
    wait "${running[0]}" || failed=1
    running=("${running[1]}")
  fi
done
for process in "${running[@]}"; do wait "$process" || failed=1; done
exit "$failed"
