// What a plan says beside its choice: where routing skew changes it, that fewer GPUs are faster, that others tie.

#include <gtest/gtest.h>

#include <algorithm>
#include <tuple>

#include "planner/certainty.hpp"
#include "planner/search_state.hpp"
#include "tests/planner/helpers.hpp"
#include "tests/planner/sample_plan.hpp"
#include "topomoe/planner.hpp"

namespace topomoe {
namespace {

PlanRequest request_of(const std::string& cluster, const std::string& model) {
  PlanRequest r;
  r.topology = read_topology_file(TOPOMOE_SOURCE_DIR "/configs/clusters/" + cluster + ".json");
  r.model = shipped(model);
  return r;
}

std::vector<Flip> over_skew(const Plan& plan) {
  std::vector<Flip> flips;
  std::copy_if(plan.flips.begin(), plan.flips.end(), std::back_inserter(flips),
               [](const Flip& f) { return f.quantity == Flip::kSkew; });
  return flips;
}

using Kind = std::tuple<int, int, std::string, std::string>;
Kind kind_of(const Plan& p) { return {p.layout.ep, p.layout.etp, p.schedule.split, p.schedule.transport}; }

// A search at the flip chooses what it names; one 1/20 before it chooses as before. Returns the last flip's choice.
Kind expect_flips_hold(const PlanRequest& request, const Plan& plan) {
  PlanRequest there = request;
  there.flips = false;
  there.fix.push_back("tp=" + std::to_string(plan.layout.tp) + ",cp=" + std::to_string(plan.layout.cp));
  there.job.micro_batch = plan.job.micro_batch;
  Kind before = kind_of(plan);
  const auto plan_at = [&](double skew) {
    there.routing = zipf_routing(skew);
    auto found = make_plan(there);
    EXPECT_TRUE(found) << skew;
    return *std::move(found);
  };
  for (const Flip& f : over_skew(plan)) {
    EXPECT_TRUE(f.above);
    EXPECT_GT(f.at, request.routing.zipf_s);
    const Plan at = plan_at(f.at);
    if (f.instead.empty()) {
      EXPECT_EQ(kind_of(at), before);
      continue;
    }
    EXPECT_EQ(run_name(at.layout, at.job) + " | " + at.schedule.name, f.instead);
    EXPECT_NE(kind_of(at), before) << f.at;
    if (f.at - 0.05 > request.routing.zipf_s) {
      EXPECT_EQ(kind_of(plan_at(f.at - 0.05)), before) << f.at;
    }
    before = kind_of(at);
  }
  return before;
}

TEST(SkewFlips, MixtralOn16H100_MovesFromEpToShardedExperts) {
  const auto request = request_of("h100-2x8", "mixtral-8x7b");
  const auto plan = make_plan(request);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->layout.ep, 8);
  ASSERT_FALSE(over_skew(*plan).empty());
  const Kind last = expect_flips_hold(request, *plan);
  EXPECT_EQ(std::get<0>(last), 1);  // MoEShard's: every rank has a slice of every expert
  EXPECT_GT(std::get<1>(last), 1);
  EXPECT_HAS(explain_text(*plan), "from routing zipf:");
}

TEST(SkewFlips, ManySmallExperts_HoldOnBothSides) {
  const auto request = request_of("h100-2x8", "qwen3-30b-a3b");
  const auto plan = make_plan(request);
  ASSERT_TRUE(plan);
  EXPECT_FALSE(over_skew(*plan).empty());
  expect_flips_hold(request, *plan);
}

TEST(SkewFlips, BeginAtTheRequestsOwnSkew) {
  auto request = request_of("dgx-a100", "switch-base-16");
  request.job.phase = Phase::prefill;
  request.job.sequence = 512, request.job.global_batch = 512, request.job.micro_batch = 64;
  request.fix = {"tp=1", "pp=1"};
  request.routing = zipf_routing(0.33);
  const auto plan = make_plan(request);
  ASSERT_TRUE(plan);
  ASSERT_FALSE(over_skew(*plan).empty());
  expect_flips_hold(request, *plan);
}

TEST(SkewFlips, HistogramOrNotAskedFor_None) {
  auto request = request_of("h100-2x8", "mixtral-8x7b");
  request.flips = false;
  EXPECT_TRUE(make_plan(request)->flips.empty());
  request.flips = true;
  request.routing.kind = RoutingProfile::Kind::histogram;
  request.routing.histogram = {5, 1, 1, 1, 1, 1, 1, 1};
  const auto plan = make_plan(request);
  ASSERT_TRUE(plan);
  EXPECT_TRUE(over_skew(*plan).empty());
}

TEST(Explain, FlipsThatWereNotFound_AreSaidAsSuch) {
  Plan plan = sample_plan(2);
  plan.flips = {{Flip::kTokens, 1, false, ""}, {Flip::kSkew, 2, true, ""}};
  const std::string text = explain_text(plan);
  EXPECT_HAS(text, "the same layout and algorithm down to 1 tokens per rank");
  EXPECT_HAS(text, "the same layout and algorithm up to routing zipf:2.00");
}

// 256 sequences of 4096 tokens in half a second on 16 GPUs: 2097152 tokens/s, 131072 a GPU; 412.5 of 989: 41.7%.
TEST(Explain, Speed_FollowsFromTimeAndJob) {
  Plan plan = sample_plan(2);
  plan.job.sequence = 4096, plan.job.global_batch = 256;
  plan.time = {500, 0, 0, 0, 0};
  EXPECT_HAS(explain_text(plan), "2097152 tokens/s, 131072 a GPU; 412 model TFLOP/s a GPU, MFU 41.7% of 989");
  // Decode puts out one token a sequence: 256 in half a second.
  plan.job.phase = Phase::decode;
  EXPECT_HAS(explain_text(plan), "512 tokens/s, 32 a GPU, a token of each sequence every 500 ms");
}

TEST(Explain, LongStepNames_DoNotCollideWithTheNextColumn) {
  Plan plan = sample_plan(1);
  for (auto* steps : {&plan.forward.steps, &plan.backward.steps})
    for (PredictedStep& step : *steps) step.name = "a step of a name beyond eighteen letters";
  const std::string text = explain_text(plan);
  EXPECT_HAS(text, "beyond eighteen letters  ");
}

// 72 = 9 x 8, and 9 divides neither 256 sequences nor 128 experts: layers go to 9 stages.
TEST(FewerGpus, ThatAreFaster_AreNamed) {
  auto request = request_of("h100-16x8", "qwen3-235b-a22b");
  request.job.phase = Phase::prefill;
  request.topology = resize_hosts(request.topology, 72, nullptr);
  const auto plan = make_plan(request);
  ASSERT_TRUE(plan);
  EXPECT_HAS(plan->topology.note, "72 GPUs take");
  EXPECT_HAS(plan->topology.note, "--gpus 64");
  EXPECT_HAS(explain_text(*plan), "--gpus 64");
  auto fewer = request;
  fewer.topology = resize_hosts(request.topology, 64, nullptr);
  fewer.flips = false;
  EXPECT_LT(make_plan(fewer)->time.total_ms(), plan->time.total_ms());
}

// 288 sequences are 72 x 4: all GPUs are of use.
TEST(FewerGpus, ThatAreSlower_AreNot) {
  auto request = request_of("h100-16x8", "switch-base-16");
  request.job.phase = Phase::prefill, request.job.global_batch = 288;
  request.topology = resize_hosts(request.topology, 72, nullptr);
  const auto plan = make_plan(request);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->topology.note, "");
}

TEST(Rejected, WaysThatAreAsFast_AreToldOnce) {
  const auto plan = make_plan(request_of("h100-2x8", "qwen3-30b-a3b"));
  ASSERT_TRUE(plan);
  const auto ties = std::count_if(plan->rejected.begin(), plan->rejected.end(),
                                  [&](const Rejected& r) { return as_fast(r.time_ms, plan->time.total_ms()); });
  EXPECT_EQ(ties, 1);
  EXPECT_HAS(explain_text(*plan), "as fast   TP1");
}

TEST(Glossary, NamesTheWordsOfAPlan) {
  for (const char* word :
       {"TP ", "EP ", "ETP", "CP ", "VPP", "split", "sliced", "replicated", "node_dedup", "lane", "bound"})
    EXPECT_HAS(glossary_text(), word);
}

}  // namespace
}  // namespace topomoe
