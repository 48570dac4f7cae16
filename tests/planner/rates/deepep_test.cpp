#include "planner/rates/deepep.hpp"

#include <cmath>

#include "planner/rates/builtin.hpp"
#include "planner/rates/machine_figures.hpp"
#include "tests/planner/rates/support.hpp"

namespace topomoe {
namespace {

using rates_test::cluster;
using rates_test::contains;
using rates_test::refusal;

DeepEpModel model_on(const std::string& name) {
  return DeepEpModel(machine_figures(cluster(name)), builtin_calibrations());
}

EpRequest request(EpOperation op, double tokens, int nodes, int sms) {
  EpRequest r;
  r.operation = op, r.tokens = tokens, r.nodes = nodes, r.ranks = 8 * nodes, r.sms = sms;
  return r;
}

// The README of the measurements: E = 256, k = 8.
TEST(DistinctGroups, EqualTheFormula) {
  EXPECT_NEAR(distinct_groups(256, 2, 8), 1.99, 0.005);
  EXPECT_NEAR(distinct_groups(256, 4, 8), 3.61, 0.006);
  EXPECT_NEAR(distinct_groups(256, 8, 8), 5.30, 0.006);
  EXPECT_DOUBLE_EQ(distinct_groups(256, 1, 8), 1);
  EXPECT_NEAR(distinct_groups(8, 8, 3), 3, 1e-12);            // one expert a group
  EXPECT_NEAR(distinct_groups(4, 2, 2), 1 + 2.0 / 3, 1e-12);  // the second of 3 left: 2 lie elsewhere
  // At most 4 of 8 nodes: of all draws but the few with 3 or fewer distinct ones, exactly 4.
  EXPECT_NEAR(distinct_groups(256, 8, 8, 4), 3.98, 0.01);
  EXPECT_DOUBLE_EQ(distinct_groups(256, 8, 8, 8), distinct_groups(256, 8, 8));
}

TEST(DeepEp, MeasuredShapes_AreTakenAsTheyAre) {
  const DeepEpModel model = model_on("hgx-h200");
  const EpEstimate e = model.estimate(request(EpOperation::dispatch, 4096, 2, 24));
  EXPECT_NEAR(e.time_us, 748.87, 0.01);
  EXPECT_TRUE(e.source.starts_with("measured: h200-sxm dispatch, 16 GPUs on 2 nodes, 24 SMs")) << e.source;
  EXPECT_GT(e.notify_us, 30);
  EXPECT_LT(e.notify_us, 200);
  const EpEstimate one = model.estimate(request(EpOperation::combine, 4096, 1, 20));
  EXPECT_NEAR(one.time_us, 972.51, 0.01);
  EXPECT_EQ(one.notify_us, 0);
  // H100 shares every rate: scaled, not measured.
  EXPECT_TRUE(model_on("h100-2x8").estimate(request(EpOperation::dispatch, 4096, 2, 24)).source.starts_with("scaled"));
}

// SMs of B200 copy over an NVLink twice as fast, at the same clock: no request takes longer than on H100.
TEST(DeepEp, AFasterNvlinkIsNeverSlower) {
  const DeepEpModel h100 = model_on("dgx-h100"), b200 = model_on("dgx-b200");
  for (const bool low_latency : {false, true})
    for (const EpOperation op : {EpOperation::dispatch, EpOperation::combine})
      for (double tokens = 1; tokens < 1e5; tokens *= 4) {
        EpRequest r = request(op, tokens, 1, 20);
        r.low_latency = low_latency;
        const EpEstimate slow = h100.estimate(r), fast = b200.estimate(r);
        EXPECT_LE(fast.time_us, slow.time_us * (1 + 1e-12)) << tokens;
        EXPECT_LT(fast.time_us, (tokens > 1e4 ? 0.6 : 1.01) * slow.time_us) << tokens;
        EXPECT_GT(fast.high_us / fast.time_us, 1.5);
      }
}

TEST(DeepEpLaws, MonotoneInTokensAndSms_NeverBelowTheBound) {
  for (const char* name : {"hgx-h200", "h100-2x8", "dgx-a100", "dgx-b200"}) {
    const DeepEpModel model = model_on(name);
    for (const bool low_latency : {false, true})
      for (const EpOperation op : {EpOperation::dispatch, EpOperation::combine})
        for (const int nodes : {1, 2, 4, 8, 16}) {
          double before = 0;
          for (double tokens = 1; tokens < 1e6; tokens *= 2) {
            EpRequest r = request(op, tokens, nodes, 20);
            r.low_latency = low_latency;
            const EpEstimate e = model.estimate(r);
            EXPECT_GE(e.time_us, before) << name << nodes << " " << tokens;
            EXPECT_LE(e.bound_us, e.low_us * (1 + 1e-12)) << name << nodes << " " << tokens;
            EXPECT_LE(e.low_us, e.time_us);
            before = e.time_us;
          }
          const auto at = [&](int sms) { return model.estimate(request(op, 65536, nodes, sms)).time_us; };
          if (nodes > 2) {
            EXPECT_GE(at(6), at(12)) << name;
            EXPECT_GE(at(12), at(40)) << name;
          }
        }
  }
}

// Large batches on many nodes: T P d (N-1)/N over the NIC's share, whatever the SMs.
TEST(DeepEp, ManyNodes_AreBoundByTheNic) {
  const DeepEpModel model = model_on("hgx-h200");
  const EpEstimate e = model.estimate(request(EpOperation::dispatch, 131072, 4, 24));
  const double nic_us = 131072 * 7392.0 * distinct_groups(256, 4, 8) * 3 / 4 /
                        (50e3 * model.figures(EpOperation::dispatch, false).nic_share);
  EXPECT_NEAR(e.time_us, nic_us, 0.05 * nic_us);
  EXPECT_EQ(e.bottleneck, "NIC");
  EpRequest limited = request(EpOperation::dispatch, 131072, 8, 24), free = limited;
  limited.most_nodes = 4;
  EXPECT_NEAR(model.estimate(free).bound_us / model.estimate(limited).bound_us, 5.30 / 3.98, 0.01);
  // BF16 instead of FP8 with scales: 14,336 bytes for 7,392.
  EpRequest wide = request(EpOperation::dispatch, 131072, 4, 24);
  wide.token_bytes = 14336;
  EXPECT_NEAR(model.estimate(wide).bound_us / e.bound_us, 14336.0 / 7392, 1e-9);
}

// Without curves of two nodes a combine touches a node's sum twice: written to be sent, read to be added.
TEST(DeepEp, FittedOnOneNode_SaysLessSurely) {
  Calibration one;
  for (const Calibration& c : builtin_calibrations())
    if (c.name == "h200-sxm") one = c;
  std::erase_if(one.curves, [](const CalibrationCurve& c) { return c.nodes > 1; });
  const DeepEpModel model(one.machine, std::span(&one, 1));
  const EpFigures& f = model.figures(EpOperation::combine, false);
  EXPECT_EQ(f.node_copy_us, 2 * f.rank_copy_us);
  EXPECT_EQ(f.measured_nodes, 1);
  const EpEstimate less = model.estimate(request(EpOperation::combine, 4096, 2, 20));
  const EpEstimate more = model_on("hgx-h200").estimate(request(EpOperation::combine, 4096, 2, 20));
  EXPECT_GT(less.high_us / less.time_us, more.high_us / more.time_us);
}

TEST(DeepEp, Nonsense_IsRefused) {
  const DeepEpModel model = model_on("hgx-h200");
  const auto said = [&](auto change) {
    EpRequest r = request(EpOperation::dispatch, 100, 2, 20);
    change(r);
    return refusal([&] { model.estimate(r); });
  };
  EXPECT_TRUE(contains(said([](EpRequest& r) { r.tokens = -1; }), "tokens"));
  EXPECT_TRUE(contains(said([](EpRequest& r) { r.tokens = std::nan(""); }), "tokens"));
  EXPECT_TRUE(contains(said([](EpRequest& r) { r.top_k = 257; }), "topk"));
  EXPECT_TRUE(contains(said([](EpRequest& r) { r.sms = 0; }), "sms"));
  EXPECT_TRUE(contains(said([](EpRequest& r) { r.ranks = 12, r.nodes = 8; }), "ranks"));
  EXPECT_TRUE(contains(said([](EpRequest& r) { r.experts = 100; }), "experts"));
  EXPECT_TRUE(contains(said([](EpRequest& r) { r.most_nodes = -1; }), "nodes-per-token"));
  EXPECT_TRUE(contains(refusal([] { DeepEpModel(machine_figures(cluster("hgx-h200")), {}); }), "DeepEP"));
  EXPECT_TRUE(contains(refusal([] { model_on("l40s-8x-pcie"); }), "NVLink"));
}

}  // namespace
}  // namespace topomoe
