// The MoE layer in double precision, written from its definition: no groups, no schedules, no planner
// headers. What every schedule's output and gradients are checked against.
//
// Beside each value stands a bound on how far any evaluation in lower precision may be off, whatever the
// order of its sums: a first-order running error analysis (Higham, Accuracy and Stability, 3.3). A rounding
// adds `unit` times what it rounds; a sum of n terms adds n roundings of at most the terms' magnitudes; a
// value that is stored adds `store` times itself, a sum whose partial sums are stored on their way
// `stores` times the terms' magnitudes. Errors are added up as if all had one sign, so the bound holds with
// certainty and is met with room: it is what roundings may do, not a tolerance found by trying.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace topomoe::testing {

using Values = std::vector<double>;

struct ReferenceWeights {
  Values router;          // [experts, hidden]
  Values gate, up, down;  // [experts, ffn, hidden], same, [experts, hidden, ffn]
};

struct ReferenceLayer {
  int hidden, ffn, experts, top_k;
  bool renormalize;
  double capacity_factor = 0;  // GShard's; 0: no choice is dropped
};

struct Precision {
  double unit;   // roundoff of arithmetic: 2^-24 for fp32
  double store;  // roundoff of what is kept in memory beyond that: 2^-8 for bf16, 0 for fp32
};

struct Tensor {
  Values value, bound;
  explicit Tensor(std::size_t size = 0) : value(size), bound(size) {}
};

struct ReferenceGradients {
  Tensor router, gate, up, down;
};
ReferenceGradients zero_gradients(const ReferenceLayer& layer);

struct ReferenceResult {
  Tensor output, token_grads;     // [tokens, hidden]
  std::vector<std::int32_t> ids;  // [tokens, top_k]
  bool decided = true;            // no two probabilities so close that roundings could swap the choice
};

// Forward, and backward from output_grads; gradients of weights are added to `grads`. `additions`: how many
// terms a weight's gradient may have in all calls together. `routed`: how many consecutive tokens compete for an
// expert's capacity; empty: all.
ReferenceResult run_reference(const ReferenceLayer& layer, const ReferenceWeights& weights, const Values& tokens,
                              const Values& output_grads, Precision precision, double additions,
                              ReferenceGradients& grads, const std::vector<int>& routed = {});

// By (token, slot) of ids [tokens, top_k]: whether the expert was full. GShard, algorithm 1: first choices in order of
// token, then second ones; a choice that is dropped counts like any other. Factor 0: none is.
std::vector<bool> beyond_capacity(std::span<const std::int32_t> ids, int top_k, int experts, double factor);

// Deterministic values in [-1, 1), the same on every platform.
Values random_values(std::size_t count, std::uint64_t seed, double scale = 1.0);

}  // namespace topomoe::testing
