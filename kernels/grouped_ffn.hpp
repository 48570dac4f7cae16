// The experts: a feed-forward net per expert, over rows sorted by expert.
//
//   swiglu   gate = in x w_gate^T    up = in x w_up^T    act = silu(gate) * up    out = act x w_down^T
//   gelu                             up = in x w_up^T    act = gelu(up)           out = act x w_down^T    (gelu.hpp)
//
// Without a gate what is named gate is not touched, and may be null. Bounded mode is offsets of equal distance, rows
// that nobody sent being zeros: they come out as zeros, and add nothing to any gradient.
// Rows offsets[e] .. offsets[e+1] belong to expert e; experts without rows, and no rows at all, are
// legal. Data and weights are of dtype, weight gradients fp32. Forward saves gate, up and act;
// backward comes in two halves, as schedules issue them apart: dgrad (what the way back waits for)
// and wgrad (what fills gaps). In fp32 forward and dgrad are row-invariant (matmul.hpp), with packed
// weights forward is in bf16 too; every tensor named here is rounded, so that bf16 results of different
// devices agree within a bound only.
// With packed weights gate, up and act may be null: they are not written then.
// What it ignores: biases, other activations, quantised weights.
//
// Flops of R rows: 2 R hidden ffn a matrix, forward; twice that backward. Few rows read weights: 3 (2) experts hidden
// ffn b bytes. 65,536 rows, 2048 x 1408, 64 experts, bf16, SwiGLU: 1.1 TFLOP, 1.15 ms at 989 TFLOP/s; its weights 1.1
// GB, 331 us at 3.35 TB/s (H100 SXM's datasheet). Not measured.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/gpu_stream.hpp"
#include "topomoe/device.hpp"
#include "topomoe/expert_matrices.hpp"

struct cublasContext;

namespace topomoe::kernels {

// cublasHandle_t, named without CUDA headers. One per lane; its stream is set by the caller.
using GpuBlas = cublasContext*;

class PackedFfn;  // packed_ffn.hpp

enum class Activation : std::uint8_t { swiglu, gelu };

struct GroupedFfn {
  const void* in = nullptr;               // [rows, hidden]
  void* out = nullptr;                    // [rows, hidden]
  void* gate = nullptr;                   // [rows, ffn] out: before silu, saved for backward
  void* up = nullptr;                     // [rows, ffn] out: saved for backward
  void* act = nullptr;                    // [rows, ffn] out: silu(gate) * up; wgrad wants it
  ExpertMatrices w_gate = {};             // [experts][ffn, hidden]
  ExpertMatrices w_up = {};               // [experts][ffn, hidden]
  ExpertMatrices w_down = {};             // [experts][hidden, ffn]
  const PackedFfn* packed = nullptr;      // these weights as Device::pack_experts left them, read instead; or null
  std::span<const std::int64_t> offsets;  // host memory, experts + 1 row offsets, the first 0
  std::int64_t hidden = 0;
  std::int64_t ffn = 0;
  DType dtype = DType::f32;
  Activation activation = Activation::swiglu;
};

// out_grad -> in_grad. Overwrites gate_grad, up_grad and act (recomputed, so that forward need not
// keep it). in_grad = gate_grad x w_gate, then += up_grad x w_up; without a gate up_grad x w_up.
struct GroupedFfnDgrad {
  const void* out_grad = nullptr;  // [rows, hidden]
  void* in_grad = nullptr;         // [rows, hidden] out
  const void* gate = nullptr;      // [rows, ffn] as forward left it
  const void* up = nullptr;        // [rows, ffn] as forward left it
  void* gate_grad = nullptr;       // [rows, ffn] out
  void* up_grad = nullptr;         // [rows, ffn] out
  void* act = nullptr;             // [rows, ffn] out
  ExpertMatrices w_gate = {};
  ExpertMatrices w_up = {};
  ExpertMatrices w_down = {};
  std::span<const std::int64_t> offsets;
  std::int64_t hidden = 0;
  std::int64_t ffn = 0;
  DType dtype = DType::f32;
  Activation activation = Activation::swiglu;
};

// w_*_grad += scale * (gradient). An expert without rows keeps its gradient as it is.
struct GroupedFfnWgrad {
  const void* in = nullptr;          // [rows, hidden]
  const void* out_grad = nullptr;    // [rows, hidden]
  const void* act = nullptr;         // [rows, ffn]
  const void* gate_grad = nullptr;   // [rows, ffn]
  const void* up_grad = nullptr;     // [rows, ffn]
  ExpertGradients w_gate_grad = {};  // [experts][ffn, hidden] fp32, added to
  ExpertGradients w_up_grad = {};    // [experts][ffn, hidden] fp32, added to
  ExpertGradients w_down_grad = {};  // [experts][hidden, ffn] fp32, added to
  float scale = 1.0F;
  std::span<const std::int64_t> offsets;
  std::int64_t hidden = 0;
  std::int64_t ffn = 0;
  DType dtype = DType::f32;
  Activation activation = Activation::swiglu;
};

void grouped_ffn_cpu(const GroupedFfn& op, const ProgressHook& progress);
void grouped_ffn_dgrad_cpu(const GroupedFfnDgrad& op, const ProgressHook& progress);
void grouped_ffn_wgrad_cpu(const GroupedFfnWgrad& op, const ProgressHook& progress);

// What forward and dgrad call for experts without a gate.
void gelu_ffn_cpu(const GroupedFfn& op, const ProgressHook& progress);
void gelu_ffn_dgrad_cpu(const GroupedFfnDgrad& op, const ProgressHook& progress);

void grouped_ffn_gpu(const GroupedFfn& op, GpuBlas blas, GpuStream stream);
void grouped_ffn_dgrad_gpu(const GroupedFfnDgrad& op, GpuBlas blas, GpuStream stream);
void grouped_ffn_wgrad_gpu(const GroupedFfnWgrad& op, GpuBlas blas, GpuStream stream);

}  // namespace topomoe::kernels
