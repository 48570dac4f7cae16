#include "kernels/mix.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/bf16.hpp"
#include "kernels/progress.hpp"

namespace topomoe::kernels {
namespace {

template <class T, class U>
float dot(const T* a, const U* b, std::int64_t n) {
  float sum = 0.0F;
  for (std::int64_t i = 0; i < n; ++i) sum += to_float(a[i]) * to_float(b[i]);
  return sum;
}

// What routed and shared rows are multiplied by.
struct Factors {
  float routed = 1.0F, shared = 1.0F;
};

template <class T>
Factors factors_of(const T* token, const float* weight, std::int64_t columns, SharedGate gate) {
  if (gate == SharedGate::none) return {};
  const float first = dot(token, weight, columns);
  if (gate == SharedGate::sigmoid) return {1.0F, 1.0F / (1.0F + std::exp(-first))};
  const float second = dot(token, weight + columns, columns), largest = std::max(first, second);
  const float a = std::exp(first - largest), b = std::exp(second - largest);
  return {a / (a + b), b / (a + b)};
}

}  // namespace

void mix_cpu(const Mix& op, const ProgressHook& hook) {
  Progress progress(hook);
  with_element(op.dtype, [&]<class T>(T) {
    for (std::int64_t row = 0; row < op.rows; ++row) {
      const std::int64_t at = row * op.columns;
      const T* const shared = static_cast<const T*>(op.shared) + at;
      T* const out = static_cast<T*>(op.out) + at;
      const Factors f = factors_of(static_cast<const T*>(op.tokens) + (op.gate == SharedGate::none ? 0 : at), op.weight,
                                   op.columns, op.gate);
      if (op.routed != nullptr) std::copy_n(out, op.columns, static_cast<T*>(op.routed) + at);
      for (std::int64_t i = 0; i < op.columns; ++i)
        out[i] = from_float<T>(f.routed * to_float(out[i]) + f.shared * to_float(shared[i]));
      progress.did(4 * op.columns * Progress::kMovedElement);
    }
  });
}

// With g the output's gradient: sigmoid's logit wants (g . shared) c (1 - c); of the softmax's two, the first wants
// a (g . routed - m), the second b (g . shared - m), m = a g . routed + b g . shared.
void mix_backward_cpu(const MixBackward& op, const ProgressHook& hook) {
  Progress progress(hook);
  const int gates = gates_of(op.gate);
  with_element(op.dtype, [&]<class T>(T) {
    for (std::int64_t row = 0; row < op.rows; ++row) {
      const std::int64_t at = row * op.columns;
      const T *const token = static_cast<const T*>(op.tokens) + at, *const g = static_cast<const T*>(op.out_grad) + at;
      const Factors f = factors_of(token, op.weight, op.columns, op.gate);
      const float of_shared = dot(g, static_cast<const T*>(op.shared) + at, op.columns);
      float* const logit = op.logit_grads + row * gates;
      if (op.gate == SharedGate::sigmoid) {
        logit[0] = of_shared * f.shared * (1.0F - f.shared);
      } else {
        const float of_routed = dot(g, static_cast<const T*>(op.routed) + at, op.columns);
        const float mean = f.routed * of_routed + f.shared * of_shared;
        logit[0] = f.routed * (of_routed - mean);
        logit[1] = f.shared * (of_shared - mean);
      }
      for (std::int64_t i = 0; i < op.columns; ++i) {
        static_cast<T*>(op.routed_grad)[at + i] = from_float<T>(f.routed * to_float(g[i]));
        static_cast<T*>(op.shared_grad)[at + i] = from_float<T>(f.shared * to_float(g[i]));
        float sum = logit[0] * op.weight[i];
        if (gates == 2) sum += logit[1] * op.weight[op.columns + i];
        static_cast<T*>(op.token_grad)[at + i] = from_float<T>(sum);
      }
      progress.did(8 * op.columns * Progress::kMovedElement);
    }
    if (op.weight_grad == nullptr) return;
    for (int gate = 0; gate < gates; ++gate)
      for (std::int64_t row = 0; row < op.rows; ++row) {
        const float scaled = op.weight_grad_scale * op.logit_grads[row * gates + gate];
        const T* const token = static_cast<const T*>(op.tokens) + row * op.columns;
        float* const to = op.weight_grad + gate * op.columns;
        for (std::int64_t i = 0; i < op.columns; ++i) to[i] += scaled * to_float(token[i]);
        progress.did(op.columns * Progress::kMovedElement);
      }
  });
}

}  // namespace topomoe::kernels
