// The whole planner on the clusters and models that we ship.

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <numeric>
#include <sstream>

#include "planner/hf_config.hpp"
#include "topomoe/planner.hpp"

namespace topomoe {
namespace {

PlanRequest shipped(const std::string& cluster, const std::string& model) {
  const std::string root = TOPOMOE_SOURCE_DIR "/configs/";
  PlanRequest r;
  r.topology = read_topology_file(root + "clusters/" + cluster + ".json");
  std::ifstream file(root + "models/" + model + ".json");
  std::stringstream text;
  text << file.rdbuf();
  r.model = read_hf_config(text.str(), model);
  return r;
}

double total_GiB(const Plan& p) {
  return std::accumulate(p.memory_GiB.begin(), p.memory_GiB.end(), 0.0,
                         [](double a, const auto& b) { return a + b.second; });
}

TEST(Planner, Mixtral8x7bOn16H100_FitsAndExplainsItself) {
  const auto request = shipped("h100-2x8", "mixtral-8x7b");
  const auto plan = make_plan(request);
  ASSERT_TRUE(plan) << plan.error().message();
  const Layout& l = plan->layout;
  EXPECT_EQ(l.tp * l.cp * l.dp * l.pp, 16);
  EXPECT_EQ(l.etp * l.ep * l.edp * l.pp, 16);
  EXPECT_LE(total_GiB(*plan), 80);
  EXPECT_GT(plan->model_TFLOPps_per_gpu, 100);
  EXPECT_LT(plan->model_TFLOPps_per_gpu, 989);
  EXPECT_EQ(plan->ranks.size(), 16U);
  EXPECT_EQ(plan->expert_owners.size(), 8U);
  EXPECT_FALSE(plan->rejected.empty());
  const std::string text = explain_text(*plan);
  for (const char* part : {"layout", "algorithm", "bottleneck", "memory", "headroom", "rejected", "MoE layer, forward"})
    EXPECT_NE(text.find(part), std::string::npos) << part;
  // The named bottleneck is a link of the topology.
  EXPECT_NE(text.find("bottleneck the experts"), std::string::npos);
  EXPECT_NE(text.find("busiest    host"), std::string::npos);
}

TEST(Planner, MoNTAsCase_ChoosesSlicedInChunks) {
  auto request = shipped("a800-2x8", "mixtral-8x7b");
  request.fix = {"tp=8", "ep=2", "etp=8"};
  request.job.sequence = 8192;
  request.job.recompute = Recompute::full;
  request.job.sequence_parallel = SequenceParallel::off;
  const auto plan = make_plan(request);
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(plan->schedule.split, "sliced");
  EXPECT_GT(plan->schedule.chunks, 1);
  ASSERT_FALSE(plan->flips.empty());
  EXPECT_EQ(plan->flips.front().quantity, "tokens per rank");
  EXPECT_LT(plan->flips.front().at, plan->tokens_per_rank);
}

TEST(Planner, SameRequestTwice_SamePlan) {
  const auto request = shipped("h100-16x8", "qwen3-235b-a22b");
  const auto a = make_plan(request), b = make_plan(request);
  ASSERT_TRUE(a && b);
  EXPECT_EQ(write_plan(*a), write_plan(*b));
}

TEST(Planner, Flip_HoldsOnBothSidesOfTheThreshold) {
  auto request = shipped("h100-2x8", "mixtral-8x7b");
  request.fix = {"tp=8", "ep=2", "etp=8"};
  request.job.sequence_parallel = SequenceParallel::off;
  request.job.recompute = Recompute::full;
  const auto plan = make_plan(request);
  ASSERT_TRUE(plan) << plan.error().message();
  for (const Flip& f : plan->flips) {
    if (f.quantity != Flip::kTokens || f.instead.empty()) continue;
    auto at = request;
    at.job.sequence = static_cast<int>(f.at);
    EXPECT_NE(make_plan(at)->schedule.name, f.instead) << "at " << f.at;
    at.job.sequence = static_cast<int>(f.at) - 1;
    EXPECT_EQ(make_plan(at)->schedule.name, f.instead) << "below " << f.at;
  }
}

TEST(Planner, MemoryCannotFit_NamesBucketAndAFixThatWorks) {
  auto request = shipped("h100-2x8", "mixtral-8x22b");
  const auto plan = make_plan(request);
  ASSERT_FALSE(plan);
  EXPECT_NE(plan.error().constraint.find("memory"), std::string::npos) << plan.error().message();
  EXPECT_NE(plan.error().constraint.find("76.8 GiB"), std::string::npos);  // 4% of 80 kept free
  const std::string fix = plan.error().nearest_fix;
  const auto at = fix.find("--gpus ");
  ASSERT_NE(at, std::string::npos) << fix;
  request.topology = resize_hosts(request.topology, std::stoi(fix.substr(at + 7)), nullptr);
  EXPECT_TRUE(make_plan(request));
}

TEST(Planner, ContradictingConstraints_AreRefusedByName) {
  auto request = shipped("h100-2x8", "mixtral-8x7b");
  request.fix = {"ep=3"};
  const auto plan = make_plan(request);
  ASSERT_FALSE(plan);
  EXPECT_NE(plan.error().message().find("ep"), std::string::npos);
  request.fix = {"nonsense=3"};
  EXPECT_THROW(make_plan(request), InvalidInput);
  request.fix = {};
  request.transport = "teleport";
  EXPECT_THROW(make_plan(request), InvalidInput);
}

TEST(Planner, RestrictedAlgorithm_IsUsed) {
  auto request = shipped("h100-2x8", "mixtral-8x7b");
  request.fix = {"tp=8", "ep=2", "etp=8"};
  request.job.recompute = Recompute::full;
  request.split = "replicated", request.transport = "flat", request.chunks = 3;
  const auto plan = make_plan(request);
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(plan->schedule.split, "replicated");
  EXPECT_EQ(plan->schedule.chunks, 3);
}

TEST(Planner, PartOfANvl72Rack_IsOneNode) {
  auto request = shipped("gb200-nvl72", "mixtral-8x7b");
  request.topology = resize_hosts(request.topology, 64, nullptr);
  const auto plan = make_plan(request);
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(plan->topology.gpus_per_node, 64);
}

TEST(Planner, FullRecompute_TakesLongerAndLessMemory) {
  auto request = shipped("h100-2x8", "mixtral-8x7b");
  request.fix = {"tp=2", "pp=2", "ep=8", "etp=1"};
  const auto kept = make_plan(request);
  request.job.recompute = Recompute::full;
  const auto again = make_plan(request);
  ASSERT_TRUE(kept && again);
  EXPECT_GT(again->time.moe_ms, 1.2 * kept->time.moe_ms);
  EXPECT_LT(total_GiB(*again), total_GiB(*kept));
}

// Laws of the bounds: what they leave out is never what the search would have chosen.
TEST(Planner, Pruning_NeverChangesTheChoice) {
  int pruned = 0, planned = 0;
  const char* clusters[] = {"h100-2x8", "a800-2x8", "dgx-h100", "l40s-8x-pcie"};
  const char* models[] = {"mixtral-8x7b", "qwen3-30b-a3b", "switch-base-16"};
  for (int i = 0; i < 16; ++i) {
    auto request = shipped(clusters[i % 4], models[i / 4 % 3]);
    request.job.micro_batch = i % 2 == 0 ? 0 : 1;
    request.max = {"mbs=2", "cp=2"};
    request.flips = false;
    request.job.recompute = i % 5 == 0 ? Recompute::none : Recompute::automatic;
    request.job.global_batch = 32 << (i % 3);
    request.job.sequence = 1024 << (i % 4);
    request.job.phase = i % 7 == 3 ? Phase::prefill : Phase::train;
    if (i % 3 == 1) request.routing.kind = RoutingProfile::Kind::zipf, request.routing.zipf_s = 0.8;
    SCOPED_TRACE(std::string(clusters[i % 4]) + " " + models[i / 4 % 3] + " case " + std::to_string(i));
    const auto quick = make_plan(request);
    request.exhaustive = true;
    const auto all = make_plan(request);
    ASSERT_EQ(static_cast<bool>(quick), static_cast<bool>(all));
    if (!quick) continue;
    ++planned;
    pruned += quick->layouts_pruned > 0;
    EXPECT_EQ(all->layouts_pruned, 0);
    EXPECT_EQ(name(quick->layout), name(all->layout));
    EXPECT_EQ(quick->job, all->job);
    EXPECT_EQ(quick->schedule.name, all->schedule.name);
    EXPECT_EQ(quick->time.total_ms(), all->time.total_ms());
  }
  EXPECT_GT(planned, 6);
  EXPECT_GT(pruned, 6);
}

// Mixtral-8x7B whole on every GPU: 46.7e9 parameters, 280 GB of weights and gradients under ZeRO 1, 93 GB of weights
// alone under ZeRO 2; of 18 bytes a parameter over 16 GPUs 53 GB under ZeRO 3.
TEST(Planner, ZeroIsRaised_WhereLessDoesNotFit) {
  auto request = shipped("h100-2x8", "mixtral-8x7b");
  request.fix = {"tp=1", "pp=1", "cp=1", "ep=1", "etp=1"};
  request.job.recompute = Recompute::full;
  request.flips = false;
  const auto plan = make_plan(request);
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(plan->layout.zero, 3);
  request.max = {"zero=2"};
  const auto less = make_plan(request);
  ASSERT_FALSE(less);
  EXPECT_NE(less.error().constraint.find("memory"), std::string::npos);
  EXPECT_EQ(less.error().nearest_fix.rfind("zero=3 fits", 0), 0U) << less.error().nearest_fix;
}

// What is tried only where the stage before does not fit is never faster where it does.
TEST(Planner, HigherZero_NeverWinsTimeWhereALowerFits) {
  auto request = shipped("h100-2x8", "qwen3-30b-a3b");
  request.flips = false;
  request.fix = {"tp=1", "pp=1", "cp=1", "ep=8"};
  request.job.recompute = Recompute::full;
  const auto free = make_plan(request);
  ASSERT_TRUE(free) << free.error().message();
  EXPECT_EQ(free->layout.zero, 1);
  double before = 0;
  for (const char* zero : {"zero=1", "zero=2", "zero=3"}) {
    auto fixed = request;
    fixed.fix.push_back(zero);
    const auto plan = make_plan(fixed);
    ASSERT_TRUE(plan) << plan.error().message();
    EXPECT_GE(plan->time.total_ms(), before * 0.99) << zero;  // within 1% less traffic wins
    before = plan->time.total_ms();
  }
}

TEST(Planner, OpenJob_IsDecidedAndNoSlowerThanAnyFixedOne) {
  auto request = shipped("h100-16x8", "mixtral-8x22b");
  request.job.micro_batch = 0, request.job.recompute = Recompute::automatic;
  request.flips = false;
  const auto open = make_plan(request);
  ASSERT_TRUE(open);
  EXPECT_GE(open->job.micro_batch, 1);
  EXPECT_NE(open->job.recompute, Recompute::automatic);
  for (const int mbs : {1, 2, 4})
    for (const Recompute r : {Recompute::none, Recompute::full}) {
      request.job.micro_batch = mbs, request.job.recompute = r;
      const auto fixed = make_plan(request);
      if (fixed) {
        EXPECT_LE(open->time.total_ms(), fixed->time.total_ms() * 1.01);  // within 1% less traffic wins
      }
    }
}

TEST(Planner, Sensitivity_NamesEveryRateAndNothingGetsFaster) {
  auto request = shipped("h100-16x8", "mixtral-8x22b");
  const auto plan = make_plan(request);
  ASSERT_TRUE(plan);
  std::vector<std::string> rates;
  for (const Sensitivity& c : plan->sensitivity) {
    rates.push_back(c.rate);
    EXPECT_EQ(c.factor, 0.8);
    // Another layout may hide more when a link is slow, but not be faster than the best was.
    EXPECT_GE(c.time_ms, plan->time.total_ms() * 0.99) << c.rate;  // within 1% less traffic wins
    if (!c.changes) {
      EXPECT_EQ(c.algorithm, plan->schedule.name);
    }
  }
  EXPECT_EQ(rates, (std::vector<std::string>{"compute", "hbm", "nvlink", "pcie", "nic", "uplink"}));
  // Arithmetic is what this step is made of: 20% less of it costs more than 20% less of anything else.
  for (const Sensitivity& c : plan->sensitivity) EXPECT_LE(c.time_ms, plan->sensitivity.front().time_ms) << c.rate;
}

TEST(Planner, MemoryThatIsNoNumber_IsRefused) {
  auto request = shipped("h100-2x8", "mixtral-8x7b");
  for (const double GiB : {-5.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    request.memory_GiB = GiB;
    EXPECT_THROW(make_plan(request), InvalidInput) << GiB;
  }
}

// Under MLA there are as many KV heads as heads: the ring carries each once, so that CP costs what it costs others.
TEST(Planner, ContextParallelismUnderMla_DoesNotExplode) {
  auto request = shipped("h100-32x8", "deepseek-v3");
  request.topology = resize_hosts(request.topology, 64, nullptr);
  request.job.phase = Phase::prefill;
  request.job.sequence = 32768, request.job.global_batch = 64;
  request.memory_GiB = 900;
  const auto attention_ms = [&](const char* cp) {
    request.fix = {"pp=1", "tp=1", cp};
    const auto plan = make_plan(request);
    EXPECT_TRUE(plan);
    return plan ? plan->time.attention_ms : 0;
  };
  EXPECT_LT(attention_ms("cp=4"), 1.5 * attention_ms("cp=1"));
}

TEST(Planner, MoeShardsLayout_IsPlannedWithGather) {
  auto request = shipped("h100-2x8", "mixtral-8x7b");
  request.fix = {"tp=1", "etp=8", "ep=1"};
  request.job.recompute = Recompute::full;
  const auto plan = make_plan(request);
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(plan->schedule.transport, "gather");
}

// MoEShard: every rank holds a slice of every expert, so that nothing idles under skew, for more bytes moved.
TEST(Planner, SkewedRouting_MovesTheAnswerFromEpToShardedExperts) {
  auto request = shipped("dgx-a100", "switch-base-16");
  request.job.phase = Phase::prefill;
  request.job.sequence = 512, request.job.global_batch = 512, request.job.micro_batch = 64;
  request.fix = {"tp=1", "pp=1"};
  const auto even = make_plan(request);
  request.routing = {RoutingProfile::Kind::zipf, 2.0, {}, "zipf:2"};
  const auto skewed = make_plan(request);
  ASSERT_TRUE(even && skewed);
  EXPECT_EQ(skewed->layout.ep, 1) << name(skewed->layout);
  // Sharding loses nothing to skew; expert parallelism does.
  request.fix = {"tp=1", "pp=1", "etp=1", "ep=8"};
  const auto parallel = make_plan(request);
  ASSERT_TRUE(parallel);
  EXPECT_GT(parallel->time.total_ms(), skewed->time.total_ms());
}

TEST(Planner, AllShippedClustersAndModels_PlanOrSayWhyNot) {
  for (const char* cluster :
       {"dgx-a100", "a800-2x8", "dgx-h100", "hgx-h200", "dgx-b200", "gb200-nvl72", "l40s-8x-pcie", "h100-16x8"})
    for (const char* model :
         {"mixtral-8x7b", "qwen3-30b-a3b", "deepseek-v3", "monta-2x70b", "switch-base-16", "pr-moe-350m-32-64"})
      for (const Phase phase : {Phase::train, Phase::prefill, Phase::decode}) {
        SCOPED_TRACE(std::string(cluster) + " " + model);
        auto request = shipped(cluster, model);
        request.job.phase = phase;
        request.job.global_batch = 288;
        request.flips = phase == Phase::decode;  // searches of their own, one phase's are enough
        const auto plan = make_plan(request);
        if (!plan) {
          EXPECT_FALSE(plan.error().constraint.empty());
          EXPECT_FALSE(plan.error().nearest_fix.empty());
          continue;
        }
        EXPECT_GT(plan->time.total_ms(), 0);
        EXPECT_LE(total_GiB(*plan), plan->memory_limit_GiB);
        EXPECT_GE(plan->forward.time_us, plan->forward.bound_us);
      }
}

}  // namespace
}  // namespace topomoe
