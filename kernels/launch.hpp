// The only way to launch a kernel: a plain function call instead of <<<>>>, so that a host compiler can
// read kernel sources too.
//
//   launch("gather_rows", gather_rows_kernel<float>, grid, block, shared_bytes, stream, arguments...);
//
// Arguments are converted to the kernel's parameter types. An empty grid is legal and launches nothing,
// so that operations on zero rows need no case of their own.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda_error.hpp"

namespace topomoe::kernels {

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
            cudaStream_t stream, const Arguments&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments));
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  // Not cudaLaunchKernel, which forgets the kernel's type: tests/support/simt calls it.
  TOPOMOE_CUDA_TRY(name, cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

// Tests on the SIMT harness compile a few, so that small shapes stride too.
#ifndef TOPOMOE_MOST_BLOCKS
#define TOPOMOE_MOST_BLOCKS 65535
#endif

// Blocks for `items` of which each block takes `per_block`, at most `most` (kernels then stride).
inline unsigned blocks_for(std::int64_t items, std::int64_t per_block, std::int64_t most = TOPOMOE_MOST_BLOCKS) {
  return static_cast<unsigned>(std::min((items + per_block - 1) / per_block, most));
}

}  // namespace topomoe::kernels
