#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/matmul.hpp"
#include "kernels/progress.hpp"
#include "kernels/router.hpp"
#include "topomoe/error.hpp"

namespace topomoe::kernels {
namespace {

void check_sizes(int experts, int k) {
  if (experts < 1 || experts > kMaxExperts) {
    throw InvalidInput("router: experts", std::to_string(experts), "1 to " + std::to_string(kMaxExperts));
  }
  const int most = std::min(experts, kMaxTopK);
  if (k < 1 || k > most) throw InvalidInput("router: k", std::to_string(k), "1 to " + std::to_string(most));
}

void softmax(float* row, int experts) {
  const float largest = *std::max_element(row, row + experts);
  float sum = 0.0F;
  for (int e = 0; e < experts; ++e) {
    row[e] = std::exp(row[e] - largest);
    sum += row[e];
  }
  for (int e = 0; e < experts; ++e) row[e] /= sum;
}

// k passes, each taking the largest that is left: a strictly larger one only, so that among equal ones
// the lowest id wins. NaN ranks below every probability.
void choose(const float* probabilities, int experts, int k, std::int32_t* ids) {
  bool taken[kMaxExperts] = {};
  for (int slot = 0; slot < k; ++slot) {
    int best = -1;
    float best_value = -2.0F;
    for (int e = 0; e < experts; ++e) {
      const float value = std::isnan(probabilities[e]) ? -1.0F : probabilities[e];
      if (!taken[e] && value > best_value) {
        best = e;
        best_value = value;
      }
    }
    taken[best] = true;
    ids[slot] = best;
  }
}

// The k chosen probabilities, and their sum in slot order (1 where weights are not renormalized).
float chosen_sum(const float* probabilities, const std::int32_t* ids, int k, bool renormalize) {
  if (!renormalize) return 1.0F;
  float sum = 0.0F;
  for (int slot = 0; slot < k; ++slot) sum += probabilities[ids[slot]];
  return sum;
}

// d(weights) -> d(logits) of one row. With p the probabilities, S the sum that weights were divided by
// and g the weights' gradients: dL/dp of a chosen expert is (g - sum g w) / S (g alone if not
// renormalized), 0 of the others; then dL/dlogit_e = p_e (dL/dp_e - sum_j dL/dp_j p_j).
void logit_gradients(const RouterBackward& op, std::int64_t row) {
  const float* p = op.probabilities + row * op.experts;
  const std::int32_t* ids = op.ids + row * op.k;
  const float* g = op.weight_grads + row * op.k;
  float* out = op.logit_grads + row * op.experts;

  const float divisor = chosen_sum(p, ids, op.k, op.renormalize);
  float mean = 0.0F;
  if (op.renormalize) {
    for (int slot = 0; slot < op.k; ++slot) mean += g[slot] * (p[ids[slot]] / divisor);
  }
  std::fill_n(out, op.experts, 0.0F);
  float dot = 0.0F;
  for (int slot = 0; slot < op.k; ++slot) {
    out[ids[slot]] = (g[slot] - mean) / divisor;
    dot += out[ids[slot]] * p[ids[slot]];
  }
  for (int e = 0; e < op.experts; ++e) out[e] = p[e] * (out[e] - dot);
}

}  // namespace

void check(const Router& op) { check_sizes(op.experts, op.k); }
void check(const RouterBackward& op) { check_sizes(op.experts, op.k); }

void router_cpu(const Router& op, const ProgressHook& hook) {
  check(op);
  // Portable, not whatever is fastest: the contract promises index order.
  matmul_portable({.a = op.tokens,
                   .b = op.weight,
                   .c = op.probabilities,
                   .m = op.rows,
                   .n = op.experts,
                   .k = op.hidden,
                   .b_transposed = true,
                   .a_dtype = op.dtype},
                  hook);
  Progress progress(hook);
  for (std::int64_t row = 0; row < op.rows; ++row) {
    float* probabilities = op.probabilities + row * op.experts;
    std::int32_t* ids = op.ids + row * op.k;
    softmax(probabilities, op.experts);
    choose(probabilities, op.experts, op.k, ids);
    const float divisor = chosen_sum(probabilities, ids, op.k, op.renormalize);
    for (int slot = 0; slot < op.k; ++slot) op.weights[row * op.k + slot] = probabilities[ids[slot]] / divisor;
    progress.did(op.experts * (Progress::kExponential + op.k * Progress::kMovedElement));
  }
}

void router_backward_cpu(const RouterBackward& op, const ProgressHook& hook) {
  check(op);
  Progress progress(hook);
  for (std::int64_t row = 0; row < op.rows; ++row) {
    logit_gradients(op, row);
    progress.did(op.experts * Progress::kMovedElement);
  }
  if (op.token_grads != nullptr) {
    matmul_portable({.a = op.logit_grads,
                     .b = op.weight,
                     .c = op.token_grads,
                     .m = op.rows,
                     .n = op.hidden,
                     .k = op.experts,
                     .accumulate = true,
                     .c_dtype = op.dtype},
                    hook);
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
               hook);
  }
}

}  // namespace topomoe::kernels
