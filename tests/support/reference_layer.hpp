// The MoE layer in double precision, written from its definition: no groups, no schedules, no planner
// headers. What every schedule's output and gradients are checked against.
#pragma once

#include <cstdint>
#include <vector>

namespace topomoe::testing {

using Values = std::vector<double>;

struct ReferenceWeights {
  Values router;           // [experts, hidden]
  Values gate, up, down;   // [experts, ffn, hidden], same, [experts, hidden, ffn]
};

struct ReferenceLayer {
  int hidden, ffn, experts, top_k;
  bool renormalize;
};

struct ReferenceResult {
  Values output, token_grads;      // [tokens, hidden]
  std::vector<std::int32_t> ids;   // [tokens, top_k]
};

// Forward, and backward from output_grads; gradients of weights are added to `grads`.
ReferenceResult run_reference(const ReferenceLayer& layer, const ReferenceWeights& weights, const Values& tokens,
                              const Values& output_grads, ReferenceWeights& grads);

// Deterministic values in [-1, 1), the same on every platform.
Values random_values(std::size_t count, std::uint64_t seed, double scale = 1.0);

}  // namespace topomoe::testing
