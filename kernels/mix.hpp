// How a shared expert's output joins that of the routed experts, one token a row (SharedGate, topomoe/model.hpp):
//
//   none      out = routed + shared
//   sigmoid   out = routed + c shared,         c = sigmoid(w0 . token)
//   residual  out = a routed + b shared,  (a, b) = softmax(w0 . token, w1 . token)
//
// fp32, rounded once; a row's result depends on nothing but that row. Pointers are of the memory of the device that
// runs the operation and are borrowed for the call. Rows may be 0.
//
// Bytes: 3 rows columns b, one more for a gate's token and one for a copy of the routed rows; backward 6 (residual 7).
// 8,192 rows of 4,096 in bf16, sigmoid: 268 and 403 MB, 80 and 120 us at 3.35 TB/s (H100 SXM's datasheet). Not
// measured. On a GPU weight_grad is one thread a column, and slower than its bytes.
#pragma once

#include <cstdint>

#include "kernels/gpu_stream.hpp"
#include "topomoe/device.hpp"
#include "topomoe/model.hpp"

namespace topomoe::kernels {

// Rows of `weight`.
constexpr int gates_of(SharedGate gate) { return static_cast<int>(gate); }
static_assert(gates_of(SharedGate::none) == 0 && gates_of(SharedGate::sigmoid) == 1 &&
              gates_of(SharedGate::residual) == 2);

struct Mix {
  const void* tokens = nullptr;   // [rows, columns] of dtype; unused without a gate
  const float* weight = nullptr;  // [gates, columns] fp32; unused without a gate
  const void* shared = nullptr;   // [rows, columns] of dtype
  void* out = nullptr;            // [rows, columns] of dtype: holds the routed rows
  void* routed = nullptr;         // gets a copy of them; or null
  std::int64_t rows = 0, columns = 0;
  SharedGate gate = SharedGate::none;
  DType dtype = DType::f32;
};

// Of a gated mix: gradients of both parts, and the gate's own. Those of rows are overwritten, weight_grad is added to:
// weight_grad_scale times what all rows want.
struct MixBackward {
  const void* tokens = nullptr;
  const float* weight = nullptr;
  const void* out_grad = nullptr;                                              // [rows, columns] of dtype
  const void *routed = nullptr, *shared = nullptr;                             // as forward had them
  void *routed_grad = nullptr, *shared_grad = nullptr, *token_grad = nullptr;  // [rows, columns] of dtype
  float* logit_grads = nullptr;                                                // [rows, gates], scratch
  float* weight_grad = nullptr;                                                // [gates, columns], added to; or null
  float weight_grad_scale = 1.0F;
  std::int64_t rows = 0, columns = 0;
  SharedGate gate = SharedGate::sigmoid;
  DType dtype = DType::f32;
};

void mix_cpu(const Mix& op, const ProgressHook& progress);
void mix_backward_cpu(const MixBackward& op, const ProgressHook& progress);

void mix_gpu(const Mix& op, GpuStream stream);
void mix_backward_gpu(const MixBackward& op, GpuStream stream);

}  // namespace topomoe::kernels
