// The complete MoE layer on one TP group by its definition, in double: router with scores, groups, bias, scale and
// losses; routed experts, under GShard's capacity or none; a shared expert, added or mixed in. Gradients are those of
// the definition (autodiff.hpp), so that no formula of the runtime is repeated. No roundings are followed: who compares
// states a tolerance.
#pragma once

#include <cstdint>
#include <vector>

#include "topomoe/layer_shape.hpp"

namespace topomoe::testing {

// Also their gradients. gate and up [experts, ffn, hidden], down [experts, hidden, ffn]; those of the shared expert
// [shared_ffn, hidden] and [hidden, shared_ffn]; mix [gates, hidden].
struct WholeWeights {
  std::vector<double> router, gate, up, down, shared_gate, shared_up, shared_down, mix;
  std::vector<double> bias;  // [experts], or empty; it has no gradient
  std::vector<std::vector<double>*> all() {
    return {&router, &gate, &up, &down, &shared_gate, &shared_up, &shared_down, &mix};
  }
};
WholeWeights draw_weights(const LayerShape& shape, bool biased, std::uint64_t seed);
WholeWeights zero_weights_like(const WholeWeights& w);

struct WholeResult {
  std::vector<double> y, dx;       // [tokens, hidden]
  std::vector<std::int32_t> ids;   // [tokens, top_k]
  std::vector<double> balance, z;  // by part
  double objective = 0;            // dy . y + the parts' losses / parts
};

// `parts`: tokens of each rank that routes its own; losses are per part, and the group's their mean. Gradients of
// objective are added to `grads`. With `ids` given the choice is not made anew (for differences). With `seen`
// routed experts see those tokens in place of x, with a slope of 1.
WholeResult run_whole(const LayerShape& shape, const WholeWeights& weights, const std::vector<double>& x,
                      const std::vector<double>& dy, const std::vector<int>& parts, WholeWeights& grads,
                      const std::vector<std::int32_t>* ids = nullptr, const std::vector<double>* seen = nullptr);

}  // namespace topomoe::testing
