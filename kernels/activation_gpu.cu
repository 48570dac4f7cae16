// The elementwise parts of experts on a GPU: SwiGLU and GELU, forward and backward; formulas at their headers.
//
// Bound by memory: 16 bytes an access, each element read and written once. exp() is CUDA's own, so that results differ
// from the _cpu.cpp by its rounding.
#include "kernels/gelu.hpp"
#include "kernels/grid_gpu.cuh"
#include "kernels/swiglu.hpp"

namespace topomoe::kernels {
namespace {

template <class T, int Ins, int Outs>
struct Tensors {
  const T* in[Ins];
  T* out[Outs];
};

// out[j][i] = j-th result of F at in[0][i], in[1][i], ... An output may be an input: each element is read before it is
// written, by the same thread.
template <class F, class T>
__global__ void elementwise_kernel(Tensors<T, F::kIns, F::kOuts> tensors, std::int64_t count, std::int64_t slices) {
  for_each_piece(count, slices, first_item(), item_stride(), [&]<int W>(Width<W>, std::int64_t at) {
    Piece<T, W> in[F::kIns], out[F::kOuts];
    for (int j = 0; j < F::kIns; ++j) in[j] = load_piece<W>(tensors.in[j] + at);
    for (int e = 0; e < W; ++e) {
      float values[F::kIns], results[F::kOuts];
      for (int j = 0; j < F::kIns; ++j) values[j] = load(in[j].element[e]);
      F::apply(values, results);
      for (int j = 0; j < F::kOuts; ++j) out[j].element[e] = stored<T>(results[j]);
    }
    for (int j = 0; j < F::kOuts; ++j) store_piece(tensors.out[j] + at, out[j]);
  });
}

template <class F, class T>
void elementwise(const char* name, const Tensors<T, F::kIns, F::kOuts>& tensors, std::int64_t count, GpuStream stream) {
  bool aligned = true;
  for (const T* in : tensors.in) aligned = aligned && are_aligned(in);
  for (const T* out : tensors.out) aligned = aligned && are_aligned(out);
  launch(name, elementwise_kernel<F, T>, blocks_for(count, kThreads * kSlice), kThreads, 0, stream, tensors, count,
         aligned ? count / kSlice : 0);
}

__device__ float sigmoid(float x) { return 1.0F / (1.0F + expf(-x)); }

struct SwigluAt {
  static constexpr int kIns = 2, kOuts = 1;  // gate, up -> act
  __device__ static void apply(const float (&in)[kIns], float (&out)[kOuts]) {
    out[0] = in[0] * sigmoid(in[0]) * in[1];
  }
};

struct SwigluBackwardAt {
  static constexpr int kIns = 3, kOuts = 3;  // gate, up, act_grad -> act, gate_grad, up_grad
  __device__ static void apply(const float (&in)[kIns], float (&out)[kOuts]) {
    const float gate = in[0], up = in[1], act_grad = in[2], s = sigmoid(gate);
    out[0] = gate * s * up;
    out[1] = act_grad * up * s * (1.0F + gate * (1.0F - s));
    out[2] = act_grad * (gate * s);
  }
};

__device__ float gelu_sigmoid(float x) { return sigmoid(kGeluSlope * (x + kGeluCubic * (x * x * x))); }

struct GeluAt {
  static constexpr int kIns = 1, kOuts = 1;  // up -> act
  __device__ static void apply(const float (&in)[kIns], float (&out)[kOuts]) { out[0] = in[0] * gelu_sigmoid(in[0]); }
};

struct GeluBackwardAt {
  static constexpr int kIns = 2, kOuts = 2;  // up, act_grad -> act, up_grad
  __device__ static void apply(const float (&in)[kIns], float (&out)[kOuts]) {
    const float x = in[0], s = gelu_sigmoid(x);
    const float slope = kGeluSlope * (1.0F + 3.0F * kGeluCubic * (x * x));
    const float bend = fabsf(x) < kGeluFlat ? x * (s * (1.0F - s)) * slope : 0.0F;
    out[0] = x * s;
    out[1] = in[1] * (s + bend);
  }
};

}  // namespace

void swiglu_gpu(const Swiglu& op, GpuStream stream) {
  with_gpu_element(op.dtype, [&]<class T>(T) {
    elementwise<SwigluAt, T>(
        "swiglu", {{static_cast<const T*>(op.gate), static_cast<const T*>(op.up)}, {static_cast<T*>(op.act)}}, op.count,
        stream);
  });
}

void swiglu_backward_gpu(const SwigluBackward& op, GpuStream stream) {
  with_gpu_element(op.dtype, [&]<class T>(T) {
    elementwise<SwigluBackwardAt, T>(
        "swiglu_backward",
        {{static_cast<const T*>(op.gate), static_cast<const T*>(op.up), static_cast<const T*>(op.act_grad)},
         {static_cast<T*>(op.act), static_cast<T*>(op.gate_grad), static_cast<T*>(op.up_grad)}},
        op.count, stream);
  });
}

void gelu_gpu(const Gelu& op, GpuStream stream) {
  with_gpu_element(op.dtype, [&]<class T>(T) {
    elementwise<GeluAt, T>("gelu", {{static_cast<const T*>(op.up)}, {static_cast<T*>(op.act)}}, op.count, stream);
  });
}

void gelu_backward_gpu(const GeluBackward& op, GpuStream stream) {
  with_gpu_element(op.dtype, [&]<class T>(T) {
    elementwise<GeluBackwardAt, T>("gelu_backward",
                                   {{static_cast<const T*>(op.up), static_cast<const T*>(op.act_grad)},
                                    {static_cast<T*>(op.act), static_cast<T*>(op.up_grad)}},
                                   op.count, stream);
  });
}

}  // namespace topomoe::kernels
