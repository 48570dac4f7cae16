// The router on a GPU: a small tiled product, and one warp a row for scores and top-k.
//
// Not cuBLAS: a logit must be one sum in index order, whatever the number of rows (router.hpp), and the
// experts' side is too narrow to gain much. Compiled without contraction and with one formula of scores
// (router_score.hpp), so that logits, scores, ids and weights have the bits of router_cpu.cpp; what losses are made of,
// and backward, differ in last bits.
#include "kernels/dynamic_shared.cuh"
#include "kernels/grid_gpu.cuh"
#include "kernels/router.hpp"
#include "kernels/router_score.hpp"

namespace topomoe::kernels {
namespace {

constexpr int kTile = 32;
constexpr int kTileRows = 8;  // threads of a block: kTile x kTileRows, each with kTile / kTileRows results
constexpr int kResults = kTile / kTileRows;
constexpr int kWarpsPerBlock = 4;

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

constexpr int kOwned = kMaxExperts / kWarp;  // experts, or groups, of a lane at most: i, i + 32, ...

std::size_t scores_bytes(int experts) { return sizeof(float) * kWarpsPerBlock * static_cast<std::size_t>(experts); }

// One row's scores, worked out once by its warp, in the warp's part of shared memory. Sums over experts are those of
// router_cpu.cpp: lane i adds e = i, i + 32, ..., lanes fold in halves.
struct RowScores {
  const float* logits;
  float* of;  // [experts]
  float largest;
  int experts, lane;
  bool sigmoid;

  __device__ RowScores(const float* row, float* warps_part, int count, bool is_sigmoid, bool wanted = true)
      : logits(row), of(warps_part), experts(count), lane(lane_of_warp()), sigmoid(is_sigmoid) {
    if (!wanted) return;
    __syncwarp();  // the row before may still be read
    if (sigmoid) {
      for (int e = lane; e < experts; e += kWarp) of[e] = sigmoid_score(logits[e]);
    } else {
      find_largest();
      float all = 0.0F;
      for (int e = lane; e < experts; e += kWarp) all += of[e] = exp_below(logits[e] - largest);
      const float inverse = 1.0F / warp_sum(all);
      for (int e = lane; e < experts; e += kWarp) of[e] *= inverse;
    }
    __syncwarp();
  }
  // A NaN is no number to be the largest.
  __device__ void find_largest() {
    float most = -INFINITY;
    for (int e = lane; e < experts; e += kWarp) most = logits[e] > most ? logits[e] : most;
    largest = warp_max(most);
  }
  __device__ float operator()(int e) const { return of[e]; }
  // What scales the scores to sum 1.
  __device__ float sum() const {
    if (!sigmoid) return 1.0F;
    float part = 0.0F;
    for (int e = lane; e < experts; e += kWarp) part += of[e];
    return warp_sum(part) + kLeastSigmoidSum;
  }
  __device__ float log_sum_exp() {
    if (sigmoid) find_largest();
    float all = 0.0F;
    for (int e = lane; e < experts; e += kWarp) all += expf(logits[e] - largest);
    return largest + logf(warp_sum(all));
  }
};

__device__ float* scores_of_warp(int experts) { return dynamic_shared<float>() + warp_of_block() * experts; }

__device__ float number(float x) { return isnan(x) ? -INFINITY : x; }

// The largest of value(0..n), the lowest among equals, of those that `taken` leaves: bit i of a lane is
// element lane + 32 i. The owner marks it. Needs one that is left and allowed.
template <class Value, class Allowed>
__device__ int warp_best(int n, unsigned& taken, int lane, Value value, Allowed allowed) {
  int best = n;
  float best_value = -INFINITY;
  for (int i = lane, bit = 0; i < n; i += kWarp, ++bit) {
    if ((taken >> bit & 1U) || !allowed(i)) continue;
    const float mine = number(value(i));
    if (best == n || mine > best_value) {
      best = i;
      best_value = mine;
    }
  }
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    const int other = __shfl_xor_sync(kAllLanes, best, lanes);
    const float other_value = __shfl_xor_sync(kAllLanes, best_value, lanes);
    if (other < n && (best == n || other_value > best_value || (other_value == best_value && other < best))) {
      best = other;
      best_value = other_value;
    }
  }
  if (best % kWarp == lane) taken |= 1U << (best / kWarp);
  return best;
}

// One warp a row; lane i owns experts i, i + 32, ...
__global__ void top_k_kernel(const float* logits, const float* bias, std::int32_t* ids, float* weights,
                             std::int64_t rows, int experts, int k, bool renormalize, bool by_logits, RouterOptions o) {
  __shared__ unsigned group_taken[kWarpsPerBlock][kOwned];
  const int lane = lane_of_warp(), warp = warp_of_block();
  const bool sigmoid = o.scoring == Scoring::sigmoid, limited = o.topk_groups < o.groups;
  const int of_group = experts / o.groups;
  for (std::int64_t row = first_warp(); row < rows; row += warp_stride()) {
    const float* const logit = logits + row * experts;
    const RowScores score(logit, scores_of_warp(experts), experts, sigmoid, !by_logits || (!sigmoid && !renormalize));
    const auto value_of = [&](int e) {
      if (by_logits) return logit[e];
      return bias != nullptr ? score(e) + bias[e] : score(e);
    };
    if (limited) {
      const auto worth = [&](int group) {
        float first = -INFINITY, second = -INFINITY;
        for (int e = group * of_group; e < (group + 1) * of_group; ++e) {
          const float value = number(value_of(e));
          second = value > first ? first : fmaxf(second, value);
          first = fmaxf(first, value);
        }
        return sigmoid && of_group > 1 ? first + second : first;
      };
      __syncwarp();  // the row before may still read
      for (int i = lane; i < kOwned; i += kWarp) group_taken[warp][i] = 0;
      __syncwarp();
      unsigned taken = 0;
      for (int i = 0; i < o.topk_groups; ++i) {
        const int group = warp_best(o.groups, taken, lane, worth, [](int) { return true; });
        if (lane == 0) group_taken[warp][group / kWarp] |= 1U << (group % kWarp);
      }
      __syncwarp();
    }
    const auto allowed = [&](int e) {
      const int group = e / of_group;
      return !limited || (group_taken[warp][group / kWarp] >> (group % kWarp) & 1U) != 0;
    };
    unsigned taken = 0;
    int mine = 0;  // lane i keeps slot i
    for (int slot = 0; slot < k; ++slot) {
      const int best = warp_best(experts, taken, lane, value_of, allowed);
      if (lane == slot) mine = best;
    }
    const float of_mine = lane < k ? logit[mine] : -INFINITY;
    float weight = 0.0F, sum = 0.0F;
    if (sigmoid) {
      weight = sigmoid_score(of_mine);
    } else if (renormalize) {
      weight = exp_below(of_mine - warp_max(number(of_mine)));
    } else if (lane < k) {
      weight = score(mine);
    }
    for (int slot = 0; slot < k; ++slot) sum += __shfl_sync(kAllLanes, weight, slot);
    if (renormalize) weight /= sigmoid ? sum + kLeastSigmoidSum : sum;
    if (lane < k) {
      ids[row * k + lane] = mine;
      weights[row * k + lane] = o.scale * weight;
    }
  }
}

// One warp some rows; sums in whatever order warps come.
__global__ void loss_sums_kernel(float* sums, const float* logits, std::int64_t rows, int experts, bool sigmoid) {
  const int lane = lane_of_warp();
  float* mine = scores_of_warp(experts) + kWarpsPerBlock * experts;  // [experts], behind all warps' scores
  for (int e = lane; e < experts; e += kWarp) mine[e] = 0.0F;
  float squares = 0.0F;
  for (std::int64_t row = first_warp(); row < rows; row += warp_stride()) {
    RowScores score(logits + row * experts, scores_of_warp(experts), experts, sigmoid);
    const float sum = score.sum();
    for (int e = lane; e < experts; e += kWarp) mine[e] += score(e) / sum;
    const float z = score.log_sum_exp();
    squares += z * z;
  }
  for (int e = lane; e < experts; e += kWarp) atomicAdd(&sums[e], mine[e]);
  if (lane == 0) atomicAdd(&sums[experts], squares);
}

// One warp a row; the formula is at logit_gradients in router_cpu.cpp.
__global__ void logit_gradients_kernel(float* logit_grads, const float* logits, const std::int32_t* all_ids,
                                       const float* weight_grads, const float* score_grads, float z_grad,
                                       std::int64_t rows, int experts, int k, bool renormalize, RouterOptions o) {
  const int lane = lane_of_warp();
  const bool sigmoid = o.scoring == Scoring::sigmoid;
  for (std::int64_t row = first_warp(); row < rows; row += warp_stride()) {
    RowScores score(logits + row * experts, scores_of_warp(experts), experts, sigmoid);
    const std::int32_t* ids = all_ids + row * k;
    const float* g = weight_grads + row * k;
    const bool among_chosen = renormalize && !sigmoid;
    float largest = -INFINITY, divisor = 1.0F, mean = 0.0F, dot = 0.0F;
    for (int slot = 0; slot < k; ++slot) largest = fmaxf(largest, score.logits[ids[slot]]);
    const auto unscaled = [&](int slot) {
      return among_chosen ? exp_below(score.logits[ids[slot]] - largest) : score(ids[slot]);
    };
    if (renormalize) {
      divisor = sigmoid ? kLeastSigmoidSum : 0.0F;
      for (int slot = 0; slot < k; ++slot) divisor += unscaled(slot);
      for (int slot = 0; slot < k; ++slot) mean += o.scale * g[slot] * (unscaled(slot) / divisor);
    }
    for (int slot = 0; !among_chosen && slot < k; ++slot) dot += (o.scale * g[slot] - mean) / divisor * unscaled(slot);
    float wanted = 0.0F, sum = 1.0F;
    if (score_grads != nullptr) {
      sum = score.sum();
      for (int e = lane; e < experts; e += kWarp) wanted += score_grads[e] * (score(e) / sum);
      wanted = warp_sum(wanted);
    }
    const float z = z_grad != 0.0F ? score.log_sum_exp() : 0.0F;
    for (int e = lane; e < experts; e += kWarp) {
      float gradient = 0.0F, of_chosen = 0.0F;
      for (int slot = 0; slot < k; ++slot) {
        if (ids[slot] != e) continue;
        const float mine = (o.scale * g[slot] - mean) / divisor;
        (among_chosen ? of_chosen : gradient) = among_chosen ? mine * unscaled(slot) : mine;
      }
      if (score_grads != nullptr) gradient += (score_grads[e] - wanted) / sum;
      const float s = score(e);
      float out = sigmoid ? gradient * (s * (1.0F - s)) : s * (gradient - dot) + of_chosen;
      if (z_grad != 0.0F) out += z_grad * z * expf(score.logits[e] - z);
      logit_grads[row * experts + e] = out;
    }
  }
}

}  // namespace

void router_gpu(const Router& op, GpuStream stream) {
  check(op);
  const auto* weight = static_cast<const float*>(op.weight);
  with_gpu_element(op.dtype, [&]<class T>(T) {
    product<T, float, float>("router logits", {static_cast<const T*>(op.tokens), op.hidden, 1}, {weight, 1, op.hidden},
                             op.logits, op.rows, op.experts, op.hidden, 1.0F, false, stream);
  });
  launch("router top-k", top_k_kernel, blocks_for(op.rows, kWarpsPerBlock), kWarp * kWarpsPerBlock,
         scores_bytes(op.experts), stream, static_cast<const float*>(op.logits), op.bias, op.ids, op.weights, op.rows,
         op.experts, op.k, op.renormalize, by_logits(op), op.options);
  if (op.loss_sums == nullptr) return;
  TOPOMOE_CUDA_TRY("router losses",
                   cudaMemsetAsync(op.loss_sums, 0, sizeof(float) * static_cast<std::size_t>(op.experts + 1), stream));
  launch("router losses", loss_sums_kernel, blocks_for(op.rows, kWarpsPerBlock), kWarp * kWarpsPerBlock,
         2 * scores_bytes(op.experts), stream, op.loss_sums, static_cast<const float*>(op.logits), op.rows, op.experts,
         op.options.scoring == Scoring::sigmoid);
}

void router_backward_gpu(const RouterBackward& op, GpuStream stream) {
  check(op);
  launch("router logit gradients", logit_gradients_kernel, blocks_for(op.rows, kWarpsPerBlock), kWarp * kWarpsPerBlock,
         scores_bytes(op.experts), stream, op.logit_grads, op.logits, op.ids, op.weight_grads, op.score_grads,
         op.z_grad, op.rows, op.experts, op.k, op.renormalize, op.options);
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
