// The mix of routed and shared rows on a GPU: one warp a row; weight gradients one thread a column, rows in order.
#include "kernels/element_gpu.cuh"
#include "kernels/launch.hpp"
#include "kernels/mix.hpp"

namespace topomoe::kernels {
namespace {

constexpr int kWarp = 32;
constexpr int kWarpsPerBlock = 4;
constexpr unsigned kThreads = 256;
constexpr unsigned kAllLanes = 0xFFFFFFFFU;

__device__ std::int64_t warp_of_grid() {
  return static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
}

template <class T, class U>
__device__ float warp_dot(const T* a, const U* b, std::int64_t n, int lane) {
  float sum = 0.0F;
  for (std::int64_t i = lane; i < n; i += kWarp) sum += load(a[i]) * load(b[i]);
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAllLanes, sum, lanes);
  return sum;
}

struct Factors {
  float routed, shared;
};

template <class T>
__device__ Factors factors_of(const T* token, const float* weight, std::int64_t columns, SharedGate gate, int lane) {
  if (gate == SharedGate::none) return {1.0F, 1.0F};
  const float first = warp_dot(token, weight, columns, lane);
  if (gate == SharedGate::sigmoid) return {1.0F, 1.0F / (1.0F + expf(-first))};
  const float second = warp_dot(token, weight + columns, columns, lane), largest = fmaxf(first, second);
  const float a = expf(first - largest), b = expf(second - largest);
  return {a / (a + b), b / (a + b)};
}

template <class T>
__global__ void mix_kernel(const T* tokens, const float* weight, const T* shared, T* out, T* routed, std::int64_t rows,
                           std::int64_t columns, SharedGate gate) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (std::int64_t row = warp_of_grid(); row < rows; row += static_cast<std::int64_t>(gridDim.x) * kWarpsPerBlock) {
    const std::int64_t at = row * columns;
    const Factors f = factors_of(gate == SharedGate::none ? tokens : tokens + at, weight, columns, gate, lane);
    for (std::int64_t i = at + lane; i < at + columns; i += kWarp) {
      if (routed != nullptr) routed[i] = out[i];
      out[i] = stored<T>(f.routed * load(out[i]) + f.shared * load(shared[i]));
    }
  }
}

// The formula is at mix_backward_cpu.
template <class T>
__global__ void mix_backward_kernel(const T* tokens, const float* weight, const T* out_grad, const T* routed,
                                    const T* shared, T* routed_grad, T* shared_grad, T* token_grad, float* logit_grads,
                                    std::int64_t rows, std::int64_t columns, SharedGate gate) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (std::int64_t row = warp_of_grid(); row < rows; row += static_cast<std::int64_t>(gridDim.x) * kWarpsPerBlock) {
    const std::int64_t at = row * columns;
    const Factors f = factors_of(tokens + at, weight, columns, gate, lane);
    const float of_shared = warp_dot(out_grad + at, shared + at, columns, lane);
    float first = 0.0F, second = 0.0F;
    if (gate == SharedGate::sigmoid) {
      first = of_shared * f.shared * (1.0F - f.shared);
      if (lane == 0) logit_grads[row] = first;
    } else {
      const float of_routed = warp_dot(out_grad + at, routed + at, columns, lane);
      const float mean = f.routed * of_routed + f.shared * of_shared;
      first = f.routed * (of_routed - mean);
      second = f.shared * (of_shared - mean);
      if (lane == 0) {
        logit_grads[2 * row] = first;
        logit_grads[2 * row + 1] = second;
      }
    }
    for (std::int64_t i = lane; i < columns; i += kWarp) {
      const float g = load(out_grad[at + i]);
      routed_grad[at + i] = stored<T>(f.routed * g);
      shared_grad[at + i] = stored<T>(f.shared * g);
      float sum = first * weight[i];
      if (gate == SharedGate::residual) sum += second * weight[columns + i];
      token_grad[at + i] = stored<T>(sum);
    }
  }
}

template <class T>
__global__ void mix_weight_grad_kernel(float* weight_grad, const float* logit_grads, const T* tokens, std::int64_t rows,
                                       std::int64_t columns, int gates, float scale) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= columns) return;
  for (int gate = 0; gate < gates; ++gate) {
    float sum = weight_grad[gate * columns + i];
    for (std::int64_t row = 0; row < rows; ++row)
      sum += scale * logit_grads[row * gates + gate] * load(tokens[row * columns + i]);
    weight_grad[gate * columns + i] = sum;
  }
}

}  // namespace

void mix_gpu(const Mix& op, GpuStream stream) {
  with_gpu_element(op.dtype, [&]<class T>(T) {
    launch("mix", mix_kernel<T>, blocks_for(op.rows, kWarpsPerBlock), kWarp * kWarpsPerBlock, 0, stream,
           static_cast<const T*>(op.tokens), op.weight, static_cast<const T*>(op.shared), static_cast<T*>(op.out),
           static_cast<T*>(op.routed), op.rows, op.columns, op.gate);
  });
}

void mix_backward_gpu(const MixBackward& op, GpuStream stream) {
  with_gpu_element(op.dtype, [&]<class T>(T) {
    const T* tokens = static_cast<const T*>(op.tokens);
    launch("mix backward", mix_backward_kernel<T>, blocks_for(op.rows, kWarpsPerBlock), kWarp * kWarpsPerBlock, 0,
           stream, tokens, op.weight, static_cast<const T*>(op.out_grad), static_cast<const T*>(op.routed),
           static_cast<const T*>(op.shared), static_cast<T*>(op.routed_grad), static_cast<T*>(op.shared_grad),
           static_cast<T*>(op.token_grad), op.logit_grads, op.rows, op.columns, op.gate);
    if (op.weight_grad == nullptr) return;
    launch("mix weight gradient", mix_weight_grad_kernel<T>, blocks_for(op.columns, kThreads, 0x7FFFFFFF), kThreads, 0,
           stream, op.weight_grad, static_cast<const float*>(op.logit_grads), tokens, op.rows, op.columns,
           gates_of(op.gate), op.weight_grad_scale);
  });
}

}  // namespace topomoe::kernels
