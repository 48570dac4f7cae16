// The router on a GPU: a small tiled product, and one warp a row for softmax and top-k.
//
// Not cuBLAS: a logit must be one sum in index order, whatever the number of rows (router.hpp), and the
// experts' side is too narrow to gain much. Compiled without contraction, so that logits have the bits
// of router_cpu.cpp; probabilities differ from it by the rounding of exp() and of the sum over experts.
#include "kernels/element_gpu.cuh"
#include "kernels/launch.hpp"
#include "kernels/router.hpp"

namespace topomoe::kernels {
namespace {

constexpr int kTile = 32;
constexpr int kTileRows = 8;  // threads of a block: kTile x kTileRows, each with kTile / kTileRows results
constexpr int kResults = kTile / kTileRows;
constexpr int kWarp = 32;
constexpr int kWarpsPerBlock = 4;
constexpr unsigned kAllLanes = 0xFFFFFFFFU;

// A matrix of T seen through strides, so that a transpose needs no kernel of its own.
template <class T>
struct Strided {
  T* data;
  std::int64_t row_stride, column_stride;
  __device__ T& operator()(std::int64_t row, std::int64_t column) const {
    return data[row * row_stride + column * column_stride];
  }
};

// Copies the tile at (row, column) into shared memory, zeros beyond the edge. Neighbouring threads take
// neighbouring addresses, whichever way the matrix runs.
template <class T>
__device__ void load_tile(float (&tile)[kTile][kTile + 1], const Strided<const T>& matrix, std::int64_t row,
                          std::int64_t column, std::int64_t rows, std::int64_t columns) {
  for (int step = static_cast<int>(threadIdx.y); step < kTile; step += kTileRows) {
    const int along = static_cast<int>(threadIdx.x);
    const int i = matrix.column_stride == 1 ? step : along;
    const int j = matrix.column_stride == 1 ? along : step;
    const bool inside = row + i < rows && column + j < columns;
    tile[i][j] = inside ? load(matrix(row + i, column + j)) : 0.0F;
  }
}

// c[m, n] (= or +=) scale * a[m, k] x b[k, n], each element one sum in index order of k. The zeros
// beyond the edge of k are not added: they would turn a sum of -0 into +0.
template <class A, class B, class C>
__global__ void product_kernel(Strided<const A> a, Strided<const B> b, C* c, std::int64_t m, std::int64_t n,
                               std::int64_t k, float scale, bool accumulate) {
  __shared__ float a_tile[kTile][kTile + 1];
  __shared__ float b_tile[kTile][kTile + 1];
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kTile;
  const int x = static_cast<int>(threadIdx.x);
  const int y = static_cast<int>(threadIdx.y);
  for (std::int64_t row = static_cast<std::int64_t>(blockIdx.y) * kTile; row < m;
       row += static_cast<std::int64_t>(gridDim.y) * kTile) {
    float sum[kResults] = {};
    for (std::int64_t first = 0; first < k; first += kTile) {
      load_tile(a_tile, a, row, first, m, k);
      load_tile(b_tile, b, first, column, k, n);
      __syncthreads();
      const int depth = k - first < kTile ? static_cast<int>(k - first) : kTile;
      for (int i = 0; i < depth; ++i) {
        for (int r = 0; r < kResults; ++r) sum[r] += a_tile[y + r * kTileRows][i] * b_tile[i][x];
      }
      __syncthreads();  // before the tiles are overwritten
    }
    for (int r = 0; r < kResults; ++r) {
      const std::int64_t i = row + y + r * kTileRows;
      if (i >= m || column + x >= n) continue;
      C& result = c[i * n + column + x];
      const float value = scale * sum[r];
      result = stored<C>(accumulate ? load(result) + value : value);
    }
  }
}

template <class A, class B, class C>
void product(const char* name, Strided<const A> a, Strided<const B> b, C* c, std::int64_t m, std::int64_t n,
             std::int64_t k, float scale, bool accumulate, GpuStream stream) {
  const dim3 grid(blocks_for(n, kTile, 0x7FFFFFFF), blocks_for(m, kTile));
  launch(name, product_kernel<A, B, C>, grid, dim3(kTile, kTileRows), 0, stream, a, b, c, m, n, k, scale, accumulate);
}

__device__ float warp_max(float x) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, lanes));
  return x;
}
__device__ float warp_sum(float x) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(kAllLanes, x, lanes);
  return x;
}

__device__ std::int64_t warp_of_grid() {
  return static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
}

// One warp a row; lane i owns experts i, i + 32, ... Logits come in where probabilities go out.
__global__ void softmax_top_k_kernel(float* probabilities, std::int32_t* ids, float* weights, std::int64_t rows,
                                     int experts, int k, bool renormalize) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (std::int64_t row = warp_of_grid(); row < rows; row += static_cast<std::int64_t>(gridDim.x) * kWarpsPerBlock) {
    float* p = probabilities + row * experts;
    float largest = -INFINITY;
    for (int e = lane; e < experts; e += kWarp) largest = fmaxf(largest, p[e]);
    largest = warp_max(largest);
    float sum = 0.0F;
    for (int e = lane; e < experts; e += kWarp) {
      p[e] = expf(p[e] - largest);
      sum += p[e];
    }
    sum = warp_sum(sum);
    for (int e = lane; e < experts; e += kWarp) p[e] /= sum;

    unsigned taken = 0;  // bit i: expert lane + 32 i, of which there are at most kMaxExperts / 32 = 32
    float chosen_sum = 0.0F;
    for (int slot = 0; slot < k; ++slot) {
      int best = experts;
      float best_value = -2.0F;
      for (int e = lane, i = 0; e < experts; e += kWarp, ++i) {
        const float value = isnan(p[e]) ? -1.0F : p[e];
        if (!(taken >> i & 1U) && value > best_value) {
          best = e;
          best_value = value;
        }
      }
      for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
        const int other = __shfl_xor_sync(kAllLanes, best, lanes);
        const float other_value = __shfl_xor_sync(kAllLanes, best_value, lanes);
        if (other_value > best_value || (other_value == best_value && other < best)) {
          best = other;
          best_value = other_value;
        }
      }
      if (best % kWarp == lane) {  // its owner writes, having written p[best] itself
        taken |= 1U << (best / kWarp);
        ids[row * k + slot] = best;
        weights[row * k + slot] = p[best];
      }
      chosen_sum += __shfl_sync(kAllLanes, best % kWarp == lane ? p[best] : 0.0F, best % kWarp);
    }
    if (!renormalize) continue;
    __syncwarp();  // weights were written by their owners
    if (lane < k) weights[row * k + lane] /= chosen_sum;
  }
}

// One warp a row; the formula is at logit_gradients in router_cpu.cpp, and so is the order of addition.
__global__ void logit_gradients_kernel(float* logit_grads, const float* probabilities, const std::int32_t* all_ids,
                                       const float* weight_grads, std::int64_t rows, int experts, int k,
                                       bool renormalize) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (std::int64_t row = warp_of_grid(); row < rows; row += static_cast<std::int64_t>(gridDim.x) * kWarpsPerBlock) {
    const float* p = probabilities + row * experts;
    const std::int32_t* ids = all_ids + row * k;
    const float* g = weight_grads + row * k;
    float divisor = 1.0F;
    float mean = 0.0F;
    if (renormalize) {
      divisor = 0.0F;
      for (int slot = 0; slot < k; ++slot) divisor += p[ids[slot]];
      for (int slot = 0; slot < k; ++slot) mean += g[slot] * (p[ids[slot]] / divisor);
    }
    float dot = 0.0F;
    for (int slot = 0; slot < k; ++slot) dot += (g[slot] - mean) / divisor * p[ids[slot]];
    for (int e = lane; e < experts; e += kWarp) {
      float gradient = 0.0F;
      for (int slot = 0; slot < k; ++slot) {
        if (ids[slot] == e) gradient = (g[slot] - mean) / divisor;
      }
      logit_grads[row * experts + e] = p[e] * (gradient - dot);
    }
  }
}

}  // namespace

void router_gpu(const Router& op, GpuStream stream) {
  check(op);
  const auto* weight = static_cast<const float*>(op.weight);
  with_gpu_element(op.dtype, [&]<class T>(T) {
    product<T, float, float>("router logits", {static_cast<const T*>(op.tokens), op.hidden, 1}, {weight, 1, op.hidden},
                             op.probabilities, op.rows, op.experts, op.hidden, 1.0F, false, stream);
  });
  launch("router top-k", softmax_top_k_kernel, blocks_for(op.rows, kWarpsPerBlock), kWarp * kWarpsPerBlock, 0, stream,
         op.probabilities, op.ids, op.weights, op.rows, op.experts, op.k, op.renormalize);
}

void router_backward_gpu(const RouterBackward& op, GpuStream stream) {
  check(op);
  launch("router logit gradients", logit_gradients_kernel, blocks_for(op.rows, kWarpsPerBlock), kWarp * kWarpsPerBlock,
         0, stream, op.logit_grads, op.probabilities, op.ids, op.weight_grads, op.rows, op.experts, op.k,
         op.renormalize);
  const float* grads = op.logit_grads;
  with_gpu_element(op.dtype, [&]<class T>(T) {
    if (op.token_grads != nullptr) {
      product<float, float, T>("router token gradients", {grads, op.experts, 1},
                               {static_cast<const float*>(op.weight), op.hidden, 1}, static_cast<T*>(op.token_grads),
                               op.rows, op.hidden, op.experts, 1.0F, true, stream);
    }
    if (op.weight_grad != nullptr) {
      product<float, T, float>("router weight gradient", {grads, 1, op.experts},
                               {static_cast<const T*>(op.tokens), op.hidden, 1}, op.weight_grad, op.experts, op.hidden,
                               op.rows, op.weight_grad_scale, true, stream);
    }
  });
}

}  // namespace topomoe::kernels
