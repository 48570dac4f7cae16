// From a plan to what executes it: every field arrives, of the kind that was asked for.

#include "topomoe/planned_layer.hpp"

#include <gtest/gtest.h>

#include "planner/plan/capacity.hpp"
#include "tests/support/tiny_plan.hpp"
#include "topomoe/error.hpp"

namespace topomoe::testing {
namespace {

// Two kinds, of which only the first has a shared expert.
Plan pyramid() {
  Plan p = tiny();
  Model& m = p.model;
  m.scoring = Scoring::sigmoid, m.router_groups = 2, m.router_topk_groups = 1, m.routed_scaling = 2.5;
  m.renormalize = false, m.shared_ffn = 8, m.shared_gate = SharedGate::residual;
  m.is_moe = {1, 2}, m.layers = 2;
  m.moe_kinds = {{4, 2, 24, 8}, {8, 1, 12, 0}};
  p.job.capacity_factor = 1.25;
  p.expert_owners = {{1}, {0, 1}, {0}, {1}};
  PlannedKind later{even_blocks(8, 2), p.schedule, {}, {}, {}};
  later.schedule.name = "of the second kind";
  p.later_kinds = {later};
  return p;
}

TEST(PlannedLayer, Shape_HasAllThatThePlanSays) {
  const LayerShape s = layer_shape_of(pyramid());
  EXPECT_EQ(s.hidden, 16);
  EXPECT_EQ(s.ffn, 24);
  EXPECT_EQ(s.experts, 4);
  EXPECT_EQ(s.top_k, 2);
  EXPECT_FALSE(s.renormalize);
  EXPECT_EQ(s.dtype, DType::bf16);
  EXPECT_EQ(s.expert_owners, (ExpertOwners{{1}, {0, 1}, {0}, {1}}));
  EXPECT_EQ(s.capacity_factor, 1.25);
  EXPECT_EQ(s.router, (RouterOptions{Scoring::sigmoid, 2, 1, 2.5F}));
  EXPECT_EQ(s.shared_ffn, 8);
  EXPECT_EQ(s.shared_gate, SharedGate::residual);
}

// 20 times 1/20, each twice, is 2.0000000000000004: the busiest place would have a little less than its share.
TEST(PlannedLayer, EvenShares_AreASkewOfOneHoweverTheyRound) {
  for (int experts = 2; experts <= 64; ++experts)
    EXPECT_GE(routed_skew(std::vector<double>(static_cast<std::size_t>(experts), 1.0 / experts),
                          ExpertPlacement(experts, experts, even_blocks(experts, experts)), 2),
              1.0)
        << experts;
}

TEST(PlannedLayer, LaterKind_HasItsOwnExpertsPlacesAndSchedule) {
  const Plan p = pyramid();
  const LayerShape s = layer_shape_of(p, 1);
  EXPECT_EQ(s.ffn, 12);
  EXPECT_EQ(s.experts, 8);
  EXPECT_EQ(s.top_k, 1);
  EXPECT_EQ(s.expert_owners, even_blocks(8, 2));
  EXPECT_EQ(s.shared_ffn, 0);
  EXPECT_EQ(s.shared_gate, SharedGate::none);  // of no expert
  EXPECT_EQ(schedule_of(p, 1).name, "of the second kind");
  EXPECT_EQ(schedule_of(p).name, tiny().schedule.name);
}

// TP2 EP2 ETP2: ranks 0 and 1 are the shards of place 0.
TEST(PlannedLayer, HeldExperts_AreThoseOfTheRanksPlace) {
  const Plan p = pyramid();
  EXPECT_EQ(held_experts(p, 0), (std::vector{1, 2}));
  EXPECT_EQ(held_experts(p, 1), (std::vector{1, 2}));
  EXPECT_EQ(held_experts(p, 3), (std::vector{0, 1, 3}));
  EXPECT_EQ(held_experts(p, 2, 1), (std::vector{4, 5, 6, 7}));
  EXPECT_THROW(held_experts(p, 4), InvalidInput);
}

// Popularity is even: place 1 holds experts 0, 3 and half of 1, 2.5 of 4 against a mean of 2.
TEST(PlannedLayer, Options_AreThePlansTokensAndSkew) {
  const LayerOptions o = layer_options_of(pyramid());
  EXPECT_EQ(o.tokens, 16);
  EXPECT_NEAR(o.skew, 1.25, 1e-9);
}

TEST(PlannedLayer, KindThatIsNone_IsRefusedByName) {
  const Plan p = pyramid();
  const auto refused = [&](auto ask) -> std::string {
    try {
      ask();
    } catch (const InvalidInput& e) {
      return e.what();
    }
    return "";
  };
  const std::string why = "kind: 2: the plan has kinds 0 to 1";
  EXPECT_EQ(refused([&] { layer_shape_of(p, 2); }), why);
  EXPECT_EQ(refused([&] { schedule_of(p, 2); }), why);
  EXPECT_EQ(refused([&] { layer_options_of(p, 2); }), why);
  EXPECT_EQ(refused([&] { layer_shape_of(p, -1); }), "kind: -1: the plan has kinds 0 to 1");
}

TEST(PlannedLayer, Experts_HaveAGateWhereTheModelSaysSo) {
  Plan p = pyramid();
  EXPECT_TRUE(layer_shape_of(p).gated);
  p.model.gated_ffn = false;
  EXPECT_FALSE(layer_shape_of(p).gated);
  EXPECT_FALSE(layer_shape_of(p, 1).gated);
}

}  // namespace
}  // namespace topomoe::testing
