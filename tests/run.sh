#!/usr/bin/env bash
# Installs what is missing (Debian 12), builds everything and runs every test: bash tests/run.sh [--all-archs]
# --all-archs compiles the CUDA kernels for sm_80, sm_90 and sm_100 instead of one of them.
# Tests over data of others read TOPOMOE_DATA_DIR (default ../shared) and are skipped, by name, without it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export HOME="${HOME:-/tmp}"

preset=release
case "${1:-}" in
  "") ;;
  --all-archs) preset=cuda ;;
  *) echo "topomoe: $1: unknown: usage is bash tests/run.sh [--all-archs]" >&2; exit 2 ;;
esac

bash cmake/install-debian-packages.sh build optional test
options=()
if command -v ccache > /dev/null; then
  options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  command -v nvcc > /dev/null && options+=(-DCMAKE_CUDA_COMPILER_LAUNCHER=ccache)
fi
# nvcc is often installed without being on the PATH.
if ! command -v nvcc > /dev/null && [ -x /usr/local/cuda/bin/nvcc ]; then export CUDACXX=/usr/local/cuda/bin/nvcc; fi
cmake --preset "$preset" "${options[@]}"
cmake --build --preset "$preset"
ctest --preset "$preset"
