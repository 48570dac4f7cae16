#!/usr/bin/env bash
# Fails where ptxas spills registers of a kernel to memory, or says nothing of a kernel that the source names.
#   spills.sh "ARCHITECTURES" SOURCE.cu [NVCC]    e.g. "90" or "80 90 100"; skipped (77) without NVCC
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)"
architectures="$1" source="$2" nvcc="${3:-}"
if [ -z "$nvcc" ]; then
  echo "spills.sh: skipped: built without CUDA, there is no nvcc to ask"
  exit 77
fi

# `__global__ void __launch_bounds__(256) name(`, wherever lines end.
kernels=$(tr '\n' ' ' < "$source" |
  grep -oE '__global__ void +(__launch_bounds__\([^)]*\) +)?[A-Za-z0-9_]+\(' | sed -E 's/.* ([A-Za-z0-9_]+)\($/\1/')
if [ -z "$kernels" ]; then
  echo "spills.sh: $source names no kernel"
  exit 1
fi
failed=0
for architecture in $architectures; do
  said=$("$nvcc" --std=c++20 --fmad=false -arch="sm_${architecture%-real}" -cubin -Xptxas -v -o /dev/null \
    -I "$root" -I "$root/include" "$source" 2>&1) || { echo "$said"; exit 1; }
  for kernel in $kernels; do
    # Mangled names have the length before the name. One line an instance: spilled bytes, stores and loads.
    spilled=$(awk -v name="${#kernel}$kernel" '
      /Function properties for/ { mine = index($0, name) > 0 }
      mine && /bytes spill stores/ { print $5 + $9; mine = 0 }' <<< "$said")
    if [ -z "$spilled" ]; then
      echo "$kernel, sm_$architecture: ptxas says nothing of it"
      failed=1
      continue
    fi
    bytes=$(awk '{ sum += $1 } END { print sum }' <<< "$spilled")
    echo "$kernel, sm_$architecture: $(wc -l <<< "$spilled") instances, $bytes bytes spilled"
    [ "$bytes" -eq 0 ] || failed=1
  done
done
exit $failed
