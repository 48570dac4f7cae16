// The exchange priced alone, and with curves measured on this very cluster: by hand.

#include "planner/exchange_price.hpp"

#include <gtest/gtest.h>

#include "planner/plan/schedule_part.hpp"
#include "planner/rates/machine_figures.hpp"
#include "planner/schedules/build.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

Rate rate(double GBps, double latency_us) { return {GBps, latency_us, Source::assumed, "test"}; }

// As tests/cluster/cluster_json.sh has it: ranks of a host share one NIC of 25 MB/s.
Topology hosts_of(int hosts, int ranks) {
  HostShape shape;
  shape.kind = "nvswitch", shape.gpus = ranks, shape.numa_nodes = 1, shape.gpus_per_pci_switch = 0, shape.nics = 1;
  shape.nvlink = shape.pcie = rate(20, 1), shape.nic = rate(0.025, 50);
  Topology t;
  t.name = "virtual";
  t.templates = {build_host(shape, {"rank", 8, 20, 0.2, 0, 0.2, 0, Source::assumed, "test"}, "host")};
  t.groups = {{0, hosts}};
  Fabric fabric;  // one leaf, on which all meet
  fabric.hosts_per_leaf = hosts;
  t.fabric = fabric;
  require_valid(t, "test");
  return t;
}

// EP 2 over two hosts, TP 8 inside: 8 groups of 2 ranks at once, and an all-gather of 8 inside.
ExchangeOffer offer() {
  ExchangeOffer o{.layout = make_layout(16, 8, 1, 1, 8, 2), .gpus_per_node = 8};
  o.widths = {1024, 1, 8, 2, 4, 3};
  o.popularity.assign(8, 1.0 / 8);
  o.tokens = 2048;
  return o;
}

Schedule sliced(int chunks) {
  return build_schedule("flat",
                        {.split = TokenSplit::sliced, .tp = 8, .etp = 8, .ep = 2, .chunks = chunks, .pieces = chunks});
}

// Half of 2 MiB of a rank's slice crosses: 8 ranks put 8 MiB on a NIC of 25 MB/s, 336 ms raw.
Calibration measured(const Topology& t) {
  Calibration c;
  c.name = "here", c.source = "test", c.machine = machine_figures(t);
  const double slope = 0.5 * 8 / 25.0 / 0.95;  // us a byte of a rank's buffer, at 95% of the NIC
  CalibrationCurve exchange{.operation = "alltoall", .gpus = 2, .nodes = 2},
      row = exchange, gather{.operation = "all_gather", .gpus = 8, .nodes = 1};
  for (double bytes = 1024; bytes <= 4194304; bytes *= 2) {
    exchange.knots.push_back({bytes, 2000 + slope * bytes});
    row.knots.push_back({bytes, 500 + slope * bytes});
    gather.knots.push_back({bytes, 1000 + bytes / 1000});
  }
  row.parameters["in_a_row"] = 1;
  c.curves = {exchange, row, gather};
  return c;
}

TEST(ExchangePrice, RowLongerThanMeasured_KeepsItsShareOfOneAlone) {
  const Topology t = hosts_of(2, 8);
  Calibration c = measured(t);
  CalibrationCurve& row = c.curves[1];
  row.knots.assign(c.curves[0].knots.begin(), c.curves[0].knots.begin() + 7);  // to 64 KiB
  for (CalibrationKnot& k : row.knots) k.time_us *= 0.98;
  const CollectiveModel model(t, {&c, 1});
  const CollectiveCurve curve = model.curve(Collective::alltoall, regular_group(1, 2));
  const double share = curve.in_a_row_us(65536) / curve.time_us(65536);
  EXPECT_NEAR(share, 0.98, 1e-6);
  EXPECT_NEAR(curve.in_a_row_us(65537) / curve.time_us(65537), share, 1e-3 * share);
  EXPECT_NEAR(curve.in_a_row_us(4194304) / curve.time_us(4194304), share, 1e-9);
}

TEST(ExchangePrice, CurveOfThisCluster_IsThePrice) {
  const Topology t = hosts_of(2, 8);
  const Calibration c = measured(t);
  ExchangePricer pricer(t, {&c, 1}, offer());
  const double slice = 2048 * 2 * 4096 / 8.0;  // 2 MiB
  const double exchange = 2000 + 0.5 * 8 / 25.0 / 0.95 * slice;
  // The gather's whole buffer: what 8 ranks received, 2 MiB each.
  const double gather = 1000 + 8 * slice / 1000;
  const PredictedPass one = pricer.price(sliced(1));
  EXPECT_NEAR(one.time_us, exchange + gather, 0.03 * exchange);
  // In four chunks the exchange pays three times what one more in a row adds, and all gathers but the last hide.
  const PredictedPass four = pricer.price(sliced(4));
  EXPECT_NEAR(four.time_us, exchange + 3 * 500 + 1000 + gather / 4, 0.03 * exchange);
  EXPECT_LT(four.time_us, one.time_us);
  ASSERT_EQ(pricer.sources(sliced(1)).size(), 2U);
  EXPECT_EQ(pricer.sources(sliced(1))[0], "alltoall over ep: measured: here alltoall, 2 GPUs on 2 nodes");
}

TEST(ExchangePrice, ItsOwnKnots_AreWithin3Percent) {
  const Topology t = hosts_of(2, 8);
  const Calibration c = measured(t);
  for (const CalibrationKnot& k : c.curves[0].knots) {
    ExchangeOffer o = offer();
    o.layout.etp = 1, o.layout.ep = 2, o.layout.edp = 8;  // whole experts: no gather
    o.layout.tp = 1, o.layout.dp = 16;
    // EP groups of neighbours would stay inside: strided they cross.
    o.layout.expert_order = ExpertOrder::edp_inner;
    o.tokens = k.size / (2 * 4096);
    ExchangePricer pricer(t, {&c, 1}, o);
    const Schedule s = build_schedule("flat", {.split = TokenSplit::sliced, .tp = 1, .etp = 1, .ep = 2});
    EXPECT_NEAR(pricer.price(s).time_us, k.time_us, 0.03 * k.time_us) << k.size;
  }
}

TEST(ExchangePrice, OtherMachinesCurve_IsNotTaken) {
  const Topology t = hosts_of(2, 8);
  Calibration c = measured(t);
  c.machine.nic_GBps *= 2;
  ExchangePricer pricer(t, {&c, 1}, offer());
  EXPECT_EQ(pricer.sources(sliced(1))[0].rfind("alltoall over ep: datasheet", 0), 0U) << pricer.sources(sliced(1))[0];
}

TEST(PricePart, AllSteps_AreTheWhole) {
  const Topology t = hosts_of(2, 8);
  const ExchangeOffer o = offer();
  const Router router(t);
  TrafficModel traffic(router);
  const Machine machine = machine_of(t, DType::f32);
  const RankGroups groups(o.layout, 8);
  const RoutingOdds odds(o.popularity, 2);
  LayerPricer pricer(traffic, machine, groups, o.widths, odds, o.tokens);
  for (const Transport& transport : transports()) {
    const ScheduleRequest request{.split = TokenSplit::sliced, .tp = 8, .etp = 8, .ep = 2, .chunks = 3, .pieces = 3};
    if (!transport.refuses(request).empty()) continue;
    const Schedule s = transport.build(request);
    const PredictedPass whole = pricer.price(s, false);
    const PredictedPass all = pricer.price(s, false, std::vector<std::uint8_t>(s.forward.size(), 1));
    EXPECT_EQ(all.time_us, whole.time_us) << transport.name;
    EXPECT_EQ(all.bound_us, whole.bound_us) << transport.name;
    for (std::size_t i = 0; i < whole.steps.size(); ++i) EXPECT_EQ(all.steps[i].end_us, whole.steps[i].end_us);
    const PredictedPass part = pricer.price(s, false, steps_of(s, Part::exchange));
    EXPECT_LT(part.time_us, whole.time_us);
    EXPECT_GT(part.time_us, 0);
    const auto chosen = steps_of(s, Part::exchange);
    for (std::size_t i = 0; i < chosen.size(); ++i)
      EXPECT_TRUE(chosen[i] != 0 || part.steps[i].end_us == part.steps[i].begin_us) << s.forward[i].name;
    const PredictedPass none = pricer.price(s, false, std::vector<std::uint8_t>(s.forward.size(), 0));
    EXPECT_EQ(none.time_us, 0);
  }
}

TEST(ExchangePick, OfThoseAlike_TheOneNearestEightChunks) {
  const std::vector<std::string> flat(4, "sliced flat");
  EXPECT_EQ(pick(std::vector<double>{99.5, 100, 120, 98.2}, std::vector<int>{4, 8, 1, 32}, flat), 1U);
  EXPECT_EQ(pick(std::vector<double>{100, 90}, std::vector<int>{1, 16}, flat), 1U);
}

TEST(ExchangePick, ChunksThatArePredictedToCost_AreNotTaken) {
  const std::vector<std::string> flat(2, "sliced flat"), other{"sliced flat", "sliced gather"};
  const std::vector<int> chunks{1, 4};
  EXPECT_EQ(pick(std::vector<double>{100, 100.9}, chunks, flat), 1U);
  EXPECT_EQ(pick(std::vector<double>{100, 102}, chunks, flat), 0U);
  EXPECT_EQ(pick(std::vector<double>{100, 102}, chunks, other), 1U);
}

// A packet takes 12 ms whatever is in it: rows were timed at one size only, beyond the first step of the curve.
TEST(ExchangePrice, RowShorterThanMeasured_TakesNoMoreThanOneAlone) {
  const Topology t = hosts_of(2, 8);
  Calibration c = measured(t);
  c.curves[0].knots = {{64, 12000}, {2048, 12000}, {4096, 25000}, {8192, 49000}};
  c.curves[1].knots = {{4096, 25100}};
  const CollectiveModel model(t, {&c, 1});
  const CollectiveCurve curve = model.curve(Collective::alltoall, regular_group(1, 2));
  EXPECT_NEAR(curve.in_a_row_us(1024), 12000, 1);
  EXPECT_NEAR(curve.in_a_row_us(4096), 25100, 1);
}

TEST(ExchangeCandidates, EveryWayThatApplies_EachChunkWithAToken) {
  const int chunks[] = {1, 4};
  // Two tokens a TP group of 8: no slice holds four of them.
  for (const auto& c : exchange_candidates(offer().layout, 8, 2, chunks)) EXPECT_EQ(c.chunks, 1);
  bool replicated = false, gather = false;
  for (const auto& c : exchange_candidates(offer().layout, 8, 2048, chunks)) {
    replicated |= c.split == TokenSplit::replicated && c.transport == "flat" && c.chunks == 4;
    gather |= c.transport == "gather";
    EXPECT_NE(c.transport, "two_level") << "one rank of an EP group a host: as flat";
  }
  EXPECT_TRUE(replicated);
  EXPECT_TRUE(gather);
}

TEST(ExchangePrice, OtherNumberOfRanks_IsRefused) {
  EXPECT_THROW(ExchangePricer(hosts_of(4, 8), {}, offer()), InvalidInput);
  EXPECT_THROW(ExchangePricer(hosts_of(4, 4), {}, offer()), InvalidInput);
}

}  // namespace
}  // namespace topomoe
