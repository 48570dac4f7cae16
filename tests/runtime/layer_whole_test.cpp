// All that may stand around routed experts, together: every transport and intake by the definition, gradients that are
// added to, and the same bits where a handle keeps its routing only.

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/whole_layer.hpp"

namespace topomoe::testing {
namespace {

using Index = std::size_t;

TEST(WholeMatrix, OnThreads_IsTheLayerByDefinition) {
  const auto cases = whole_matrix();
  EXPECT_GT(cases.size(), 200U);
  expect_definition(cases);
}

TEST(WholeReference, Gradients_AreItsOwnDifferences) {
  for (const SharedGate gate : {SharedGate::none, SharedGate::sigmoid, SharedGate::residual})
    for (const Scoring scoring : {Scoring::softmax, Scoring::sigmoid}) {
      LayerShape s{3, 2, 4, 2, true};
      s.shared_ffn = 2, s.shared_gate = gate;
      if (scoring == Scoring::sigmoid) s.capacity_factor = 0.5;  // one choice an expert and part
      s.router = {scoring, 2, 2, 1.5F, 0.7F, 0.3F};
      WholeWeights w = draw_weights(s, true, 5), grads = zero_weights_like(w), unused = grads;
      Values x = random_values(15, 1);
      const Values dy = random_values(15, 2);
      const WholeResult r = run_whole(s, w, x, dy, {2, 3}, grads);
      const auto difference = [&](double& v) {
        constexpr double h = 1e-6;
        const double at = v;
        v = at + h;
        const double above = run_whole(s, w, x, dy, {2, 3}, unused, &r.ids).objective;
        v = at - h;
        const double below = run_whole(s, w, x, dy, {2, 3}, unused, &r.ids).objective;
        v = at;
        return (above - below) / (2 * h);
      };
      for (Index i = 0; i < x.size(); ++i) EXPECT_NEAR(r.dx[i], difference(x[i]), 1e-7);
      for (Index t = 0; t < w.all().size(); ++t)
        for (Index i = 0; i < w.all()[t]->size(); ++i)
          EXPECT_NEAR((*grads.all()[t])[i], difference((*w.all()[t])[i]), 1e-7);
    }
}

// Two steps make twice the gradients of one.
TEST(LayerGradients, OfAllWeights_AreAddedTo) {
  LayerShape s = with_shared(deepseek_v3(whole_shape()), SharedGate::residual);
  s.router.balance_loss = 1;
  const WholeCase c = whole_case(layout(4, 2, 1, 4), s, TokenSplit::sliced, 1);
  const auto once = run_threads(c), twice = run_threads(c, 2);
  for (Index rank = 0; rank < once.size(); ++rank)
    for (Index tensor = 0; tensor < once[rank].grads.size(); ++tensor)
      for (Index i = 0; i < once[rank].grads[tensor].size(); ++i) {
        const float one = once[rank].grads[tensor][i];
        ASSERT_NEAR(twice[rank].grads[tensor][i], 2 * one, 1e-5F * (1 + std::abs(one)));
      }
}

TEST(LayerRecompute, KeptRouting_GivesTheSameBitsFromFewerBytes) {
  for (const auto& [dtype, gate] : {std::pair{DType::f32, SharedGate::residual}, {DType::bf16, SharedGate::none}}) {
    LayerShape s = with_shared(deepseek_v3(whole_shape(dtype)), gate);
    s.router.balance_loss = 0.5, s.router.z_loss = 0.1F;
    for (WholeCase c : under_each_transport(each_intake(s, 2, 3))) {
      SCOPED_TRACE(describe(c));
      const auto all = run_threads(c, 2);
      c.keep = MoeLayer::Keep::routing;
      const auto routing = run_threads(c, 2);
      for (Index r = 0; r < all.size(); ++r) {
        EXPECT_EQ(all[r].y, routing[r].y);
        EXPECT_EQ(all[r].dx, routing[r].dx);
        EXPECT_EQ(all[r].grads, routing[r].grads);
        const auto parts = parts_of(c, static_cast<int>(r) / c.layout.tp);
        const int routed = parts.size() == 1 ? parts[0] : parts[r % parts.size()];
        // ids, weights and logits: 4 bytes each.
        EXPECT_EQ(routing[r].saved_bytes, static_cast<Index>(routed * (2 * s.top_k + s.experts) * 4));
        EXPECT_LE(2 * routing[r].saved_bytes, all[r].saved_bytes);
      }
      if (::testing::Test::HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace topomoe::testing
