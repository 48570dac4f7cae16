// Plans of models whose MoE layers differ: pyramids, on the clusters that we ship.
#include <gtest/gtest.h>

#include "planner/emit/emit.hpp"
#include "planner/hf_config.hpp"
#include "planner/plan/json.hpp"
#include "tests/planner/helpers.hpp"
#include "topomoe/planner.hpp"

namespace topomoe {
namespace {

PlanRequest pyramid(const std::string& cluster = "h100-2x8") {
  PlanRequest r;
  r.topology = read_topology_file(TOPOMOE_SOURCE_DIR "/configs/clusters/" + cluster + ".json");
  r.model = shipped("pr-moe-350m-32-64");
  r.job.sequence = 2048, r.job.global_batch = 256;
  return r;
}

// All MoE layers as the kind's.
Model only(const Model& m, int kind) {
  Model one = m;
  const MoeKind k = moe_kind(m, kind);
  one.experts = k.experts, one.top_k = k.top_k, one.expert_ffn = k.expert_ffn, one.shared_ffn = k.shared_ffn;
  one.moe_kinds.clear();
  for (auto& layer : one.is_moe) layer = layer > 0;
  return one;
}

TEST(MoeKinds, Pyramid_IsPlannedKindByKind) {
  const auto plan = make_plan(pyramid());
  ASSERT_TRUE(plan) << plan.error().message();
  ASSERT_EQ(plan->later_kinds.size(), 1U);
  const PlannedKind& second = plan->later_kinds[0];
  EXPECT_EQ(plan->expert_owners.size(), 32U);
  EXPECT_EQ(second.expert_owners.size(), 64U);
  EXPECT_EQ(32 % plan->layout.ep, 0);
  EXPECT_GT(second.forward.time_us, 0);
  EXPECT_GE(second.forward.time_us, second.forward.bound_us);
  EXPECT_FALSE(second.loads.empty());
  const std::string text = explain_text(*plan);
  EXPECT_HAS(text, "algorithm  " + plan->schedule.name + " / " + second.schedule.name);
  EXPECT_HAS(text, "MoE kinds  MoE kind 1 (32 experts in 10 layers): " + plan->schedule.name);
  EXPECT_HAS(text, "           MoE kind 2 (64 experts in 2 layers): " + second.schedule.name);
}

TEST(MoeKinds, PlanJson_ReadsBackAndChecksEachKind) {
  const auto plan = make_plan(pyramid());
  ASSERT_TRUE(plan);
  const std::string text = write_plan(*plan);
  EXPECT_EQ(write_plan(read_plan(text, "plan.json")), text);
  const auto broken = [&](auto change) {
    ordered_json json = parse_json(text, "x");
    change(json);
    return message_of([&] { read_plan(json.dump(), "plan.json"); });
  };
  EXPECT_EQ(broken([](ordered_json&) {}), "no error");
  EXPECT_HAS(broken([](ordered_json& j) { j.erase("later_kinds"); }), "later_kinds: 0 kinds: the model has 1 kinds");
  EXPECT_HAS(broken([](ordered_json& j) { j["later_kinds"]["1"]["expert_owners"].erase(0); }),
             "later_kinds.1.expert_owners: 63 owners: must have one for each of the 64 experts");
  EXPECT_HAS(broken([](ordered_json& j) { j["later_kinds"]["1"]["predicted_forward"]["steps"].erase(0); }),
             "later_kinds.1.predicted_forward.steps");
  EXPECT_HAS(broken([](ordered_json& j) { j["later_kinds"]["2"] = j["later_kinds"]["1"]; }), "unknown key");
}

// With nothing left to choose, 10 layers cost as in a model of 12 such layers, and 2 as in the other; all that is not
// the experts costs the same.
TEST(MoeKinds, TimeOfAStep_IsTheSumOverKinds) {
  for (const int pp : {1, 6}) {
    auto request = pyramid("h100-16x8");
    request.job.global_batch = 768;
    request.topology = resize_hosts(request.topology, 8 * pp, nullptr);  // EDP 1: no order to choose
    request.fix = {"tp=1", "cp=1", "etp=1", "ep=8", "vpp=1", "mbs=1", "pp=" + std::to_string(pp)};
    request.transport = "flat", request.split = "sliced", request.chunks = 1, request.flips = false;
    const Model m = request.model;
    const auto mixed = make_plan(request);
    request.model = only(m, 0);
    const auto few = make_plan(request);
    request.model = only(m, 1);
    const auto many = make_plan(request);
    ASSERT_TRUE(mixed && few && many) << mixed.error().message();
    EXPECT_EQ(mixed->forward.time_us, few->forward.time_us);
    EXPECT_EQ(mixed->later_kinds[0].forward.time_us, many->forward.time_us);
    EXPECT_GT(many->time.moe_ms, few->time.moe_ms);
    // PP 6: two MoE layers a stage; the last one, of the second kind, is the slowest.
    const double want = pp == 1 ? (10 * few->time.moe_ms + 2 * many->time.moe_ms) / 12 : many->time.moe_ms;
    EXPECT_NEAR(mixed->time.moe_ms / want, 1, 1e-12) << pp;
    EXPECT_NEAR(mixed->time.attention_ms / few->time.attention_ms, 1, 1e-12);
  }
}

// Written as runs of the same kind, a model is the same model and its plan the same plan.
TEST(MoeKinds, AllKindsEqual_PlanIsTheSameToTheByte) {
  auto request = pyramid();
  request.model = only(request.model, 0);
  ordered_json json = to_json(request.model);
  json["moe_kinds"] = {{{"layers", 5}, {"experts", 32}}, {{"layers", 7}, {"experts", 32}, {"shared_ffn", 4096}}};
  const auto plain = make_plan(request);
  request.model = model_from_json(json);
  const auto runs = make_plan(request);
  ASSERT_TRUE(plain && runs);
  EXPECT_EQ(write_plan(*plain), write_plan(*runs));
  EXPECT_EQ(write_plan(*plain).find("kinds\": {"), std::string::npos);
}

// A kind's traffic is its own, whatever kinds it stands beside.
TEST(MoeKinds, SkewedTrafficOfAKind_IsThatOfTheModelWithThatKindAlone) {
  auto request = pyramid();
  request.fix = {"tp=1", "cp=1", "pp=1", "ep=16", "mbs=1"};
  request.transport = "flat", request.chunks = 1, request.flips = false;
  request.routing = {RoutingProfile::Kind::zipf, 0.8, {}, "zipf"};
  const auto mixed = make_plan(request);
  request.model = only(request.model, 1);
  const auto alone = make_plan(request);
  ASSERT_TRUE(mixed && alone);
  ASSERT_EQ(mixed->later_kinds.size(), 1u);
  const auto &here = mixed->later_kinds[0].loads, &there = alone->loads;
  ASSERT_EQ(here.size(), there.size());
  for (std::size_t i = 0; i < here.size(); ++i) {
    EXPECT_EQ(here[i].link_class, there[i].link_class);
    EXPECT_NEAR(here[i].bytes / there[i].bytes, 1, 1e-9) << here[i].link_class;
    EXPECT_GT(std::abs(here[i].bytes / mixed->loads[i].bytes - 1), 0.01)
        << "the kinds differ in " << here[i].link_class;
  }
}

TEST(MoeKinds, SearchWithAndWithoutBounds_ChoosesTheSame) {
  for (int i = 0; i < 4; ++i) {
    auto request = pyramid(i % 2 ? "h100-2x8" : "a800-2x8");
    request.job.sequence = 1024 << i % 3;
    request.flips = false;
    request.fix = {"pp=" + std::to_string(1 + i / 2), "cp=1"};
    if (i == 3) request.routing = {RoutingProfile::Kind::zipf, 0.8, {}, "zipf"};
    if (i == 1) request.job.phase = Phase::prefill;
    const auto quick = make_plan(request);
    request.exhaustive = true;
    const auto all = make_plan(request);
    ASSERT_TRUE(quick && all);
    EXPECT_EQ(name(quick->layout), name(all->layout));
    EXPECT_EQ(algorithms_name(*quick), algorithms_name(*all));
    EXPECT_EQ(quick->time.total_ms(), all->time.total_ms());
  }
}

TEST(MoeKinds, WhatAKindForbids_IsNamed) {
  auto request = pyramid("h100-16x8");
  request.fix = {"ep=64"};
  const auto plan = make_plan(request);
  ASSERT_FALSE(plan);
  EXPECT_HAS(plan.error().message(), "ep = 64 does not divide the 32 experts of MoE kind 1 (32 experts in 10 layers)");
  request = pyramid();
  request.target = "megatron";
  EXPECT_HAS(message_of([&] { (void)make_plan(request); }), "--target: megatron: its arguments give all MoE layers");
  request.target = "any";
  request.routing = {RoutingProfile::Kind::histogram, 0, std::vector<double>(32, 1.0), "counts"};
  EXPECT_HAS(message_of([&] { (void)make_plan(request); }), "routing: histogram: 32 counts: MoE kind 1 (32 experts");
}

TEST(MoeKinds, TargetsWithoutThem_Refuse) {
  const auto plan = make_plan(pyramid());
  ASSERT_TRUE(plan);
  for (const char* target : {"megatron", "deepspeed"}) {
    const auto emitted = find_emitter(target).emit(*plan, {});
    ASSERT_FALSE(emitted) << target;
    bool named = false;
    for (const Infeasible& why : emitted.error().why)
      named |= why.constraint.find("MoE kind 2 (64 experts in 2 layers)") != std::string::npos;
    EXPECT_TRUE(named) << target;
  }
}

}  // namespace
}  // namespace topomoe
