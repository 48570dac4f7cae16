// The router (gate) of an MoE layer: which k experts each token goes to, and with what weight.
//
//   logits  = tokens x weight^T      fp32, added in index order of `hidden`, whatever the row count
//   scores  = softmax(logits) over all experts, or sigmoid(logits)
//   values  = scores + bias, or where there is no bias what is in the same order, the logits (but under sigmoid with
//             groups, whose worth is a sum of scores)
//   ids     = the k largest values, among the experts of the best groups; largest first, equal ones by lower expert id
//             (groups too)
//   weights = softmax with `renormalize`: softmax over the logits of the chosen; otherwise their scores (without bias),
//             divided by their sum in slot order if `renormalize`. All times options.scale
//
// Scores are router_score.hpp's, without contraction: sigmoid_score, or exp_below of what is left of the largest logit
// (of a row; of the chosen where those alone count), times 1 / its sum (or divided by it). A sum over experts has 32
// parts, expert e added to part e % 32, which are folded in halves (as a warp adds): the same bits wherever that is
// kept. A row's result depends on nothing but that row (row-invariant, DESIGN 8). A NaN counts as the smallest value
// when choosing; weights are NaN where one is chosen, or a sum over all experts has one. No capacity: dropping is the
// caller's. Pointers are of the memory of the device that runs the operation and are borrowed for the call.
//
// Of 8,192 rows of 7,168 in bf16 and 256 experts: tokens are 117 MB, 35 us at 3.35 TB/s (H100 SXM's datasheet); logits
// 30 GFLOP in index order without FMA or tensor cores, 0.9 ms at half of 67 TFLOP/s, which is the bound; scores and
// top-k read 8.4 MB, 2.5 us. Not measured.
#pragma once

#include <cstdint>

#include "kernels/gpu_stream.hpp"
#include "topomoe/device.hpp"
#include "topomoe/router_options.hpp"

namespace topomoe::kernels {

struct CpuContext;

constexpr int kMaxTopK = 16;
constexpr int kMaxExperts = 1024;
// Added to the sum that sigmoid scores are divided by, which may underflow; DeepSeek-V3's own code has it.
constexpr float kLeastSigmoidSum = 1e-20F;

struct Router {
  const void* tokens = nullptr;  // [rows, hidden] of dtype
  const void* weight = nullptr;  // [experts, hidden] fp32
  const float* bias = nullptr;   // [experts], enters the choice only; or null
  float* logits = nullptr;       // [rows, experts], out; backward wants them
  std::int32_t* ids = nullptr;   // [rows, k], out
  float* weights = nullptr;      // [rows, k], out
  // What losses are made of, or null: [experts] sums over rows of scores (each row scaled to sum 1), then the sum of
  // (log sum exp logits)^2. On a GPU their last bits may differ from run to run; no gradient depends on them.
  float* loss_sums = nullptr;
  std::int64_t rows = 0;
  std::int64_t hidden = 0;
  int experts = 0;  // 1..kMaxExperts
  int k = 0;        // 1..min(experts, kMaxTopK)
  bool renormalize = false;
  RouterOptions options = {};  // coefficients of losses are not read
  DType dtype = DType::f32;
};

// Whether values are logits.
inline bool by_logits(const Router& op) {
  const RouterOptions& o = op.options;
  return op.bias == nullptr && (o.scoring == Scoring::softmax || o.groups == o.topk_groups);
}

// Gradients of the above, given dL/dweights and what losses add. Three steps, of which the last two may be left out:
//   logit_grads  = d(top-k, renormalize, scores) + d(score_grads . scaled scores) + z_grad d(log sum exp)^2 / 2,
//                  overwritten
//   token_grads += logit_grads x weight                               (null: skipped)
//   weight_grad += weight_grad_scale * logit_grads^T x tokens         (null: skipped)
// token_grads is added to in fp32 and rounded once, in index order of experts: row-invariant too.
struct RouterBackward {
  const void* tokens = nullptr;         // [rows, hidden] of dtype; read only for weight_grad
  const void* weight = nullptr;         // [experts, hidden] fp32
  const float* logits = nullptr;        // [rows, experts] as forward left them
  const std::int32_t* ids = nullptr;    // [rows, k] as forward left them
  const float* weight_grads = nullptr;  // [rows, k] dL/dweights
  const float* score_grads = nullptr;   // [experts] dL/d(score of e, scaled to sum 1), of any row; or null
  float z_grad = 0;                     // 2 c: dL of c (log sum exp logits)^2, each row
  float* logit_grads = nullptr;         // [rows, experts] out, also scratch: never null
  void* token_grads = nullptr;          // [rows, hidden] of dtype, added to; or null
  float* weight_grad = nullptr;         // [experts, hidden] fp32, added to; or null
  float weight_grad_scale = 1.0F;
  std::int64_t rows = 0;
  std::int64_t hidden = 0;
  int experts = 0;
  int k = 0;
  bool renormalize = false;
  RouterOptions options = {};  // as forward's
  DType dtype = DType::f32;
};

// Throws InvalidInput for k, experts or groups out of range; both devices call it.
void check(const Router& op);
void check(const RouterBackward& op);

void router_cpu(const Router& op, const CpuContext& cpu);
void router_backward_cpu(const RouterBackward& op, const CpuContext& cpu);

void router_gpu(const Router& op, GpuStream stream);
void router_backward_gpu(const RouterBackward& op, GpuStream stream);

}  // namespace topomoe::kernels
