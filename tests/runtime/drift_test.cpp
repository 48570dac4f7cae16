// Drift between prediction and measurement, by hand, and its sentences word by word.

#include "runtime/drift.hpp"

#include <gtest/gtest.h>

namespace topomoe {
namespace {

Step step(const char* name, StepKind kind, Lane lane, Role group) {
  Step s;
  s.name = name, s.kind = kind, s.lane = lane, s.group = group;
  return s;
}

StepTrace trace(Lane lane, double begin_ms, double end_ms, double bytes = 0) {
  StepTrace t;
  t.lane = lane, t.begin_s = begin_ms * 1e-3, t.end_s = end_ms * 1e-3, t.payload_bytes = bytes;
  return t;
}

// World 4 on 2 nodes, TP 2 inside, EP 2 across: {0, 2} and {1, 3}. Two exchanges over EP, issued together, and an
// all-gather over TP.
struct DriftTest : ::testing::Test {
  DriftTest() {
    schedule.forward = {step("dispatch 0", StepKind::exchange, Lane::inter_node, Role::ep),
                        step("dispatch 1", StepKind::exchange, Lane::inter_node, Role::ep),
                        step("gather", StepKind::all_gather, Lane::intra_node, Role::tp)};
    predicted.steps = {{"dispatch 0", 0, 10000, 10000, 0, ""},
                       {"dispatch 1", 10000, 20000, 10000, 0, ""},
                       {"gather", 20000, 21000, 1000, 0, ""}};
  }
  // The second dispatch was issued at 0.1 ms and began when the first was over, at `half`.
  RankTrace rank(double half, double gather) {
    RankTrace r;
    r.forward = {trace(Lane::inter_node, 0, half, 1000), trace(Lane::inter_node, 0.1, 2 * half, 1000),
                 trace(Lane::intra_node, 2 * half, 2 * half + gather, 500)};
    return r;
  }
  std::vector<RankTrace> all(double half, double gather) { return std::vector<RankTrace>(4, rank(half, gather)); }
  Drift drift(const std::vector<RankTrace>& ranks, std::size_t repetitions = kRunsToJudge) {
    return drift_of(schedule, groups, predicted, {}, {repetitions, ranks});
  }
  RankGroups groups{make_layout(4, 2, 1, 1, 2, 2), 2};
  Schedule schedule;
  PredictedPass predicted;
};

TEST_F(DriftTest, SlowLane_IsNamed) {
  const Drift d = drift(all(13.1, 1));
  ASSERT_EQ(d.steps.size(), 3U);
  EXPECT_NEAR(d.steps[1].measured_us, 13100, 1);
  ASSERT_EQ(d.lanes.size(), 2U);
  EXPECT_EQ(d.lanes[1].lane, Lane::inter_node);
  EXPECT_NEAR(d.lanes[1].measured_us, 26200, 1);
  EXPECT_NEAR(d.lanes[1].predicted_us, 20000, 1e-6);
  EXPECT_EQ(verdict(d), "the inter-node lane is 31% slower than its curve: re-plan");
}

TEST_F(DriftTest, FastLane_IsNamed) {
  EXPECT_EQ(verdict(drift(all(10, 0.5))), "the intra-node lane is 50% faster than its curve: re-plan");
}

TEST_F(DriftTest, AsPredicted_ThePlanStands) {
  EXPECT_EQ(verdict(drift(all(10.5, 1.1))), "lanes between ranks are within 15% of their curves: the plan stands");
}

TEST_F(DriftTest, NothingPredicted_SaysSo) {
  EXPECT_EQ(verdict(drift_of(schedule, groups, {}, {}, {all(10, 1)})),
            "no lane between ranks was predicted from a curve of its own: nothing to compare");
}

// One repetition may have been any: nobody plans again for it.
TEST_F(DriftTest, TooFewRepetitions_AreNoReasonToPlanAgain) {
  EXPECT_EQ(verdict(drift(all(13.1, 1), 1)),
            "the inter-node lane is 31% slower than its curve, in 1 repetition, whose noise is not known: repeat it 4 "
            "times or more before re-planning");
  EXPECT_EQ(verdict(drift(all(10, 1), 1)), "lanes between ranks are within 15% of their curves: the plan stands");
}

// 31% slower than a curve whose own points lie 35% apart is no news; than one of 12% it is.
TEST_F(DriftTest, LaneWithinTheSpreadOfItsCurve_IsNoDrift) {
  Drift d = drift(all(13.1, 1));
  ASSERT_EQ(d.lanes[1].lane, Lane::inter_node);
  d.lanes[1].curve_spread = 0.12;
  EXPECT_EQ(verdict(d), "the inter-node lane is 31% slower than its curve: re-plan");
  d.lanes[1].curve_spread = 0.35;
  EXPECT_EQ(verdict(d),
            "the inter-node lane is 31% slower than its curve, but the curve spreads by 35% and the repetitions by 0%: "
            "the plan stands");
}

// Dispatches of 20, 26 and 32 ms: the median is 26, 30% off; half of the repetitions lie 6 ms from it, 23%, and twice
// that is 46%. A run of one long repetition among equal ones has no noise: 26.2, 26.2 and 60 ms deviate by 0, 0, 34.
TEST_F(DriftTest, LaneWithinTheNoiseOfItsRepetitions_IsNoDrift) {
  const auto of = [&](std::vector<double> halves) {
    std::vector<std::vector<RankTrace>> runs;
    for (const double half : halves) runs.push_back(all(half, 1));
    return drift_of(schedule, groups, predicted, {}, runs);
  };
  const Drift noisy = of({10, 13, 16});
  EXPECT_NEAR(noisy.lanes[1].measured_us, 26000, 1);
  EXPECT_NEAR(noisy.lanes[1].noise, 2 * 6.0 / 26, 1e-3);
  EXPECT_NEAR(noisy.steps[0].measured_us, 13000, 1);
  EXPECT_EQ(verdict(noisy),
            "the inter-node lane is 30% slower than its curve, but the curve spreads by 0% and the repetitions by 46%: "
            "the plan stands");
  EXPECT_EQ(verdict(of({13.1, 13.1, 30})), "the inter-node lane is 31% slower than its curve: re-plan");
}

// The inter-node lane is twice as slow as predicted, but from figures of another machine; the other one stands.
TEST_F(DriftTest, LaneWithoutACurve_IsNotJudged) {
  Drift d = drift(all(20, 1));
  ASSERT_EQ(d.lanes[1].lane, Lane::inter_node);
  d.lanes[1].judged = false;
  EXPECT_EQ(verdict(d), "lanes between ranks are within 15% of their curves: the plan stands");
  d.lanes[0].judged = false;
  EXPECT_EQ(verdict(d), "no lane between ranks was predicted from a curve of its own: nothing to compare");
}

// Rank 3 sets off 50 ms late. Its partners wait for it, which is no time of the network: dispatch takes 10 ms from its
// begin on, and the gather 1.
TEST_F(DriftTest, LateRank_IsNotTheNetwork) {
  std::vector<RankTrace> ranks = all(10, 1);
  ranks[3].forward_begin_s = 0.05;
  ranks[1].forward = {trace(Lane::inter_node, 0, 60), trace(Lane::inter_node, 0.1, 70),
                      trace(Lane::intra_node, 70, 71)};
  ranks[2].forward[2] = trace(Lane::intra_node, 20, 71);
  const Drift d = drift(ranks);
  EXPECT_NEAR(d.steps[0].measured_us, 10000, 1);
  EXPECT_NEAR(d.steps[1].measured_us, 10000, 1);
  EXPECT_EQ(verdict(d), "lanes between ranks are within 15% of their curves: the plan stands");
}

// Dispatch sends 1000 bytes to the one peer, so that the whole buffer is 2000; the first is alone, the second in a row.
// The gather gives 500 to the one partner: 1000 in all.
TEST_F(DriftTest, Curves_AreOfTheStepsOwn) {
  const auto curves = curves_of(schedule, groups, all(12, 2));
  ASSERT_EQ(curves.size(), 3U);
  EXPECT_EQ(curves[0].operation, "all_gather");
  EXPECT_EQ(curves[0].nodes, 1);
  EXPECT_EQ(curves[0].knots, (std::vector<CalibrationKnot>{{1000, curves[0].knots[0].time_us}}));
  EXPECT_NEAR(curves[0].knots[0].time_us, 2000, 1);
  EXPECT_EQ(curves[1].operation, "alltoall");
  EXPECT_EQ(curves[1].gpus, 2);
  EXPECT_EQ(curves[1].nodes, 2);
  EXPECT_TRUE(curves[1].parameters.empty());
  EXPECT_NEAR(curves[1].knots.at(0).size, 2000, 1e-9);
  EXPECT_NEAR(curves[1].knots.at(0).time_us, 12000, 1);
  EXPECT_TRUE(curves[2].parameters.contains("in_a_row"));
  EXPECT_NEAR(curves[2].knots.at(0).time_us, 12000, 1);
}

}  // namespace
}  // namespace topomoe
