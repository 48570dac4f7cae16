// The mix of routed and shared rows on a GPU: one warp a row, 16 bytes an access; weight gradients one thread a column,
// rows in order.
#include "kernels/grid_gpu.cuh"
#include "kernels/mix.hpp"

namespace topomoe::kernels {
namespace {

constexpr int kWarpsPerBlock = 4;

// In every lane. Lane i adds the slices i, i + 32, ... of the row, whether they may be read whole or not, so that bits
// depend on the row alone and not on where it lies.
template <class T, class U>
__device__ float warp_dot(const T* a, const U* b, std::int64_t n, std::int64_t slices, int lane) {
  float sum = 0.0F;
  for (std::int64_t first = lane * kSlice; first < n; first += kWarp * kSlice) {
    if (first < slices * kSlice) {
      const Piece<T, kSlice> left = load_piece<kSlice>(a + first);
      const Piece<U, kSlice> right = load_piece<kSlice>(b + first);
      for (int e = 0; e < kSlice; ++e) sum += load(left.element[e]) * load(right.element[e]);
    } else {
      for (std::int64_t i = first; i < n && i < first + kSlice; ++i) sum += load(a[i]) * load(b[i]);
    }
  }
  return warp_sum(sum);
}

struct Factors {
  float routed, shared;
};

template <class T>
__device__ Factors factors_of(const T* token, const float* weight, std::int64_t columns, std::int64_t slices,
                              SharedGate gate, int lane) {
  if (gate == SharedGate::none) return {1.0F, 1.0F};
  const float first = warp_dot(token, weight, columns, slices, lane);
  if (gate == SharedGate::sigmoid) return {1.0F, 1.0F / (1.0F + expf(-first))};
  const float second = warp_dot(token, weight + columns, columns, slices, lane), largest = fmaxf(first, second);
  const float a = expf(first - largest), b = expf(second - largest);
  return {a / (a + b), b / (a + b)};
}

template <class T>
__global__ void mix_kernel(const T* tokens, const float* weight, const T* shared, T* out, T* routed, std::int64_t rows,
                           std::int64_t columns, std::int64_t slices, SharedGate gate) {
  const int lane = lane_of_warp();
  for (std::int64_t row = first_warp(); row < rows; row += warp_stride()) {
    const std::int64_t at = row * columns;
    const Factors f = factors_of(gate == SharedGate::none ? tokens : tokens + at, weight, columns, slices, gate, lane);
    for_each_piece(columns, slices, lane, kWarp, [&]<int W>(Width<W>, std::int64_t i) {
      const Piece<T, W> before = load_piece<W>(out + at + i), other = load_piece<W>(shared + at + i);
      if (routed != nullptr) store_piece(routed + at + i, before);
      Piece<T, W> sum;
      for (int e = 0; e < W; ++e)
        sum.element[e] = stored<T>(f.routed * load(before.element[e]) + f.shared * load(other.element[e]));
      store_piece(out + at + i, sum);
    });
  }
}

// The formula is at mix_backward_cpu.
template <class T>
__global__ void mix_backward_kernel(const T* tokens, const float* weight, const T* out_grad, const T* routed,
                                    const T* shared, T* routed_grad, T* shared_grad, T* token_grad, float* logit_grads,
                                    std::int64_t rows, std::int64_t columns, std::int64_t slices, SharedGate gate) {
  const int lane = lane_of_warp();
  const bool residual = gate == SharedGate::residual;
  for (std::int64_t row = first_warp(); row < rows; row += warp_stride()) {
    const std::int64_t at = row * columns;
    const Factors f = factors_of(tokens + at, weight, columns, slices, gate, lane);
    const float of_shared = warp_dot(out_grad + at, shared + at, columns, slices, lane);
    float first = 0.0F, second = 0.0F;
    if (!residual) {
      first = of_shared * f.shared * (1.0F - f.shared);
      if (lane == 0) logit_grads[row] = first;
    } else {
      const float of_routed = warp_dot(out_grad + at, routed + at, columns, slices, lane);
      const float mean = f.routed * of_routed + f.shared * of_shared;
      first = f.routed * (of_routed - mean);
      second = f.shared * (of_shared - mean);
      if (lane == 0) {
        logit_grads[2 * row] = first;
        logit_grads[2 * row + 1] = second;
      }
    }
    for_each_piece(columns, slices, lane, kWarp, [&]<int W>(Width<W>, std::int64_t i) {
      const Piece<T, W> grad = load_piece<W>(out_grad + at + i);
      const Piece<float, W> one = load_piece<W>(weight + i), two = load_piece<W>(weight + (residual ? columns : 0) + i);
      Piece<T, W> to_routed, to_shared, to_token;
      for (int e = 0; e < W; ++e) {
        const float g = load(grad.element[e]);
        to_routed.element[e] = stored<T>(f.routed * g);
        to_shared.element[e] = stored<T>(f.shared * g);
        float sum = first * one.element[e];
        if (residual) sum += second * two.element[e];
        to_token.element[e] = stored<T>(sum);
      }
      store_piece(routed_grad + at + i, to_routed);
      store_piece(shared_grad + at + i, to_shared);
      store_piece(token_grad + at + i, to_token);
    });
  }
}

template <class T>
__global__ void mix_weight_grad_kernel(float* weight_grad, const float* logit_grads, const T* tokens, std::int64_t rows,
                                       std::int64_t columns, int gates, float scale) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= columns) return;
  for (int gate = 0; gate < gates; ++gate) {
    float sum = weight_grad[gate * columns + i];
#pragma unroll 4
    for (std::int64_t row = 0; row < rows; ++row)
      sum += scale * logit_grads[row * gates + gate] * load(tokens[row * columns + i]);
    weight_grad[gate * columns + i] = sum;
  }
}

}  // namespace

void mix_gpu(const Mix& op, GpuStream stream) {
  with_gpu_element(op.dtype, [&]<class T>(T) {
    const bool gated = op.gate != SharedGate::none;
    const std::int64_t slices = whole_slices<T>(op.columns, gated ? op.tokens : nullptr, gated ? op.weight : nullptr,
                                                op.shared, op.out, op.routed);
    launch("mix", mix_kernel<T>, blocks_for(op.rows, kWarpsPerBlock), kWarp * kWarpsPerBlock, 0, stream,
           static_cast<const T*>(op.tokens), op.weight, static_cast<const T*>(op.shared), static_cast<T*>(op.out),
           static_cast<T*>(op.routed), op.rows, op.columns, slices, op.gate);
  });
}

void mix_backward_gpu(const MixBackward& op, GpuStream stream) {
  with_gpu_element(op.dtype, [&]<class T>(T) {
    const T* tokens = static_cast<const T*>(op.tokens);
    // Of two rows of weights the second begins after `columns` floats: a multiple of 16 bytes where that many T are.
    const std::int64_t slices = whole_slices<T>(op.columns, op.tokens, op.weight, op.out_grad, op.routed, op.shared,
                                                op.routed_grad, op.shared_grad, op.token_grad);
    launch("mix backward", mix_backward_kernel<T>, blocks_for(op.rows, kWarpsPerBlock), kWarp * kWarpsPerBlock, 0,
           stream, tokens, op.weight, static_cast<const T*>(op.out_grad), static_cast<const T*>(op.routed),
           static_cast<const T*>(op.shared), static_cast<T*>(op.routed_grad), static_cast<T*>(op.shared_grad),
           static_cast<T*>(op.token_grad), op.logit_grads, op.rows, op.columns, slices, op.gate);
    if (op.weight_grad == nullptr) return;
    launch("mix weight gradient", mix_weight_grad_kernel<T>, blocks_for(op.columns, kThreads, 0x7FFFFFFF), kThreads, 0,
           stream, op.weight_grad, static_cast<const float*>(op.logit_grads), tokens, op.rows, op.columns,
           gates_of(op.gate), op.weight_grad_scale);
  });
}

}  // namespace topomoe::kernels
