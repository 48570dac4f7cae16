#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/cpu_context.hpp"
#include "kernels/matmul.hpp"
#include "kernels/router_logits.hpp"
#include "kernels/router_rows.hpp"
#include "kernels/router_score.hpp"
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

// A NaN is no number to be the largest.
float largest_of(const float* logits, int count) {
  float out = -HUGE_VALF;
  for (int i = 0; i < count; ++i) out = logits[i] > out ? logits[i] : out;
  return out;
}

// Each element's e^(logit - largest), or sigmoid.
[[gnu::always_inline]] inline void score_plainly(const float* logits, int count, Scoring scoring, float largest,
                                                 float* out) {
  if (scoring == Scoring::sigmoid)
    for (int i = 0; i < count; ++i) out[i] = sigmoid_score(logits[i]);
  else
    for (int i = 0; i < count; ++i) out[i] = exp_below(logits[i] - largest);
}
void score_portable(const float* logits, int count, Scoring scoring, float largest, float* out) {
  score_plainly(logits, count, scoring, largest, out);
}
#if defined(__x86_64__)
// Without FMA each would be a call of the library.
[[gnu::target("avx2,fma")]] void score_fma(const float* logits, int count, Scoring scoring, float largest, float* out) {
  score_plainly(logits, count, scoring, largest, out);
}
#endif
void score(const float* logits, int count, Scoring scoring, float largest, float* out) {
#if defined(__x86_64__)
  if (best_isa() >= CpuIsa::avx2) return score_fma(logits, count, scoring, largest, out);
#endif
  score_portable(logits, count, scoring, largest, out);
}

float log_sum_exp(const float* logits, int experts) {
  const float largest = largest_of(logits, experts);
  float x[kMaxExperts];
  score(logits, experts, Scoring::softmax, largest, x);
  Sum sum;
  for (int e = 0; e < experts; ++e) sum.add(e, x[e]);
  return largest + std::log(sum.folded());
}

// One row's scores, and the sum that scales them to sum 1.
struct Scores {
  float of[kMaxExperts];
  float sum = 1.0F;

  Scores(const float* logits, int experts, Scoring scoring) {
    score(logits, experts, scoring, largest_of(logits, experts), of);
    Sum all;
    for (int e = 0; e < experts; ++e) all.add(e, of[e]);
    if (scoring == Scoring::sigmoid) {
      sum = all.folded() + kLeastSigmoidSum;
      return;
    }
    const float inverse = 1.0F / all.folded();
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

// Sets allowed[g] of the best groups.
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

void choose(const float* logits, const Router& op, std::int32_t* ids) {
  const RouterOptions& o = op.options;
  float values[kMaxExperts];
  std::copy_n(logits, op.experts, values);
  if (!by_logits(op)) std::copy_n(Scores(logits, op.experts, o.scoring).of, op.experts, values);
  for (int e = 0; e < op.experts; ++e) values[e] = or_least(op.bias != nullptr ? values[e] + op.bias[e] : values[e]);
  if (o.groups == o.topk_groups) return take_best(values, nullptr, op.experts, op.k, ids);
  bool groups[kMaxExperts], allowed[kMaxExperts];
  choose_groups(op, values, groups);
  for (int e = 0; e < op.experts; ++e) allowed[e] = groups[e / (op.experts / o.groups)];
  take_best(values, allowed, op.experts, op.k, ids);
}

// Weights of the chosen, unscaled, of a softmax among themselves.
void weigh_among_chosen(const float* logits, const std::int32_t* ids, int k, float* weights) {
  float chosen[kMaxTopK], sum = 0.0F;
  for (int slot = 0; slot < k; ++slot) chosen[slot] = logits[ids[slot]];
  score(chosen, k, Scoring::softmax, largest_of(chosen, k), weights);
  for (int slot = 0; slot < k; ++slot) sum += weights[slot];
  for (int slot = 0; slot < k; ++slot) weights[slot] /= sum;
}
float sum_of_chosen(const float* scores, const std::int32_t* ids, int k) {
  float sum = 0.0F;
  for (int slot = 0; slot < k; ++slot) sum += scores[ids[slot]];
  return sum + kLeastSigmoidSum;
}

void weigh(const float* logits, const Router& op, const std::int32_t* ids, float* weights) {
  const Scoring scoring = op.options.scoring;
  if (scoring == Scoring::softmax && op.renormalize) return weigh_among_chosen(logits, ids, op.k, weights);
  const Scores scores(logits, op.experts, scoring);
  for (int slot = 0; slot < op.k; ++slot) weights[slot] = scores.of[ids[slot]];
  if (!op.renormalize) return;
  const float sum = sum_of_chosen(scores.of, ids, op.k);
  for (int slot = 0; slot < op.k; ++slot) weights[slot] /= sum;
}

// d(weights) -> d(logits) of one row. With s the scores, g the weights' gradients times options.scale: a softmax among
// the chosen adds w (g - sum g w) to their logits' gradients. Otherwise dL/ds of a chosen expert is g, or renormalized
// (g - sum g s/D) / D with D their sum; 0 of the others. What losses want of q = s / sum s, c_e, adds (c_e - sum_j c_j
// q_j) / sum s. Then through softmax dL/dlogit_e = s_e (dL/ds_e - sum_j dL/ds_j s_j), where the mean of c drops out;
// through sigmoid s_e (1 - s_e) dL/ds_e.
void logit_gradients(const RouterBackward& op, std::int64_t row) {
  const float* logits = op.logits + row * op.experts;
  const std::int32_t* ids = op.ids + row * op.k;
  const float* g = op.weight_grads + row * op.k;
  float* out = op.logit_grads + row * op.experts;
  const RouterOptions& o = op.options;
  const Scores s(logits, op.experts, o.scoring);
  const bool among_chosen = op.renormalize && o.scoring == Scoring::softmax;

  float weight[kMaxTopK], divisor = 1.0F, mean = 0.0F, dot = 0.0F;
  if (among_chosen) weigh_among_chosen(logits, ids, op.k, weight);
  if (op.renormalize && !among_chosen) {
    divisor = sum_of_chosen(s.of, ids, op.k);
    for (int slot = 0; slot < op.k; ++slot) weight[slot] = s.of[ids[slot]] / divisor;
  }
  for (int slot = 0; op.renormalize && slot < op.k; ++slot) mean += o.scale * g[slot] * weight[slot];
  std::fill_n(out, op.experts, 0.0F);
  for (int slot = 0; !among_chosen && slot < op.k; ++slot) {
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
  for (int slot = 0; among_chosen && slot < op.k; ++slot) out[ids[slot]] += weight[slot] * (o.scale * g[slot] - mean);
  if (op.z_grad == 0.0F) return;
  const float z = log_sum_exp(logits, op.experts);
  for (int e = 0; e < op.experts; ++e) out[e] += op.z_grad * z * std::exp(logits[e] - z);
}

}  // namespace

void check(const Router& op) { check_sizes(op.experts, op.k, op.options); }
void check(const RouterBackward& op) { check_sizes(op.experts, op.k, op.options); }

void route_rows_portable(const Router& op, std::int64_t first, std::int64_t last) {
  for (std::int64_t row = first; row < last; ++row) {
    const float* logits = op.logits + row * op.experts;
    std::int32_t* ids = op.ids + row * op.k;
    float* weights = op.weights + row * op.k;
    choose(logits, op, ids);
    weigh(logits, op, ids, weights);
    for (int slot = 0; slot < op.k; ++slot) weights[slot] *= op.options.scale;
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
  share(cpu, op.rows, operations_of_row(cpu.isa, op.experts),
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
