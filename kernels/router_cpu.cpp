#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/cpu_context.hpp"
#include "kernels/exp.hpp"
#include "kernels/matmul.hpp"
#include "kernels/router_logits.hpp"
#include "kernels/router_rows.hpp"
#include "topomoe/error.hpp"

namespace topomoe::kernels {
namespace {

void check_sizes(int experts, int k, const RouterOptions& options) {
  if (experts < 1 || experts > kMaxExperts) {
    throw InvalidInput("router: experts", std::to_string(experts), "1 to " + std::to_string(kMaxExperts));
  }
  const int most = std::min(experts, kMaxTopK);
  if (k < 1 || k > most) throw InvalidInput("router: k", std::to_string(k), "1 to " + std::to_string(most));
  topomoe::check(options, experts, k, "router");
}

// The order in which a warp adds; fixed by the number of experts alone.
class Sum {
 public:
  void add(int expert, float x) { lane_[expert % kLanes] += x; }
  float folded() {
    for (int half = kLanes / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) lane_[i] += lane_[i + half];
    return lane_[0];
  }

 private:
  static constexpr int kLanes = 32;
  float lane_[kLanes] = {};
};

struct Exponentials {
  float largest, sum;
  // out[e] = e^(logit - largest), where out is given.
  Exponentials(const float* logits, int experts, float* out) : largest(*std::max_element(logits, logits + experts)) {
    Sum all;
    for (int e = 0; e < experts; ++e) {
      const float x = exp_below(logits[e] - largest);
      if (out != nullptr) out[e] = x;
      all.add(e, x);
    }
    sum = all.folded();
  }
};

float log_sum_exp(const float* logits, int experts) {
  const Exponentials x(logits, experts, nullptr);
  return x.largest + std::log(x.sum);
}

// One row's scores, and the sum that scales them to sum 1.
struct Scores {
  float of[kMaxExperts];
  float sum = 1.0F;

  Scores(const float* logits, int experts, Scoring scoring) {
    if (scoring == Scoring::sigmoid) {
      Sum all;
      for (int e = 0; e < experts; ++e) all.add(e, of[e] = sigmoid_of(logits[e]));
      sum = all.folded() + kLeastSigmoidSum;
      return;
    }
    const float inverse = 1.0F / Exponentials(logits, experts, of).sum;
    for (int e = 0; e < experts; ++e) of[e] *= inverse;
  }
};

// The best `count` of `values` that `allowed` does not rule out: a later one must be strictly larger, so that among
// equal ones the lowest wins.
void take_best(const float* values, const bool* allowed, int n, int count, std::int32_t* out) {
  bool taken[kMaxExperts] = {};
  for (int slot = 0; slot < count; ++slot) {
    int best = -1;
    for (int i = 0; i < n; ++i)
      if (!taken[i] && (allowed == nullptr || allowed[i]) && (best < 0 || values[i] > values[best])) best = i;
    taken[best] = true;
    out[slot] = best;
  }
}

// What a group is worth: its best expert, or its two best.
float worth(const float* values, int experts, Scoring scoring) {
  float first = -HUGE_VALF, second = -HUGE_VALF;
  for (int e = 0; e < experts; ++e) {
    if (values[e] > first) {
      second = first;
      first = values[e];
    } else if (values[e] > second) {
      second = values[e];
    }
  }
  return scoring == Scoring::sigmoid && experts > 1 ? first + second : first;
}

void choose(const Scores& scores, const Router& op, std::int32_t* ids) {
  const RouterOptions& o = op.options;
  float values[kMaxExperts];
  for (int e = 0; e < op.experts; ++e)
    values[e] = or_least(op.bias != nullptr ? scores.of[e] + op.bias[e] : scores.of[e]);
  if (o.groups == o.topk_groups) return take_best(values, nullptr, op.experts, op.k, ids);
  bool groups[kMaxExperts], allowed[kMaxExperts];
  choose_groups(op, values, groups);
  for (int e = 0; e < op.experts; ++e) allowed[e] = groups[e / (op.experts / o.groups)];
  take_best(values, allowed, op.experts, op.k, ids);
}

// What the scores of the chosen are divided by: their sum in slot order, or 1.
float divisor_of(const Scores& scores, const std::int32_t* ids, int k, bool renormalize, Scoring scoring) {
  if (!renormalize) return 1.0F;
  float sum = 0.0F;
  for (int slot = 0; slot < k; ++slot) sum += scores.of[ids[slot]];
  return scoring == Scoring::sigmoid ? sum + kLeastSigmoidSum : sum;
}

// d(weights) -> d(logits) of one row. With s the scores, D the divisor, g the weights' gradients times options.scale:
// dL/ds of a chosen expert is (g - sum g s/D) / D (g alone if not renormalized), 0 of the others. What losses want of
// q = s / sum s, c_e, adds (c_e - sum_j c_j q_j) / sum s. Then through softmax dL/dlogit_e = s_e (dL/ds_e - sum_j
// dL/ds_j s_j), where the mean of c drops out; through sigmoid s_e (1 - s_e) dL/ds_e.
void logit_gradients(const RouterBackward& op, std::int64_t row) {
  const float* logits = op.logits + row * op.experts;
  const std::int32_t* ids = op.ids + row * op.k;
  const float* g = op.weight_grads + row * op.k;
  float* out = op.logit_grads + row * op.experts;
  const RouterOptions& o = op.options;
  const Scores s(logits, op.experts, o.scoring);

  const float divisor = divisor_of(s, ids, op.k, op.renormalize, o.scoring);
  float mean = 0.0F;
  if (op.renormalize) {
    for (int slot = 0; slot < op.k; ++slot) mean += o.scale * g[slot] * (s.of[ids[slot]] / divisor);
  }
  std::fill_n(out, op.experts, 0.0F);
  float dot = 0.0F;
  for (int slot = 0; slot < op.k; ++slot) {
    out[ids[slot]] = (o.scale * g[slot] - mean) / divisor;
    dot += out[ids[slot]] * s.of[ids[slot]];
  }
  if (op.score_grads != nullptr) {
    float wanted = 0.0F;
    for (int e = 0; e < op.experts; ++e) wanted += op.score_grads[e] * (s.of[e] / s.sum);
    for (int e = 0; e < op.experts; ++e) out[e] += (op.score_grads[e] - wanted) / s.sum;
  }
  if (o.scoring == Scoring::sigmoid) {
    for (int e = 0; e < op.experts; ++e) out[e] *= s.of[e] * (1.0F - s.of[e]);
  } else {
    for (int e = 0; e < op.experts; ++e) out[e] = s.of[e] * (out[e] - dot);
  }
  if (op.z_grad == 0.0F) return;
  const float z = log_sum_exp(logits, op.experts);
  for (int e = 0; e < op.experts; ++e) out[e] += op.z_grad * z * exp_below(logits[e] - z);
}

}  // namespace

void check(const Router& op) { check_sizes(op.experts, op.k, op.options); }
void check(const RouterBackward& op) { check_sizes(op.experts, op.k, op.options); }

void choose_groups(const Router& op, const float* values, bool* allowed) {
  const RouterOptions& o = op.options;
  const int of_group = op.experts / o.groups;
  float worths[kMaxExperts];
  std::int32_t best[kMaxExperts];
  for (int g = 0; g < o.groups; ++g) worths[g] = or_least(worth(values + g * of_group, of_group, o.scoring));
  take_best(worths, nullptr, o.groups, o.topk_groups, best);
  std::fill_n(allowed, o.groups, false);
  for (int i = 0; i < o.topk_groups; ++i) allowed[best[i]] = true;
}

void route_rows_portable(const Router& op, std::int64_t first, std::int64_t last) {
  for (std::int64_t row = first; row < last; ++row) {
    std::int32_t* ids = op.ids + row * op.k;
    const Scores scores(op.logits + row * op.experts, op.experts, op.options.scoring);
    choose(scores, op, ids);
    const float divisor = divisor_of(scores, ids, op.k, op.renormalize, op.options.scoring);
    for (int slot = 0; slot < op.k; ++slot)
      op.weights[row * op.k + slot] = op.options.scale * (scores.of[ids[slot]] / divisor);
  }
}

RouteRows route_rows(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa >= CpuIsa::avx512) return route_rows_avx512;
  if (isa >= CpuIsa::avx2) return route_rows_avx2;
#endif
  (void)isa;
  return route_rows_portable;
}

void router_cpu(const Router& op, const CpuContext& cpu) {
  check(op);
  const RouteRows route = route_rows(cpu.isa);
  router_logits(op, cpu);
  share(cpu, op.rows, op.experts * Progress::kExponential / 2,
        [&](std::int64_t first, std::int64_t last) { route(op, first, last); });
  if (op.loss_sums == nullptr) return;
  // On one thread: sums over rows have one order too.
  std::fill_n(op.loss_sums, op.experts + 1, 0.0F);
  Progress progress(cpu.hook);
  for (std::int64_t row = 0; row < op.rows; ++row) {
    const float* logits = op.logits + row * op.experts;
    const Scores scores(logits, op.experts, op.options.scoring);
    for (int e = 0; e < op.experts; ++e) op.loss_sums[e] += scores.of[e] / scores.sum;
    const float z = log_sum_exp(logits, op.experts);
    op.loss_sums[op.experts] += z * z;
    progress.did(2 * op.experts * Progress::kExponential);
  }
}

void router_backward_cpu(const RouterBackward& op, const CpuContext& cpu) {
  check(op);
  share(cpu, op.rows, op.experts * Progress::kExponential, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) logit_gradients(op, row);
  });
  if (op.token_grads != nullptr) {
    matmul_portable({.a = op.logit_grads,
                     .b = op.weight,
                     .c = op.token_grads,
                     .m = op.rows,
                     .n = op.hidden,
                     .k = op.experts,
                     .accumulate = true,
                     .c_dtype = op.dtype},
                    cpu);
  }
  if (op.weight_grad != nullptr) {
    matmul_cpu({.a = op.logit_grads,
                .b = op.tokens,
                .c = op.weight_grad,
                .m = op.experts,
                .n = op.hidden,
                .k = op.rows,
                .a_transposed = true,
                .accumulate = true,
                .scale = op.weight_grad_scale,
                .row_invariant = false,
                .b_dtype = op.dtype},
               cpu);
  }
}

}  // namespace topomoe::kernels
