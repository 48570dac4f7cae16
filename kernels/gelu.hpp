// The elementwise part of an expert without a gate, forward and backward; see grouped_ffn.hpp for the whole.
//
//   act = gelu(up)          gelu(x) = x s(u(x)),  s(u) = 1 / (1 + exp(-u)),  u(x) = 2 sqrt(2 / pi) (x + 0.044715 x^3)
//   up_grad = act_grad * (s + x s (1 - s) u'(x))
//
// That is 0.5 x (1 + tanh(u / 2)), the tanh form of Hendrycks and Gimpel (arXiv 1606.08415), which GPT-2 and JAX use
// and Megatron fuses: it needs the one exponential that SwiGLU needs, and no erf, which no two libraries round alike.
// It is within 5e-4 of the form with erf. Computed in fp32, rounded once to dtype. act_grad may be the same memory as
// up_grad.
//
// Bytes of n elements of b bytes: 2 n b forward, 4 n b backward. At 3.35 TB/s (H100 SXM's datasheet), 65,536 rows of
// 1,408 in bf16: 110 and 220 us at least. Not measured.
#pragma once

#include <cstdint>

#include "kernels/gpu_stream.hpp"
#include "topomoe/device.hpp"

namespace topomoe::kernels {

constexpr float kGeluSlope = 1.5957691216F;  // 2 sqrt(2 / pi)
constexpr float kGeluCubic = 0.044715F;      // fitted by the authors
constexpr float kGeluFlat = 16.0F;           // |u(16)| = 318: from there on s is 0 or 1 in fp32, and its slope 0

struct Gelu {
  void* act = nullptr;
  const void* up = nullptr;
  std::int64_t count = 0;
  DType dtype = DType::f32;
};

struct GeluBackward {
  void* act = nullptr;  // recomputed
  void* up_grad = nullptr;
  const void* act_grad = nullptr;
  const void* up = nullptr;
  std::int64_t count = 0;
  DType dtype = DType::f32;
};

void gelu_cpu(const Gelu& op, const ProgressHook& progress);
void gelu_backward_cpu(const GeluBackward& op, const ProgressHook& progress);

void gelu_gpu(const Gelu& op, GpuStream stream);
void gelu_backward_gpu(const GeluBackward& op, GpuStream stream);

}  // namespace topomoe::kernels
