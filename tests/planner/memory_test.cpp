// Memory by hand arithmetic, and how it must move with layers, pipeline, skew and recomputation.
#include "planner/memory.hpp"

#include <gtest/gtest.h>

#include "planner/layout_space.hpp"
#include "tests/planner/helpers.hpp"

namespace topomoe {
namespace {

Model with_layers(Model m, int layers) {  // all of them MoE
  m.layers = layers;
  m.is_moe.assign(static_cast<std::size_t>(layers), 1);
  return m;
}

// DeepSeek-V3 on 256 GPUs, TP1 PP4 VPP4 EP64, a stage of 16 MoE layers without embeddings. Parameters of a layer:
//   attention 7168*1536 + 1536*128*192 + 7168*(512+64) + 512*128*(128+128) + 128*128*7168 = 187.1e6
//   router 7168*256 = 1.8e6, shared expert 3*7168*2048 = 44.0e6, 256/64 = 4 experts 176.2e6; sum 409.1e6
//   16 layers: 6.55e9. Weights and gradients: 6 B each = 36.6 GiB.
//   Optimizer: 12 B, dense 3.73e9 over DP = 64, experts 2.82e9 over EDP = 1: 0.65 + 31.5 = 32.2 GiB.
TEST(Memory, DeepSeekV3Stage_MatchesHandArithmetic) {
  Layout l = make_layout(256, 1, 1, 4, 1, 64);
  l.vpp = 4;
  const MemoryBreakdown stage = estimate_stage_memory(with_layers(shipped("deepseek-v3"), 64), Job{}, l, 1);
  EXPECT_NEAR(in_GiB(stage.weights + stage.gradients), 36.4, 36.4 * 0.02);
  EXPECT_NEAR(in_GiB(stage.optimizer), 32.1, 32.1 * 0.02);
  const RankParameters p = rank_parameters(with_layers(shipped("deepseek-v3"), 64), l, 1);
  EXPECT_NEAR(p.routed, 16 * 4 * 44.04e6, 1e6);
  EXPECT_NEAR(p.dense(), 16 * (187.1e6 + 1.8e6 + 44.04e6), 3e6);
}

// Each stage's share times the ranks that hold it is the model: no kind is counted twice or left out.
TEST(Memory, PyramidOfTwoKinds_StagesSumToTheModel) {
  const Model m = shipped("pr-moe-350m-32-64");
  for (const int pp : {1, 2, 4, 6}) {
    const Layout l = make_layout(8 * pp, 1, 1, pp, 1, 8);
    double sum = 0, last = 0;
    for (const StageClass& c : stage_classes(m, l)) {
      const RankParameters p = rank_parameters(m, l, c);
      sum += c.count * (p.dense() + 8 * p.routed);
      if (c.last) last = p.routed;
    }
    if (pp > 1) sum -= embedding_parameters(m);  // tied: the last stage has the table too
    EXPECT_NEAR(sum / total_parameters(m), 1, 1e-12) << pp;
    // PP 6: the last 4 layers hold both layers of 64 experts, 2 * 64 / 8 experts a rank; PP 1 all 10 * 32 / 8 more.
    if (pp == 6) {
      EXPECT_EQ(last, 16 * expert_parameters(m, 1));
    }
    if (pp == 1) {
      EXPECT_EQ(last, 16 * expert_parameters(m, 1) + 40 * expert_parameters(m, 0));
    }
  }
}

// MTP layers are of the last kind, on the last stage: its 64 experts, router and shared expert once more.
TEST(Memory, PyramidWithMtp_AddsALayerOfTheLastKind) {
  Model m = shipped("pr-moe-350m-32-64");
  const Layout l = make_layout(24, 1, 1, 6, 1, 4);
  const RankParameters without = rank_parameters(m, l, 5);
  m.mtp_layers = 1;
  const RankParameters with = rank_parameters(m, l, 5);
  EXPECT_EQ(with.routed - without.routed, 64 / 4 * expert_parameters(m, 1));
  EXPECT_EQ(with.replicated - without.replicated, router_parameters(m, 1) + 2.0 * 1024 * 1024);
  EXPECT_EQ(rank_parameters(m, l, 0).routed, 2 * 32 / 4 * expert_parameters(m, 0));
}

// A stage of one kind needs as much as that kind's model; a stage of both lies between.
TEST(Memory, PyramidOfTwoKinds_EachStageCountsItsOwnKind) {
  const Model m = shipped("pr-moe-350m-32-64");
  Model few = m, many = m;
  few.moe_kinds.clear(), many.moe_kinds.clear(), many.experts = 64;
  for (Model* one : {&few, &many})
    for (auto& kind : one->is_moe) kind = kind > 0;
  Job job;
  job.sequence = 1024, job.micro_batch = 1;
  const Layout l = make_layout(24, 1, 1, 6, 1, 4);
  const auto total = [&](const Model& model, int stage) {
    return estimate_stage_memory(model, job, l, stage).total().value;
  };
  for (int stage = 0; stage < 5; ++stage) EXPECT_EQ(total(m, stage), total(few, stage)) << stage;
  EXPECT_EQ(total(m, 5), total(many, 5));
  EXPECT_GT(total(many, 5), total(few, 5));
}

// A model of one MoE layer, tiny numbers. TP2 with ETP1 EP2 on 2 ranks: T = 16 tokens, h = 8, bf16, SP.
TEST(Memory, TinyTraining_EveryBucketByHand) {
  Model m;
  m.name = "tiny";
  m.hidden = 8, m.layers = 1, m.heads = 4, m.kv_heads = 2, m.head_dim = 2, m.vocab = 10;
  m.experts = 4, m.top_k = 2, m.expert_ffn = 3, m.shared_ffn = 4, m.is_moe = {1};
  Job job;
  job.sequence = 16, job.global_batch = 2;
  Layout l = make_layout(2, 2, 1, 1, 1, 2);
  l.sequence_parallel = true;
  const RankParameters p = rank_parameters(m, l, 0);
  EXPECT_EQ(p.tensor_sharded, 192 / 2 + 3 * 8 * 4 / 2);  // attention 192, shared 96
  EXPECT_EQ(p.replicated, 8 * 4);                        // router
  EXPECT_EQ(p.routed, 4 * 72 / 2);                       // over ETP*EP, not over TP
  EXPECT_EQ(p.embedding, 2 * 80 / 2);
  MemoryOptions options;
  options.skew = 1.5;
  const MemoryBreakdown b = estimate_memory(m, job, l, options);
  const double parameters = 144 + 32 + 144 + 80;
  EXPECT_EQ(b.weights.value, 2 * parameters);
  EXPECT_EQ(b.gradients.value, 4 * parameters);
  EXPECT_EQ(b.optimizer.value, 12 * parameters);  // DP = EDP = 1
  // 8 local tokens around, 16 inside. Attention: input 8*8*2, norm 128, QKV 16*(2+2)*2*2 = 256, out 16*2*(2*2+4) = 256.
  // FFN: residual 128, norm 128, router 8*4*4 = 128, shared 16*3*2*2 = 192.
  // Routed rows 1.5 * 2 * 16 * 1/2 = 24: in and out 2*24*8*2 = 768, expert 24*3*3*2 = 432.
  EXPECT_EQ(b.activations.value, 128 + 128 + 256 + 256 + 128 + 128 + 128 + 192 + 768 + 432);
  EXPECT_EQ(b.logits.value, 16 * 5 * 6);
  EXPECT_EQ(b.dispatch_buffers.value, (16 + 24) * 8 * 2);
  EXPECT_EQ(b.comm_buffers.value, GiB(1).value);
  EXPECT_EQ(b.kv_cache.value, 0);
  double sum = 0;
  for (const auto& [name, amount] : b.buckets()) sum += amount.value;
  EXPECT_EQ(b.total().value, sum);
  // full: the layer's input for keeping, and all of one layer while its backward runs: the same here.
  job.recompute = Recompute::full;
  EXPECT_EQ(estimate_memory(m, job, l, options).activations, b.activations);
}

// The tiny model with 4 layers and four data-parallel copies: 4 * (144 + 32 + 144) + 80 = 1360 parameters a rank, all
// of them shared by 4 (DP = EDP = 4): 340. In full at one time: a layer, 320.
TEST(Memory, ZeroStages_ByHand) {
  Model m;
  m.name = "tiny";
  m.hidden = 8, m.layers = 4, m.heads = 4, m.kv_heads = 2, m.head_dim = 2, m.vocab = 10;
  m.experts = 4, m.top_k = 2, m.expert_ffn = 3, m.shared_ffn = 4, m.is_moe = {1, 1, 1, 1};
  Job job;
  job.sequence = 16, job.global_batch = 4;
  Layout l = make_layout(8, 2, 1, 1, 1, 2);
  l.sequence_parallel = true;
  const auto stage = [&](int zero) {
    l.zero = zero;
    return estimate_memory(m, job, l);
  };
  const MemoryBreakdown none = stage(0), one = stage(1), two = stage(2), three = stage(3);
  EXPECT_EQ(none.optimizer.value, 12 * 1360);
  EXPECT_EQ(one.optimizer.value, 12 * 340);
  EXPECT_EQ(one.weights.value, 2 * 1360);
  EXPECT_EQ(one.gradients.value, 4 * 1360);
  EXPECT_EQ(two.gradients.value, 4 * (340 + 320));
  EXPECT_EQ(two.weights.value, one.weights.value);
  EXPECT_EQ(three.weights.value, 2 * (340 + 2 * 320));
  EXPECT_EQ(three.gradients.value, two.gradients.value);
  EXPECT_EQ(three.optimizer.value, one.optimizer.value);
  EXPECT_EQ(three.activations.value, none.activations.value);
  m.layers = 1, m.is_moe = {1};  // of a single layer there is never more than all of it
  EXPECT_EQ(stage(3).weights.value, stage(1).weights.value);
}

TEST(Memory, Decode_KvCacheByHand) {
  Job job;
  job.phase = Phase::decode, job.sequence = 1000, job.micro_batch = 8, job.global_batch = 64;
  // Mixtral: 32 layers * 8 KV heads / TP 2 * 128 * 2 (K, V) * 2 B * 1000 tokens * 64/4 sequences
  const MemoryBreakdown b = estimate_memory(shipped("mixtral-8x7b"), job, make_layout(8, 2, 1, 1, 1, 8));
  EXPECT_EQ(b.kv_cache.value, 32.0 * 4 * 128 * 2 * 2 * 1000 * 16);
  EXPECT_EQ(b.gradients.value + b.optimizer.value, 0);
  // MLA: 576 numbers a token and layer, on each TP rank; fp8 weights, one byte each.
  const Model v3 = shipped("deepseek-v3");
  job.micro_batch = 4;
  const Layout l = make_layout(32, 2, 1, 1, 1, 32);
  const MemoryBreakdown mla = estimate_memory(v3, job, l);
  EXPECT_EQ(mla.kv_cache.value, 61.0 * 576 * 2 * 1000 * (64 / 16));
  const RankParameters p = rank_parameters(v3, l, 0);
  EXPECT_EQ(mla.weights.value, p.dense() + p.routed);
}

TEST(Memory, ReplicatedKvHeads_WhenTpExceedsThem) {
  const Model m = with_layers(shipped("qwen3-30b-a3b"), 1);  // 32 heads, 4 KV heads of 128
  const Layout l = make_layout(8, 8, 1, 1, 1, 8);
  EXPECT_EQ(rank_parameters(m, l, 0).tensor_sharded, 2.0 * 2048 * 128 * (32 / 8 + 1));
}

TEST(Memory, MoreLayers_NeverLess) {
  for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full})
    for (const int pp : {1, 2, 4}) {
      Job job;
      job.recompute = recompute;
      double previous = 0;
      for (int layers = pp; layers <= 24; ++layers) {
        const double now =
            estimate_memory(with_layers(shipped("mixtral-8x7b"), layers), job, make_layout(16, 2, 1, pp, 1, 2))
                .total()
                .value;
        EXPECT_GE(now, previous);
        previous = now;
      }
    }
}

TEST(Memory, Recompute_KeepsLess) {
  const Layout l = make_layout(64, 1, 1, 1, 1, 64);
  double previous = 1e300;
  for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
    Job job;
    job.recompute = recompute;
    const double now = estimate_memory(shipped("deepseek-v3"), job, l).activations.value;
    EXPECT_LT(now, previous);
    previous = now;
  }
}

TEST(Memory, Skew_CostsOnlyWithExpertParallelism) {
  const Model m = shipped("qwen3-30b-a3b");
  MemoryOptions skewed;
  skewed.skew = 2;
  const Layout ep = make_layout(8, 1, 1, 1, 1, 8), shard = make_layout(8, 1, 1, 1, 8, 1);
  EXPECT_GT(estimate_memory(m, Job{}, ep, skewed).total(), estimate_memory(m, Job{}, ep).total());
  EXPECT_EQ(estimate_memory(m, Job{}, shard, skewed).total(), estimate_memory(m, Job{}, shard).total());
}

TEST(Memory, ExpertParallelism_DoesNotReduceRoutedActivations) {  // Megatron-LM#6782
  const Model m = shipped("qwen3-30b-a3b");
  const auto activations = [&](int ep) {
    return estimate_memory(m, Job{}, make_layout(64, 1, 1, 1, 1, ep)).activations;
  };
  EXPECT_EQ(activations(2), activations(64));
}

TEST(Memory, FirstStageHoldsMostMicroBatches_LastHoldsLogits) {
  const Model m = with_layers(shipped("mixtral-8x7b"), 32);
  const Layout l = make_layout(64, 1, 1, 4, 1, 8);
  std::vector<MemoryBreakdown> stages;
  for (int stage = 0; stage < 4; ++stage) stages.push_back(estimate_stage_memory(m, Job{}, l, stage));
  for (std::size_t i = 1; i < 4; ++i) EXPECT_LT(stages[i].activations, stages[i - 1].activations);
  EXPECT_EQ(stages[0].activations.value, 4 * stages[3].activations.value);
  EXPECT_EQ(stages[0].logits.value, 0);
  EXPECT_GT(stages[3].logits.value, 0);
  EXPECT_GT(stages[0].weights, stages[1].weights);  // embeddings
  const MemoryBreakdown worst = estimate_memory(m, Job{}, l);
  for (const auto& stage : stages) EXPECT_LE(stage.total(), worst.total());
  Job one = Job{};  // a single micro-batch: nothing piles up
  one.global_batch = 16;
  EXPECT_EQ(estimate_stage_memory(m, one, l, 0).activations, estimate_stage_memory(m, one, l, 3).activations);
}

// Whatever the layout, parameters of all ranks cover the model once per data-parallel copy.
TEST(Memory, AllLayouts_ParametersAddUpToTheModel) {
  const Model m = shipped("mixtral-8x7b");
  const auto layouts = enumerate_layouts(32, 8, m, Job{});
  ASSERT_TRUE(layouts);
  for (const Layout& l : *layouts) {
    double routed = 0, rest = 0;
    for (int stage = 0; stage < l.pp; ++stage) {
      const RankParameters p = rank_parameters(m, l, stage);
      routed += p.routed * l.etp * l.ep;
      rest += (p.tensor_sharded + p.embedding) * l.tp + p.replicated;
    }
    EXPECT_NEAR((routed + rest) / total_parameters(m), 1, 1e-12) << name(l);
  }
}

}  // namespace
}  // namespace topomoe
