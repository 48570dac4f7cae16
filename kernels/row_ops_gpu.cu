// The row movers on a GPU: gather_rows, sum_rows, row_dots, ordered_sum, and SwiGLU's elementwise part.
//
// All are bound by memory: they read and write 16 bytes a thread where rows allow. Compiled without
// contraction (CMakeLists.txt), so that each gives the bits of its _cpu.cpp (exp() in SwiGLU aside).
#include <type_traits>

#include "kernels/element_gpu.cuh"
#include "kernels/gather_rows.hpp"
#include "kernels/launch.hpp"
#include "kernels/ordered_sum.hpp"
#include "kernels/sum_rows.hpp"
#include "kernels/swiglu.hpp"

namespace topomoe::kernels {
namespace {

constexpr unsigned kThreads = 256;
constexpr int kWarp = 32;

// Work item i of a kernel is one vector of `Width` elements; threads stride over all of them.
__device__ std::int64_t first_item() { return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ std::int64_t item_stride() { return static_cast<std::int64_t>(gridDim.x) * blockDim.x; }

template <class T, int Width>
__global__ void gather_rows_kernel(Vector<T, Width>* out, const Vector<T, Width>* in, const std::int32_t* source_row,
                                   const float* scale, std::int64_t rows, std::int64_t vectors) {
  for (std::int64_t item = first_item(); item < rows * vectors; item += item_stride()) {
    const std::int64_t row = item / vectors;
    const std::int32_t source = source_row[row];
    Vector<T, Width> value{};
    if (source >= 0) value = in[source * vectors + item % vectors];
    if (source >= 0 && scale != nullptr) {
      const float factor = scale[row];
      for (int i = 0; i < Width; ++i) value.element[i] = stored<T>(factor * load(value.element[i]));
    }
    out[item] = value;
  }
}

template <class T, int Width>
__global__ void sum_rows_kernel(Vector<T, Width>* out, const Vector<T, Width>* in, const std::int32_t* position,
                                const float* weight, std::int64_t rows, std::int64_t vectors, int k, bool accumulate) {
  for (std::int64_t item = first_item(); item < rows * vectors; item += item_stride()) {
    const std::int64_t row = item / vectors;
    float sum[Width] = {};
    if (accumulate) {
      const Vector<T, Width> before = out[item];
      for (int i = 0; i < Width; ++i) sum[i] = load(before.element[i]);
    }
    for (std::int64_t slot = row * k; slot < (row + 1) * k; ++slot) {
      const std::int32_t source = position[slot];
      if (source < 0) continue;
      const float factor = weight == nullptr ? 1.0F : weight[slot];
      const Vector<T, Width> value = in[source * vectors + item % vectors];
      for (int i = 0; i < Width; ++i) sum[i] += factor * load(value.element[i]);
    }
    Vector<T, Width> result;
    for (int i = 0; i < Width; ++i) result.element[i] = stored<T>(sum[i]);
    out[item] = result;
  }
}

// One warp a slot: lane i adds columns i, i + 32, ..., then lanes fold in halves, as on the CPU.
template <class T>
__global__ void row_dots_kernel(float* out, const T* a, const T* b, const std::int32_t* position, std::int64_t slots,
                                std::int64_t columns, int k) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t warps = item_stride() / kWarp;
  for (std::int64_t slot = first_item() / kWarp; slot < slots; slot += warps) {  // the same for a whole warp
    const std::int32_t source = position[slot];
    float sum = 0.0F;
    if (source >= 0) {
      const T* left = a + slot / k * columns;
      const T* right = b + source * columns;
      for (std::int64_t i = lane; i < columns; i += kWarp) sum += load(left[i]) * load(right[i]);
    }
    for (int half = kWarp / 2; half > 0; half /= 2) sum += __shfl_down_sync(0xFFFFFFFFU, sum, half);
    if (lane == 0) out[slot] = sum;
  }
}

template <class T, int Width>
__global__ void ordered_sum_kernel(Vector<T, Width>* out, const Vector<T, Width>* in, std::int64_t vectors,
                                   int blocks) {
  for (std::int64_t item = first_item(); item < vectors; item += item_stride()) {
    float sum[Width] = {};
    for (int block = 0; block < blocks; ++block) {
      const Vector<T, Width> value = in[block * vectors + item];
      for (int i = 0; i < Width; ++i) {
        const float x = load(value.element[i]);
        sum[i] = block == 0 ? x : sum[i] + x;
      }
    }
    Vector<T, Width> result;
    for (int i = 0; i < Width; ++i) result.element[i] = stored<T>(sum[i]);
    out[item] = result;
  }
}

__device__ float sigmoid(float x) { return 1.0F / (1.0F + expf(-x)); }

template <class T>
__global__ void swiglu_kernel(T* act, const T* gates, const T* ups, std::int64_t count) {
  for (std::int64_t i = first_item(); i < count; i += item_stride()) {
    const float gate = load(gates[i]);
    act[i] = stored<T>(gate * sigmoid(gate) * load(ups[i]));
  }
}

// act_grads may be gate_grads: each element is read before it is written, by the same thread.
template <class T>
__global__ void swiglu_backward_kernel(T* act, T* gate_grads, T* up_grads, const T* act_grads, const T* gates,
                                       const T* ups, std::int64_t count) {
  for (std::int64_t i = first_item(); i < count; i += item_stride()) {
    const float gate = load(gates[i]);
    const float up = load(ups[i]);
    const float act_grad = load(act_grads[i]);
    const float s = sigmoid(gate);
    act[i] = stored<T>(gate * s * up);
    up_grads[i] = stored<T>(act_grad * (gate * s));
    gate_grads[i] = stored<T>(act_grad * up * s * (1.0F + gate * (1.0F - s)));
  }
}

// Calls f(vector of 16 bytes) where the rows allow, else f(vector of one element).
template <class T, class F, class... Pointers>
void with_width(F&& f, std::int64_t columns, Pointers... pointers) {
  if (can_vectorize<T>(columns, pointers...)) {
    f(std::integral_constant<int, kVectorWidth<T>>{});
  } else {
    f(std::integral_constant<int, 1>{});
  }
}

}  // namespace

void gather_rows_gpu(const GatherRows& op, GpuStream stream) {
  with_gpu_element(op.dtype, [&]<class T>(T) {
    with_width<T>(
        [&]<int Width>(std::integral_constant<int, Width>) {
          using V = Vector<T, Width>;
          const std::int64_t vectors = op.columns / Width;
          launch("gather_rows", gather_rows_kernel<T, Width>, blocks_for(op.rows * vectors, kThreads), kThreads, 0,
                 stream, static_cast<V*>(op.out), static_cast<const V*>(op.in), op.source_row, op.scale, op.rows,
                 vectors);
        },
        op.columns, op.out, op.in);
  });
}

void sum_rows_gpu(const SumRows& op, GpuStream stream) {
  with_gpu_element(op.dtype, [&]<class T>(T) {
    with_width<T>(
        [&]<int Width>(std::integral_constant<int, Width>) {
          using V = Vector<T, Width>;
          const std::int64_t vectors = op.columns / Width;
          launch("sum_rows", sum_rows_kernel<T, Width>, blocks_for(op.rows * vectors, kThreads), kThreads, 0, stream,
                 static_cast<V*>(op.out), static_cast<const V*>(op.in), op.position, op.weight, op.rows, vectors, op.k,
                 op.accumulate);
        },
        op.columns, op.out, op.in);
  });
}

void row_dots_gpu(const RowDots& op, GpuStream stream) {
  with_gpu_element(op.dtype, [&]<class T>(T) {
    const std::int64_t slots = op.rows * op.k;
    launch("row_dots", row_dots_kernel<T>, blocks_for(slots, kThreads / kWarp), kThreads, 0, stream, op.out,
           static_cast<const T*>(op.a), static_cast<const T*>(op.b), op.position, slots, op.columns, op.k);
  });
}

void ordered_sum_gpu(const OrderedSum& op, GpuStream stream) {
  const std::int64_t count = op.rows * op.columns;
  with_gpu_element(op.dtype, [&]<class T>(T) {
    with_width<T>(
        [&]<int Width>(std::integral_constant<int, Width>) {
          using V = Vector<T, Width>;
          launch("ordered_sum", ordered_sum_kernel<T, Width>, blocks_for(count / Width, kThreads), kThreads, 0, stream,
                 static_cast<V*>(op.out), static_cast<const V*>(op.in), count / Width, op.blocks);
        },
        count, op.out, op.in);
  });
}

void swiglu_gpu(const Swiglu& op, GpuStream stream) {
  with_gpu_element(op.dtype, [&]<class T>(T) {
    launch("swiglu", swiglu_kernel<T>, blocks_for(op.count, kThreads), kThreads, 0, stream, static_cast<T*>(op.act),
           static_cast<const T*>(op.gate), static_cast<const T*>(op.up), op.count);
  });
}

void swiglu_backward_gpu(const SwigluBackward& op, GpuStream stream) {
  with_gpu_element(op.dtype, [&]<class T>(T) {
    launch("swiglu_backward", swiglu_backward_kernel<T>, blocks_for(op.count, kThreads), kThreads, 0, stream,
           static_cast<T*>(op.act), static_cast<T*>(op.gate_grad), static_cast<T*>(op.up_grad),
           static_cast<const T*>(op.act_grad), static_cast<const T*>(op.gate), static_cast<const T*>(op.up), op.count);
  });
}

}  // namespace topomoe::kernels
