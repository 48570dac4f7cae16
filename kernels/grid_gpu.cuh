// How device code divides work: threads over items, warps or rows of a block over rows; and sums within a warp.
//
// A sum over a warp folds its lanes in halves, 16 first: the order that host code repeats where bits shall be equal
// (sum_rows_cpu.cpp, router_cpu.cpp).
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/element_gpu.cuh"
#include "kernels/launch.hpp"

namespace topomoe::kernels {

constexpr int kWarp = 32;
constexpr unsigned kThreads = 256;
constexpr unsigned kAllLanes = 0xFFFFFFFFU;

__device__ inline int lane_of_warp() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ inline int warp_of_block() { return static_cast<int>(threadIdx.x) / kWarp; }

// Blocks of one dimension: every thread an item, or every warp one.
__device__ inline std::int64_t first_item() { return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline std::int64_t item_stride() { return static_cast<std::int64_t>(gridDim.x) * blockDim.x; }
__device__ inline std::int64_t first_warp() { return first_item() / kWarp; }
__device__ inline std::int64_t warp_stride() { return item_stride() / kWarp; }

// Blocks of two: x along a row, y of them beside each other, each thread with a slice or two of a usual row.
inline dim3 row_block(std::int64_t columns) {
  unsigned along = kWarp;
  while (along < kThreads / 2 && along * kSlice < columns) along *= 2;
  return {along, kThreads / along};
}
__device__ inline std::int64_t first_row() { return static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y; }
__device__ inline std::int64_t row_stride() { return static_cast<std::int64_t>(gridDim.x) * blockDim.y; }

__device__ inline float warp_max(float x) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, lanes));
  return x;
}
__device__ inline float warp_sum(float x) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(kAllLanes, x, lanes);
  return x;
}

}  // namespace topomoe::kernels
