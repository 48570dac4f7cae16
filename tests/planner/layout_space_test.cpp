// Enumeration of layouts: what all of them satisfy, what constraints do, and how "none" is explained.
#include "planner/layout_space.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/planner/helpers.hpp"

namespace topomoe {
namespace {

LayoutConstraints constrain(const std::vector<std::string>& fix, const std::vector<std::string>& max = {}) {
  return parse_constraints(fix, max);
}

TEST(LayoutSpace, AllShippedModels_EveryLayoutHoldsItsInvariants) {
  for (const char* file : {"mixtral-8x7b", "mixtral-8x22b", "qwen3-30b-a3b", "qwen3-235b-a22b", "deepseek-v3",
                           "monta-2x70b", "switch-base-16", "pr-moe-350m-32-64"}) {
    const Model m = shipped(file);
    for (const int world : {1, 8, 16, 64, 256}) {
      Job job;
      job.global_batch = 1024;
      const auto layouts = enumerate_layouts(world, 8, m, job);
      ASSERT_TRUE(layouts) << file << ' ' << world << ' ' << layouts.error().message();
      for (const Layout& l : *layouts) {
        EXPECT_EQ(l.world, world);
        EXPECT_NO_THROW(check(l, m.experts)) << name(l);
        EXPECT_EQ(m.heads % l.tp, 0);
        EXPECT_LE(l.tp, 8);
        EXPECT_EQ(job.global_batch % (l.dp * job.micro_batch), 0);
        EXPECT_EQ(l.sequence_parallel, l.tp > 1);
        if (l.cp > 1) {
          EXPECT_EQ(job.sequence % (2 * l.cp), 0);
          EXPECT_GE(job.sequence / l.cp, 1024);
        }
      }
      for (std::size_t i = 1; i < layouts->size(); ++i) EXPECT_NE((*layouts)[i - 1], (*layouts)[i]);
      EXPECT_EQ(*layouts, *enumerate_layouts(world, 8, m, job));
    }
  }
}

TEST(LayoutSpace, OneNodeMixtral_ByHand) {
  // World 2, 32 layers: tp 1 pp 1 (ep 1, 2, and MoEShard: ep 1 etp 2), the same with cp 2, tp 1 pp 2 (ep 1), tp 2
  // pp 1 with etp 1 (ep 1, 2) and etp 2 (ep 1): ten, none with both EP and EDP above 1.
  const auto layouts = enumerate_layouts(2, 8, shipped("mixtral-8x7b"), Job{});
  ASSERT_TRUE(layouts);
  EXPECT_EQ(layouts->size(), 10u);
  EXPECT_EQ(name(layouts->front()), "TP1 CP1 DP2 PP1 | ETP1 EP1 EDP2");
  EXPECT_EQ(name(layouts->back()), "TP2 CP1 DP1 PP1 | ETP2 EP1 EDP1, SP");
}

TEST(LayoutSpace, BothExpertOrders_WhereTheyDiffer) {
  const Model m = shipped("mixtral-8x7b");
  const auto count_inner = [&](const LayoutConstraints& c) {
    const auto layouts = enumerate_layouts(16, 8, m, Job{}, c);
    return std::count_if(layouts->begin(), layouts->end(),
                         [](const Layout& l) { return l.expert_order == ExpertOrder::edp_inner; });
  };
  EXPECT_EQ(count_inner(constrain({"tp=1", "cp=1", "pp=1", "ep=8"})), 1);
  LayoutConstraints megatron = constrain({"tp=1", "pp=1", "ep=8"});
  megatron.target = target_limits("megatron");
  EXPECT_EQ(count_inner(megatron), 0);
}

TEST(LayoutSpace, Constraints_AreHonoured) {
  const auto layouts =
      enumerate_layouts(64, 8, shipped("qwen3-30b-a3b"), Job{}, constrain({"tp=4,pp=2,cp=1"}, {"ep=8", "dp=8"}));
  ASSERT_TRUE(layouts);
  for (const Layout& l : *layouts) {
    EXPECT_EQ(l.tp, 4);
    EXPECT_EQ(l.pp, 2);
    EXPECT_LE(l.ep, 8);
    EXPECT_EQ(l.dp, 8);
  }
  const auto sharded = enumerate_layouts(8, 8, shipped("mixtral-8x7b"), Job{}, constrain({"tp=1", "etp=8", "ep=1"}));
  ASSERT_TRUE(sharded);  // MoEShard
  EXPECT_EQ(name(sharded->front()), "TP1 CP1 DP8 PP1 | ETP8 EP1 EDP1");
  const auto cp = enumerate_layouts(16, 8, shipped("mixtral-8x7b"), Job{}, constrain({"cp=2"}));
  ASSERT_TRUE(cp);
  EXPECT_EQ(cp->front().cp, 2);
}

TEST(LayoutSpace, DeepSeek61Layers_PipelinesAlmostEvenly) {
  const auto layouts = enumerate_layouts(256, 8, shipped("deepseek-v3"), Job{}, constrain({"pp=4", "ep=64", "tp=1"}));
  ASSERT_TRUE(layouts) << layouts.error().message();
  EXPECT_EQ(name(layouts->front()), "TP1 CP1 DP64 PP4 | ETP1 EP64 EDP1");
}

TEST(LayoutSpace, Infeasible_NamesConstraintAndAFixThatWorks) {
  const Model mixtral = shipped("mixtral-8x7b");
  const auto why = [&](int world, const LayoutConstraints& c, Job job = {}) {
    const auto layouts = enumerate_layouts(world, 8, mixtral, job, c);
    return layouts ? std::string("feasible") : layouts.error().message();
  };
  EXPECT_EQ(why(16, constrain({"ep=5"})), "ep = 5 does not divide the 8 experts; ep=4 would fit instead of 5");
  EXPECT_EQ(why(32, constrain({"tp=16"})),
            "tp = 16 does not lie within a node of 8 GPUs; tp=8 would fit instead of 16");
  EXPECT_EQ(why(16, constrain({"tp=3"})), "tp*cp*pp = 3*1*1 does not divide the 16 GPUs; tp=2 would fit instead of 3");
  EXPECT_EQ(why(16, constrain({"pp=1", "tp=2", "etp=4", "ep=2"})),
            "etp = 4 is neither 1 nor tp = 2 (and ep = 2 is not 1); ep=1 would fit instead of 2");
  EXPECT_EQ(why(16, constrain({"tp=3", "ep=7"})),
            "tp*cp*pp = 3*1*1 does not divide the 16 GPUs; no single change helps; ep=8 with tp=4 would fit");
  EXPECT_HAS(why(64, constrain({"tp=1", "pp=1", "cp=1"}, {"dp=32"})), "dp is at most 32, but needs 64; ");
  Job odd;
  odd.global_batch = 100;
  EXPECT_EQ(
      why(64, constrain({"tp=1", "pp=1", "cp=1"}), odd),
      "global_batch = 100 is not a multiple of dp * micro_batch = 64 * 1 (tp = 1, cp = 1, pp = 1); pp=16 would fit "
      "instead of 1");
  odd.global_batch = 1;
  EXPECT_HAS(why(13, {}, odd), "; global_batch=13 would fit");
  // 13 is prime: TP = 13 does not divide 32 heads, PP = 13 puts 3 of 32 layers on a stage, 22 % above the mean.
  EXPECT_HAS(why(13, constrain({}, {"dp=1"}), odd), "; 16 GPUs would fit");
}

TEST(LayoutSpace, Variants_ByHand) {
  // 56 layers over 8 stages: 7 a stage, in 1 or 7 virtual ones. A rank's share of 256 over DP 8 is 32 sequences:
  // micro-batches of 1, 2, 4 leave 32, 16, 8 of them, multiples of 8; of 8 leave 4, which cannot interleave.
  const Model m = shipped("mixtral-8x22b");
  const Layout l = make_layout(128, 2, 1, 8, 1, 8);
  Job job;
  job.micro_batch = 0, job.recompute = Recompute::automatic;
  std::vector<std::pair<int, int>> seen;  // micro-batch, vpp; each with three ways to recompute
  const auto all = variants(l, m, job);
  for (std::size_t i = 0; i < all.size(); i += 3) seen.emplace_back(all[i].micro_batch, all[i].vpp);
  using P = std::pair<int, int>;
  EXPECT_EQ(seen, (std::vector<P>{P{1, 1}, P{1, 7}, P{2, 1}, P{2, 7}, P{4, 1}, P{4, 7}, P{8, 1}, P{16, 1}, P{32, 1}}));
  EXPECT_EQ(variants(l, m, job, constrain({"vpp=7", "mbs=2"})).size(), 3u);
  job.micro_batch = 1, job.recompute = Recompute::selective;
  EXPECT_EQ(variants(l, m, job).size(), 2u);
  EXPECT_EQ(variants(l, m, job, constrain({}, {"vpp=2"})).size(), 1u);
  const auto layouts = enumerate_layouts(128, 8, m, job, constrain({"vpp=5"}));
  ASSERT_FALSE(layouts);
  EXPECT_HAS(layouts.error().message(), "vpp = 5 does not interleave");
}

TEST(LayoutSpace, Zero_IsEscalatedWithoutAPipelineOnly) {
  const Model m = shipped("mixtral-8x7b");
  const auto stages = [&](const Layout& l, const LayoutConstraints& c) {
    std::vector<int> zeros;
    for (const Variant& v : variants(l, m, Job{}, c)) zeros.push_back(v.zero);
    return zeros;
  };
  const Layout one = make_layout(16, 1, 1, 1, 1, 8);
  EXPECT_EQ(stages(one, {}), std::vector<int>{1});
  LayoutConstraints nothing_fits;
  nothing_fits.unasked_zero = kMostZero;
  EXPECT_EQ(stages(one, nothing_fits), (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(stages(one, constrain({}, {"zero=2"})), (std::vector<int>{1, 2}));
  EXPECT_EQ(stages(make_layout(16, 1, 1, 2, 1, 8), constrain({"vpp=1"})), std::vector<int>{1});
  EXPECT_EQ(stages(make_layout(8, 8, 1, 1, 8, 1), {}), std::vector<int>{1});  // nothing to share out
  LayoutConstraints c;
  c.target = target_limits("megatron");
  EXPECT_EQ(stages(one, c), std::vector<int>{1});
  for (const int zero : {0, 1, 2, 3}) {
    const auto layouts = enumerate_layouts(16, 8, m, Job{}, constrain({"zero=" + std::to_string(zero)}));
    ASSERT_TRUE(layouts);
    for (const Layout& l : *layouts) {
      EXPECT_EQ(l.zero, zero);
      EXPECT_TRUE(zero < 2 || l.pp == 1);
      for (const int z : stages(l, constrain({"zero=" + std::to_string(zero)}))) EXPECT_EQ(z, zero);
    }
  }
}

TEST(LayoutSpace, Zero_IsRefusedByName) {
  const Model m = shipped("mixtral-8x7b");
  const auto why = [&](const LayoutConstraints& c) { return enumerate_layouts(16, 8, m, Job{}, c).error().message(); };
  EXPECT_HAS(why(constrain({"zero=2", "pp=2"})), "zero = 2 needs whole micro-batches: pp = 1, not 2; pp=1 would fit");
  LayoutConstraints c = constrain({"zero=2"});
  c.target = target_limits("megatron");
  EXPECT_HAS(why(c), "target megatron has no zero = 2, at most 1; it would fit without target megatron");
  EXPECT_HAS(message_of([] { constrain({"zero=4"}); }), "--fix: zero=4: zero must be 0, 1, 2 or 3");
  EXPECT_HAS(message_of([] { constrain({"zero=-1"}); }), "zero must be 0, 1, 2 or 3");
  Job decode;
  decode.phase = Phase::decode;
  EXPECT_HAS(message_of([&] { enumerate_layouts(16, 8, m, decode, constrain({"zero=1"})); }), "zero=1: inference has");
}

TEST(LayoutSpace, Megatron_TakesOnlyWhatItCanRun) {
  // 4 KV heads: TP 8 would hold each twice, which Megatron refuses; MoE with TP trains only with SP.
  const Model m = shipped("qwen3-30b-a3b");
  LayoutConstraints c;
  c.target = target_limits("megatron");
  const auto layouts = enumerate_layouts(64, 8, m, Job{}, c);
  ASSERT_TRUE(layouts);
  for (const Layout& l : *layouts) {
    EXPECT_EQ(m.kv_heads % l.tp, 0);
    EXPECT_TRUE(l.etp == 1 || l.etp == l.tp);
    EXPECT_EQ(l.expert_order, ExpertOrder::ep_inner);
  }
  Job job;
  job.sequence_parallel = SequenceParallel::off;
  c.fix = {{"tp", 2}};
  const auto none = enumerate_layouts(64, 8, m, job, c);
  ASSERT_FALSE(none);
  EXPECT_HAS(none.error().message(), "only with sequence parallelism");
}

TEST(LayoutSpace, Infeasible_RandomRequests_FixIsTrue) {
  std::mt19937 random(5);
  const Model m = shipped("qwen3-30b-a3b");
  int failed = 0;
  for (int round = 0; round < 60; ++round) {
    const int world = 8 * static_cast<int>(random() % 8 + 1);
    const int ep = static_cast<int>(random() % 20 + 1);
    const auto layouts = enumerate_layouts(world, 8, m, Job{}, constrain({"ep=" + std::to_string(ep)}));
    if (layouts) continue;
    ++failed;
    const std::string& fix = layouts.error().nearest_fix;
    if (fix.rfind("ep=", 0) != 0) continue;
    EXPECT_TRUE(enumerate_layouts(world, 8, m, Job{}, constrain({fix.substr(0, fix.find(' '))}))) << fix;
  }
  EXPECT_GT(failed, 10);
}

TEST(LayoutSpace, SequenceParallel_FollowsTheJob) {
  const Model m = shipped("mixtral-8x7b");
  const auto sp_with_tp = [&](Phase phase, SequenceParallel choice) {
    Job job;
    job.phase = phase, job.sequence_parallel = choice, job.micro_batch = 8;
    const auto layouts = enumerate_layouts(8, 8, m, job, constrain({"tp=8"}));
    return layouts ? layouts->front().sequence_parallel : false;
  };
  EXPECT_TRUE(sp_with_tp(Phase::train, SequenceParallel::automatic));
  EXPECT_FALSE(sp_with_tp(Phase::train, SequenceParallel::off));
  EXPECT_FALSE(sp_with_tp(Phase::decode, SequenceParallel::automatic));
  EXPECT_TRUE(sp_with_tp(Phase::decode, SequenceParallel::on));
}

TEST(LayoutSpace, ParseConstraints_ErrorsByName) {
  const LayoutConstraints c = constrain({"tp=8,pp=2", "cp=1"}, {"ep=64"});
  EXPECT_EQ(c.fix.at("pp"), 2);
  EXPECT_EQ(c.max.at("ep"), 64);
  EXPECT_HAS(message_of([] { constrain({"xp=8"}); }),
             "--fix: xp=8: unknown key \"xp\"; known: tp, cp, dp, pp, etp, ep, edp");
  for (const char* bad : {"tp=0", "tp=-8", "tp=8.5", "tp=", "tp=99999999999", "tp=8x"})
    EXPECT_HAS(message_of([&] { constrain({}, {bad}); }),
               std::string("--max: ") + bad + ": tp must be a positive integer");
  for (const char* bad : {"", "tp", "tp=8,"}) EXPECT_HAS(message_of([&] { constrain({bad}); }), "must read like tp=8");
  EXPECT_HAS(message_of([] { constrain({"tp=8", "tp=4"}); }), "tp was already given as 8");
  EXPECT_HAS(message_of([] { target_limits("fairseq"); }), "must be one of any, megatron, deepspeed");
  LayoutConstraints zero;
  zero.fix["tp"] = 0;
  EXPECT_HAS(message_of([&] { enumerate_layouts(8, 8, shipped("mixtral-8x7b"), Job{}, zero); }), "constraint: tp=0");
  EXPECT_HAS(message_of([] { enumerate_layouts(0, 8, shipped("mixtral-8x7b"), Job{}); }), "world: 0");
}

}  // namespace
}  // namespace topomoe
