// Layers outside the experts: what links take of them, and what short parts of a ring cost.

#include "planner/layer_costs.hpp"

#include <gtest/gtest.h>

#include "planner/price.hpp"
#include "planner/rates/builtin.hpp"
#include "planner/schedules/build.hpp"
#include "planner/step_time.hpp"
#include "tests/planner/helpers.hpp"

namespace topomoe {
namespace {

Topology cluster(int gpus) {
  return resize_hosts(read_topology_file(TOPOMOE_SOURCE_DIR "/configs/clusters/h100-1024x8.json"), gpus, nullptr);
}

Machine training_machine(const Topology& t) {
  Machine m = machine_of(t, DType::bf16, builtin_calibrations());
  set_phase(m, Phase::train);
  return m;
}

Model dense() {
  Model m;
  m.name = "dense", m.hidden = 4096, m.layers = 8, m.heads = 32, m.kv_heads = 8, m.head_dim = 128, m.vocab = 32000;
  m.dense_ffn = 14336;
  m.is_moe.assign(8, 0);
  return m;
}

LayerCosts costs(const Machine& machine, int gpus, int tp, int cp, int sequence) {
  Job job;
  job.sequence = sequence, job.global_batch = gpus;
  return layer_costs(dense(), job, make_layout(gpus, tp, cp, 1, 1, 1), machine, 8);
}

// All-gather and reduce-scatter of 4,096 tokens of 4,096 BF16 on 8 GPUs, once around attention and once around the FFN.
TEST(LayerCosts, TpIsLinkTime_InsideTheNodeOrBetween) {
  const Topology t = cluster(16);
  const Machine machine = training_machine(t);
  const LayerCosts inside = costs(machine, 16, 8, 1, 4096);
  const CollectiveGroup group = regular_group(8, 1);
  const double bytes = 4096.0 * 4096 * 2;
  const double gathered = machine.collective_s(Collective::all_gather, bytes / 8, group) +
                          machine.collective_s(Collective::reduce_scatter, bytes, group);
  for (const PassCost& c : {inside.attention, inside.dense}) {
    EXPECT_NEAR(c.forward_links.node_s, gathered, 1e-12);
    EXPECT_NEAR(c.backward_links.node_s, gathered, 1e-12);
    EXPECT_EQ(c.forward_links.between_s, 0);
    EXPECT_GT(c.forward_s, c.forward_links.node_s);
  }
  const LayerCosts between = costs(machine, 16, 16, 1, 4096);
  EXPECT_EQ(between.attention.forward_links.node_s, 0);
  EXPECT_GT(between.attention.forward_links.between_s, 0);
  EXPECT_EQ(costs(machine, 16, 1, 1, 4096).attention.forward_links.node_s, 0);
}

// Four GPUs take a quarter of a sequence each. Of 4K that is 1,024 tokens, for which attention is slow; of 128K it is
// 32,768, for which it is not.
TEST(LayerCosts, ShortPartsOfARing_CostMoreThanTheirShare) {
  const Topology t = cluster(8);
  const Machine machine = training_machine(t);
  const auto over_share = [&](int sequence) {
    const auto attention = [&](int cp) {
      const PassCost c = costs(machine, 8, 1, cp, sequence).attention;
      return c.forward_s + c.backward_s;
    };
    return 4 * attention(4) / attention(1);
  };
  EXPECT_GT(over_share(4096), 1.1);
  EXPECT_LT(over_share(131072), 1.05);
  EXPECT_GT(over_share(131072), 0.99);
}

// Two kinds of stages; the second is slower by its MoE layers: 4 x 2 s + 1 s against 2 s. Of 3 micro-batches its links
// take 3 x (0.2 + 0.1) s, and sends between stages 0.5 s.
TEST(StepTime, LinksBesideMoe_AreOfTheSlowestStage) {
  StepCosts c;
  c.stages = {{1, 0, 2, {1, 1}}, {3, 4, 1, {0.2, 0.1}}};
  c.micro_batches = 3, c.moe_forwards = 1, c.between_stages_s = 0.5;
  const MoeTimes moe{0.5, 1.5};
  EXPECT_NEAR(links_beside_moe(c, moe, true).node_s, 0.6, 1e-12);
  EXPECT_NEAR(links_beside_moe(c, moe, true).between_s, 0.8, 1e-12);
  EXPECT_NEAR(links_beside_moe(c, moe, false).node_s, 1.1, 1e-12);
}

// Half of the rate in a step: the experts and what moves rows take twice as long, links do not, and bounds stay.
TEST(Price, WhatAStepGetsOfKernels_AppliesToAllThatTheGpuDoes) {
  const Topology t = cluster(16);
  const Layout layout = make_layout(16, 1, 1, 1, 1, 8);
  const Schedule s = find_transport("flat").build({TokenSplit::sliced, 1, 1, 8, false, 1, 1});
  const Router router(t);
  TrafficModel traffic(router);
  const RankGroups groups(layout, 8);
  Machine whole = machine_of(t, DType::bf16, builtin_calibrations()), half = whole;
  half.efficiency.in_step = 0.5;
  const std::vector<double> popularity(8, 1.0 / 8);
  const auto price = [&](const Machine& machine) {
    return LayerPricer(traffic, machine, groups, {4096, 14336, 8, 2, 2, 3}, popularity, 8192).price(s, false);
  };
  const PredictedPass a = price(whole), b = price(half);
  const double launch = whole.efficiency.launch.value * 1e6;
  int moved = 0, sent = 0, computed = 0;
  for (std::size_t i = 0; i < a.steps.size(); ++i) {
    const double before = a.steps[i].alone_us, after = b.steps[i].alone_us;
    const StepKind kind = s.forward[i].kind;
    if (kind == StepKind::exchange) {
      ++sent;
      EXPECT_EQ(after, before);
    } else if (kind == StepKind::expert_forward) {
      ++computed;
      EXPECT_NEAR(after, 2 * before, 1e-6 * before);
    } else if (kind == StepKind::pack || kind == StepKind::combine) {
      ++moved;
      EXPECT_NEAR(after - launch, 2 * (before - launch), 1e-6 * before);
    }
  }
  EXPECT_EQ(sent, 2);
  EXPECT_EQ(computed, 1);
  EXPECT_EQ(moved, 2);
  EXPECT_EQ(a.bound_us, b.bound_us);
}

// A checkpoint of one byte a weight is kept and read so: memory and the time of a layer that reads weights say the
// same.
TEST(LayerCosts, QuantisedWeights_AreReadAsTheyAreKept) {
  const Topology t = cluster(8);
  Machine plain = machine_of(t, DType::bf16, builtin_calibrations()), quantised = plain, train = plain;
  set_phase(plain, Phase::decode), set_phase(quantised, Phase::decode, 1), set_phase(train, Phase::train, 1);
  // One row through 8,192 x 8,192: 134.2 MB, 67.1 MB of which are left; 3,350 GB/s.
  const double both = plain.compute->gemm(1, 8192, 8192).time_us, half = quantised.compute->gemm(1, 8192, 8192).time_us;
  EXPECT_GT(both, 134.2e6 / 3350e3);
  EXPECT_LT(half, 0.6 * both);
  EXPECT_GT(half, 67.1e6 / 3350e3);
  const std::vector<double> rows(8, 4);
  const double wide = plain.compute->expert_ffn(rows, 4096, 14336, 3, FfnKernel::fused).time_us,
               narrow = quantised.compute->expert_ffn(rows, 4096, 14336, 3, FfnKernel::fused).time_us;
  EXPECT_NEAR(narrow / wide, 0.5, 0.05);
  // Products stay in BF16, and training keeps BF16 weights.
  EXPECT_NEAR(quantised.compute->gemm(8192, 8192, 8192).time_us / plain.compute->gemm(8192, 8192, 8192).time_us, 1,
              0.1);
  EXPECT_EQ(train.weight_bytes, 0);
  EXPECT_NE(quantised.sources[0].source.find("weights of 1 bytes"), std::string::npos);
}

}  // namespace
}  // namespace topomoe
