// A plan's layer on one rank, by the C interface and by C++, from the same drawn tensors: what tests of topomoe.h
// compare bit by bit.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "runtime/c_api.hpp"
#include "tests/support/reference_layer.hpp"
#include "topomoe/planned_layer.hpp"
#include "topomoe/topomoe.h"

namespace topomoe::testing {

// In fp32, of the sizes that the plan and the rank say.
struct PlannedTensors {
  PlannedTensors(const Plan& plan, int rank, std::int64_t token_rows = 5)
      : rows(token_rows), shape(layer_shape_of(plan)), experts(held_experts(plan, rank).size()) {
    const Layout& l = plan.layout;
    const auto draw = [&](std::int64_t count, int salt, double scale = 1) {
      const Values v = random_values(static_cast<std::size_t>(count), static_cast<std::uint64_t>(salt), scale);
      return std::vector<float>(v.begin(), v.end());
    };
    const std::int64_t M = shape.hidden, matrix = static_cast<std::int64_t>(experts) * M * shape.ffn / l.etp,
                       shared = M * shape.shared_ffn / l.tp;
    const int group = rank / l.tp;  // ranks of a TP group hold the same tokens
    x = draw(rows * M, 10 + group), dy = draw(rows * M, 20 + group), y.resize(x.size()), dx.resize(x.size());
    router = draw(shape.experts * M, 1), bias = draw(shape.experts, 2, 0.1);
    gate = draw(matrix, 100 + rank, 0.5), up = draw(matrix, 200 + rank, 0.5), down = draw(matrix, 300 + rank, 0.5);
    shared_gate = draw(shared, 400 + rank, 0.5), shared_up = draw(shared, 500 + rank, 0.5),
    shared_down = draw(shared, 600 + rank, 0.5);
    mix = draw(static_cast<int>(shape.shared_gate) * M, 3);
    drouter.resize(router.size()), dgate.resize(gate.size()), dup.resize(up.size()), ddown.resize(down.size());
    dshared_gate.resize(shared_gate.size()), dshared_up.resize(shared_up.size());
    dshared_down.resize(shared_down.size()), dmix.resize(mix.size());
    shape.dtype = DType::f32;
  }

  LayerWeights weights() const {
    return {router.data(),      gate.data(),      up.data(),          down.data(), bias.data(),
            shared_gate.data(), shared_up.data(), shared_down.data(), mix.data()};
  }
  LayerGradients gradients() {
    return {drouter.data(),      dgate.data(),      dup.data(),          ddown.data(),
            dshared_gate.data(), dshared_up.data(), dshared_down.data(), dmix.data()};
  }
  topomoe_weights c_weights() const {
    topomoe_weights w = TOPOMOE_WEIGHTS_INIT;
    w.router = router.data(), w.selection_bias = bias.data();
    w.up = up.data(), w.down = down.data();
    if (shape.shared_ffn > 0) w.shared_up = shared_up.data(), w.shared_down = shared_down.data();
    if (shape.gated) w.gate = gate.data(), w.shared_gate = shape.shared_ffn > 0 ? shared_gate.data() : nullptr;
    if (shape.shared_gate != SharedGate::none) w.mix = mix.data();
    return w;
  }
  topomoe_gradients c_gradients() {
    topomoe_gradients g = TOPOMOE_GRADIENTS_INIT;
    g.router = drouter.data(), g.up = dup.data(), g.down = ddown.data();
    if (shape.shared_ffn > 0) g.shared_up = dshared_up.data(), g.shared_down = dshared_down.data();
    if (shape.gated) g.gate = dgate.data(), g.shared_gate = shape.shared_ffn > 0 ? dshared_gate.data() : nullptr;
    if (shape.shared_gate != SharedGate::none) g.mix = dmix.data();
    return g;
  }
  // All that a step writes.
  std::vector<std::vector<float>> written() const {
    return {y, dx, drouter, dgate, dup, ddown, dshared_gate, dshared_up, dshared_down, dmix};
  }

  std::int64_t rows;
  LayerShape shape;
  std::size_t experts;  // held by the rank
  std::vector<float> x, dy, y, dx, router, bias, gate, up, down, shared_gate, shared_up, shared_down, mix;
  std::vector<float> drouter, dgate, dup, ddown, dshared_gate, dshared_up, dshared_down, dmix;
};

// Runs body on the plan's ranks, each a thread; one that fails aborts its communicator, so that none waits for it.
struct CRank {
  topomoe_plan* plan;
  topomoe_communicator* ranks;
  int rank;
};
void on_c_ranks(const Plan& plan, const std::function<void(const CRank&)>& body);

}  // namespace topomoe::testing
