#!/usr/bin/env bash
# exports.sh LIBRARY HEADER: the shared library shows the functions of topomoe.h and nothing else, and uses nothing that
# ends the process, handles signals or writes to stdout.
set -euo pipefail
library=$1 header=$2
declared=$(grep -oE '\btopomoe_[a-z0-9_]+\(' "$header" | tr -d '(' | sort -u)
exported=$(nm -D --defined-only "$library" | awk '{ print $3 }' | sed 's/@.*//' | grep -v '^TOPOMOE_' | sort -u)
if ! diff <(echo "$declared") <(echo "$exported"); then
  echo "above: < declared, > exported" >&2
  exit 1
fi
forbidden='exit|_exit|_Exit|quick_exit|atexit|on_exit|signal|sigaction|printf|__printf_chk|vprintf|puts|putchar|_ZSt4cout'
used() { nm "$@" --undefined-only | sed 's/@.*//' | grep -wE "U ($forbidden)$"; }
# Of nvcc's own making is an exit in what registers kernels: there the archives that are not from it are looked at.
undefined=$(nm -D --undefined-only "$library")  # grep -q would end nm early, and pipefail call that a failure
if grep -q __cudaRegisterFunction <<< "$undefined"; then
  for archive in "$(dirname "$library")"/libtopomoe_*.a; do
    [[ $archive = *_cuda.a ]] && continue
    if used "$archive"; then
      echo "above, in $archive: what an embedded library must not call" >&2
      exit 1
    fi
  done
  forbidden=${forbidden#exit|}
fi
if used -D "$library"; then
  echo "above: what an embedded library must not call" >&2
  exit 1
fi
echo "$(wc -w <<< "$exported") functions"
