// Laws of collective estimates, and figures small enough to work out by hand.
#include "planner/rates/collective.hpp"

#include <cmath>
#include <thread>

#include "planner/rates/builtin.hpp"
#include "planner/rates/machine_figures.hpp"
#include "planner/rates/node_collective.hpp"
#include "planner/rates/routed_node.hpp"
#include "tests/planner/rates/support.hpp"

namespace topomoe {
namespace {

using rates_test::cluster;
using rates_test::contains;
using rates_test::line;
using rates_test::refusal;

constexpr Collective kAll[] = {Collective::alltoall, Collective::all_gather, Collective::reduce_scatter,
                               Collective::all_reduce, Collective::send_recv};

std::string name(Collective op) { return std::string(to_string(op)); }

CollectiveModel builtin_model(const std::string& name) {
  return CollectiveModel(cluster(name), builtin_calibrations());
}

TEST(CollectiveWork, BytesOfEachOperation) {
  // Without the local share an all-to-all sends (n-1)/n of its buffer, a ring all-reduce twice that.
  EXPECT_NEAR(work_of(Collective::alltoall, 8, false), 7.4 / 8, 1e-12);
  EXPECT_NEAR(work_of(Collective::all_reduce, 8, false), 14.4 / 8, 1e-12);
  // In the switch 1 + 1/8, at 0.77 of the rate: 1.461, below the ring's 1.8; at 2 GPUs the ring is cheaper.
  EXPECT_NEAR(work_of(Collective::all_reduce, 8, true), 1.125 / 0.77, 1e-12);
  EXPECT_EQ(work_of(Collective::all_reduce, 2, true), work_of(Collective::all_reduce, 2, false));
  EXPECT_EQ(whole_buffer_bytes(Collective::all_gather, 10, 8), 80);
  EXPECT_EQ(whole_buffer_bytes(Collective::reduce_scatter, 10, 8), 10);
  EXPECT_TRUE(contains(refusal([] { collective_from("broadcast", "op"); }), "alltoall, all_gather"));
}

TEST(Collectives, MeasuredShape_IsTakenAsItIs) {
  const Calibration c = line(7, 300, {2, 4, 8});
  const CollectiveModel model(cluster("dgx-h100"), std::span(&c, 1));
  const Estimate e = model.estimate(Collective::alltoall, 1048576, regular_group(8, 1));
  EXPECT_NEAR(e.time_us, 7 + 1048576 / 300e3, 1e-9);
  EXPECT_EQ(e.source, "measured: made-up alltoall, 8 GPUs");
  EXPECT_NEAR(e.bound_us, 1048576 * 7 / 8 / 450e3, 1e-9);
}

// 4 GPUs from 2 and 8 that took equally long: the floor is between, the excess goes with the work, 3.4/4 of S.
TEST(Collectives, OtherCount_ScalesTheExcessWithTheWork) {
  Calibration c = line(7, 300, {2, 8});
  const CollectiveModel model(cluster("dgx-h100"), std::span(&c, 1));
  const double big = 1073741824;
  const double per_work_2 = big / 300e3 / 0.7, per_work_8 = big / 300e3 / (7.4 / 8);
  const double t = model.time_us(Collective::alltoall, big, regular_group(4, 1));
  EXPECT_NEAR(t, 7 + 0.85 * 0.5 * (per_work_2 + per_work_8), 0.001 * t);
  EXPECT_TRUE(contains(model.estimate(Collective::alltoall, big, regular_group(4, 1)).source, "scaled"));
}

// A800: NVLink 200 of A100's 300, the same clock: large operations take 1.5 times as long, small ones as long.
TEST(Collectives, OtherMachine_ScalesByItsRatios) {
  const auto a100 = builtin_model("dgx-a100"),
             a800 = CollectiveModel(resize_hosts(cluster("a800-2x8"), 8, nullptr), builtin_calibrations());
  for (const Collective op : kAll) {
    const auto group = regular_group(8, 1);
    EXPECT_NEAR(a800.time_us(op, 512, group), a100.time_us(op, 512, group), 0.02 * a100.time_us(op, 512, group))
        << name(op);
    const double ratio = a800.time_us(op, 1e10, group) / a100.time_us(op, 1e10, group);
    EXPECT_NEAR(ratio, 1.5, 0.01) << name(op);
    EXPECT_TRUE(contains(a800.estimate(op, 512, group).source, "scaled: a100-sxm"))
        << a800.estimate(op, 512, group).source;
  }
}

TEST(Collectives, TrustFallsAndTheBandWidens) {
  const auto width = [](const Estimate& e) { return e.high_us / e.time_us; };
  const auto group = regular_group(8, 1);
  const auto at = [&](const CollectiveModel& m) { return m.estimate(Collective::all_gather, 1e8, group); };
  const double measured = width(at(builtin_model("dgx-h100"))), twin = width(at(builtin_model("hgx-h200"))),
               scaled = width(at(builtin_model("dgx-b200")));
  const CollectiveModel bare(cluster("dgx-h100"), {});
  EXPECT_LT(measured, twin);
  EXPECT_LT(twin, scaled);
  EXPECT_LT(scaled, width(at(bare)));
  EXPECT_TRUE(contains(at(bare).source, "datasheet"));
}

TEST(Collectives, LaterCalibration_WinsWhereBothAreOfThisMachine) {
  std::vector<Calibration> two{line(7, 300, {8}), line(9, 300, {8})};
  two[1].name = "mine";
  const CollectiveModel model(cluster("dgx-h100"), two);
  EXPECT_EQ(model.estimate(Collective::alltoall, 1024, regular_group(8, 1)).source, "measured: mine alltoall, 8 GPUs");
}

// What a user measured at this shape is the answer, on two nodes and on a PCIe box too; the bound stays.
TEST(Collectives, MeasuredShape_WinsOnSeveralNodesAndOnPcie) {
  std::vector<Calibration> mine{line(30, 40, {16})};
  mine[0].curves[0].nodes = 2;
  const CollectiveModel two(cluster("h100-2x8"), mine);
  const Estimate e = two.estimate(Collective::alltoall, 16777216, regular_group(8, 2));
  EXPECT_NEAR(e.time_us, 30 + 16777216 / 40e3, 1e-6);
  EXPECT_EQ(e.source, "measured: made-up alltoall, 16 GPUs on 2 nodes");
  EXPECT_NEAR(e.bound_us, 16777216 / 2 / 50e3, 1e-6);
  mine[0].machine.nic_GBps = 25;  // another cluster's
  EXPECT_TRUE(
      contains(CollectiveModel(cluster("h100-2x8"), mine).curve(Collective::alltoall, regular_group(8, 2)).source(),
               "datasheet"));

  mine = {line(20, 3, {8})};
  mine[0].machine = machine_figures(cluster("l40s-8x-pcie"));
  const CollectiveModel box(cluster("l40s-8x-pcie"), mine);
  EXPECT_TRUE(contains(box.estimate(Collective::alltoall, 1048576, regular_group(8, 1)).source, "measured"));
  EXPECT_TRUE(contains(box.estimate(Collective::alltoall, 1048576, regular_group(4, 1)).source, "datasheet"));
}

struct Shape {
  const char* cluster;
  int ranks_per_node, nodes;
};
constexpr Shape kShapes[] = {{"dgx-h100", 2, 1},     {"dgx-h100", 8, 1},     {"dgx-a100", 4, 1},
                             {"dgx-b200", 6, 1},     {"gb200-nvl72", 72, 1}, {"l40s-8x-pcie", 3, 1},
                             {"l40s-8x-pcie", 8, 1}, {"h100-2x8", 8, 2},     {"h100-2x8", 1, 2},
                             {"h100-16x8", 8, 16},   {"h100-1024x8", 8, 64}, {"h100-1024x8", 1, 1024}};

TEST(CollectiveLaws, TimeGrowsWithBytes_AndNeverBeatsTheBound) {
  for (const Shape& s : kShapes) {
    const CollectiveModel model = builtin_model(s.cluster);
    const auto group = regular_group(s.ranks_per_node, s.nodes);
    for (const Collective op : kAll) {
      double before = 0;
      for (double bytes = 1; bytes < 1e12; bytes *= 3) {
        const Estimate e = model.estimate(op, bytes, group);
        EXPECT_GE(e.time_us, before) << s.cluster << " " << name(op) << " " << bytes;
        EXPECT_GT(e.time_us, 0);
        EXPECT_LE(e.bound_us, e.low_us * (1 + 1e-12)) << s.cluster << " " << name(op) << " " << bytes;
        EXPECT_LE(e.low_us, e.time_us);
        EXPECT_LT(e.time_us, e.high_us);
        EXPECT_EQ(e.time_us, model.time_us(op, bytes, group));
        before = e.time_us;
      }
      EXPECT_EQ(model.estimate(op, 0, group).bound_us, 0);
    }
  }
}

// Twice the rate of every link, and twice that of the curves: half the time of what is large.
TEST(CollectiveLaws, RatesTimesC_DivideLargeTimesByC) {
  for (const char* cluster_name : {"l40s-8x-pcie", "h100-16x8"}) {
    Topology fast = cluster(cluster_name);
    for (HostTemplate& host : fast.templates) {
      for (Link& link : host.links) link.GBps_per_direction *= 2;
      for (Nic& nic : host.nics) nic.port.GBps_per_direction *= 2;
      host.shape.reset();
    }
    if (fast.fabric) fast.fabric->uplink.GBps_per_direction *= 2;
    const CollectiveModel slow(cluster(cluster_name), {}), twice(fast, {});
    const int nodes = fast.node_count();
    for (const Collective op : kAll) {
      const auto group = regular_group(8, nodes);
      EXPECT_NEAR(slow.time_us(op, 1e12, group) / twice.time_us(op, 1e12, group), 2, 0.001) << cluster_name << name(op);
      EXPECT_NEAR(slow.estimate(op, 1e12, group).bound_us / twice.estimate(op, 1e12, group).bound_us, 2, 1e-9);
    }
  }
}

// 445 GB/s bus bandwidth on 8 H100 is more than 7/8 x 2 of a ring over 450: the bound must allow what was measured.
TEST(Collectives, ReductionInTheSwitch_StaysAboveTheBound) {
  const double bytes = 536870912;
  const Estimate e = builtin_model("dgx-h100").estimate(Collective::all_reduce, bytes, regular_group(8, 1));
  EXPECT_NEAR(2 * 7.0 / 8 * bytes / e.time_us * 1e-3, 445, 3);
  EXPECT_LT(e.bound_us, e.time_us);
  EXPECT_GT(2 * 7.0 / 8 * bytes / 450e3, 0.98 * e.time_us);  // what a ring could do at best
}

// README of the measurements: 22, 4.5 and 2.1 GB/s bus bandwidth.
TEST(Collectives, PcieBox_LosesBusBandwidthAsItGrows) {
  const CollectiveModel model(cluster("l40s-8x-pcie"), builtin_calibrations());
  const auto bus = [&](int n) {
    return 1e9 * (n - 1) / n / model.time_us(Collective::alltoall, 1e9, regular_group(n, 1)) * 1e-3;
  };
  EXPECT_NEAR(bus(2), 22, 0.3);
  EXPECT_NEAR(bus(4), 4.5, 0.1);
  EXPECT_NEAR(bus(8), 2.1, 0.05);
  const Estimate e = model.estimate(Collective::alltoall, 1e9, regular_group(8, 1));
  EXPECT_TRUE(contains(e.bottleneck, "root complex")) << e.bottleneck;
  // Two GPUs of different switches cross the CPU, two of one do not.
  const auto near = group_of(model.topology(), {0, 1}), far = group_of(model.topology(), {0, 2});
  EXPECT_GT(model.time_us(Collective::alltoall, 1e9, far), 1.5 * model.time_us(Collective::alltoall, 1e9, near));
}

// 16 nodes of 8: of S = 128 MB 120/128 leave the node, over 44 of 50 GB/s a GPU: 2,727 us, and 20.9 us before.
TEST(Collectives, BetweenNodes_TheNicSetsTheTime) {
  const CollectiveModel model = builtin_model("h100-16x8");
  const Estimate e = model.estimate(Collective::alltoall, 128e6, regular_group(8, 16));
  EXPECT_NEAR(e.time_us, 120e6 / 44e3 + 20.9, 1);
  EXPECT_NEAR(e.bound_us, 120e6 / 50e3, 1e-6);
  EXPECT_TRUE(contains(e.bottleneck, "NIC"));
  // All-gather of 1 MB each: 128 MB arrive at a node over 8 NICs, (W-1)/W of it.
  const Estimate g = model.estimate(Collective::all_gather, 1e6, regular_group(8, 16));
  EXPECT_NEAR(g.bound_us, 128e6 * 15 / 16 / 8 / 50e3, 1e-6);
  EXPECT_GT(g.time_us, 127e6 / 8 / 44e3);
  // One rank a node: the rail alone, no NVLink.
  const Estimate rail = model.estimate(Collective::alltoall, 16e6, regular_group(1, 16));
  EXPECT_NEAR(rail.bound_us, 15e6 / 50e3, 1e-6);
  // Small: what latency and 120 messages take.
  EXPECT_NEAR(model.time_us(Collective::alltoall, 128, regular_group(8, 16)), 7.87 + 13 + 60, 0.5);
}

// 2:1 above the leaves: 64 of 1,024 hosts are two pods of 32; half of the bytes go up, over half the rate.
TEST(Collectives, Oversubscription_IsSeenBetweenPods) {
  const CollectiveModel model = builtin_model("h100-1024x8");
  const double within = model.estimate(Collective::alltoall, 1e9, regular_group(8, 32)).bound_us;
  const double across = model.estimate(Collective::alltoall, 1e9, regular_group(8, 128)).bound_us;
  EXPECT_NEAR(within, 31.0 / 32 * 1e9 / 50e3, 1);
  EXPECT_NEAR(across, 96.0 / 128 * 1e9 / 25e3, 1);
}

TEST(Collectives, Groups_AreCountedByNode) {
  const Topology t = cluster("h100-2x8");
  EXPECT_EQ(first_gpus(t, 12), (CollectiveGroup{12, 2, 8, 4, {}}));
  EXPECT_EQ(first_gpus(t, 16), regular_group(8, 2));
  EXPECT_EQ(group_of(t, {0, 10, 9, 8}), (CollectiveGroup{4, 2, 3, 1, {8, 9, 10}}));
  EXPECT_EQ(first_gpus(cluster("gb200-nvl72"), 16).nodes, 1);
  // The four on the second node send 8/12 of their buffers to the first, the eight only 4/12.
  const CollectiveModel model(t, builtin_calibrations());
  EXPECT_NEAR(model.estimate(Collective::alltoall, 12e6, first_gpus(t, 12)).bound_us, 8e6 / 50e3, 1e-6);
  const Estimate one = model.estimate(Collective::all_gather, 1e6, regular_group(1, 1));
  EXPECT_EQ(one.bound_us, 0);
  EXPECT_EQ(one.time_us, 0);
}

TEST(Collectives, Nonsense_IsRefused) {
  const Topology t = cluster("h100-2x8");
  const CollectiveModel model(t, {});
  EXPECT_TRUE(contains(refusal([&] { regular_group(0, 1); }), "at least 1"));
  EXPECT_TRUE(contains(refusal([&] { first_gpus(t, 17); }), "1 to 16"));
  EXPECT_TRUE(contains(refusal([&] { group_of(t, {0, 0}); }), "twice"));
  EXPECT_TRUE(contains(refusal([&] { group_of(t, {}); }), "at least one"));
  EXPECT_TRUE(contains(refusal([&] { group_of(t, {99}); }), "0 to 15"));
  EXPECT_TRUE(contains(refusal([&] { model.estimate(Collective::alltoall, 1, regular_group(9, 1)); }), "2 nodes of 8"));
  for (const double bytes : {-1.0, std::nan(""), HUGE_VAL})
    EXPECT_TRUE(contains(refusal([&] { model.estimate(Collective::alltoall, bytes, regular_group(8, 1)); }), "bytes"));
}

TEST(Collectives, ManyThreads_GetTheSameAnswer) {
  const CollectiveModel model = builtin_model("h100-16x8");
  std::vector<std::thread> threads;
  std::vector<double> sums(4);
  for (std::size_t t = 0; t < sums.size(); ++t)
    threads.emplace_back([&, t] {
      for (int nodes = 1; nodes <= 16; ++nodes)
        for (const Collective op : kAll) sums[t] += model.time_us(op, 1e6, regular_group(8, nodes));
    });
  for (std::thread& t : threads) t.join();
  for (const double sum : sums) EXPECT_EQ(sum, sums[0]);
}

// All ranks wait for the slowest, wherever its host stands.
TEST(MachineFigures, LinksAreTheSlowestHosts) {
  const Topology whole = cluster("h100-16x8");
  const double nic = machine_figures(whole).nic_GBps, nvlink = machine_figures(whole).nvlink_GBps;
  for (const char* host : {"host0", "host9"}) {
    std::vector<Edit> slower;
    for (int i = 0; i < 8; ++i) slower.push_back(parse_degrade(host + (".nic" + std::to_string(i)) + "=0.5"));
    const CalibrationMachine m = machine_figures(edit(whole, slower));
    EXPECT_NEAR(m.nic_GBps, nic / 2, 1e-9) << host;
    EXPECT_NEAR(m.nvlink_GBps, nvlink, 1e-9) << host;
  }
}

}  // namespace
}  // namespace topomoe
