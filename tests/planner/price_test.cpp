// Laws of prices on random clusters, layouts and sizes: no estimate beats the link-load bound, which is worked
// out here by routing every rank's traffic; bounds are monotone in rates and scale with them.

#include "planner/price.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "planner/rates/compute_tables.hpp"
#include "planner/schedules/build.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

struct Draw {
  Topology topology;
  Layout layout;
  LayerWidths widths;
  std::vector<double> popularity;
  double tokens;
  Schedule schedule;
  int topk_groups = 8;  // of 8
};

Rate rate(double GBps, double latency_us) { return {GBps, latency_us, Source::assumed, "test"}; }

Topology random_topology(std::mt19937& random) {
  const auto pick = [&](std::initializer_list<double> values) { return *(values.begin() + random() % values.size()); };
  HostShape shape;
  shape.gpus = static_cast<int>(pick({2, 4, 8}));
  shape.kind = random() % 3 ? "nvswitch" : "pcie";
  shape.numa_nodes = shape.gpus > 2 ? 2 : 1;
  shape.gpus_per_pci_switch = shape.gpus == 2 ? 1 : static_cast<int>(pick({1, 2}));
  shape.nics = random() % 2 ? shape.gpus : shape.gpus / 2;
  if (shape.kind == "nvswitch") shape.nvlink = rate(pick({100, 300, 450}), 0.5);
  shape.pcie = rate(pick({16, 32, 64}), 0.5);
  shape.cpu_interconnect = rate(pick({20, 64}), 0.5);
  shape.nic = rate(pick({12.5, 25, 50}), 1);
  GpuSpec gpu{"test", 80, 2000, 300, 600, 60, 108, Source::assumed, "test"};
  Topology t;
  t.name = "random";
  t.templates = {build_host(shape, gpu, "host")};
  const int hosts = static_cast<int>(pick({1, 2, 4}));
  t.groups = {{0, hosts}};
  if (hosts > 1) {
    Fabric f;
    f.rail_optimised = random() % 2 == 0;
    f.rails = f.rail_optimised ? shape.nics : 1;
    f.hosts_per_leaf = static_cast<int>(pick({1, 2}));
    f.spine_count = 2;
    f.oversubscription = pick({1, 2, 4});
    const double down = f.hosts_per_leaf * shape.nic.GBps_per_direction * (f.rail_optimised ? 1 : shape.nics);
    f.uplink = rate(down / f.oversubscription, 0.5);
    t.fabric = f;
  }
  require_valid(t, "random");
  return t;
}

Draw draw(std::mt19937& random) {
  for (;;) {
    Draw d;
    d.topology = random_topology(random);
    const int world = d.topology.gpu_count();
    const int tp = 1 << random() % 4, ep = 1 << random() % 5;
    const int etp = ep == 1 ? 1 << random() % 5 : random() % 2 ? tp : 1;  // EP 1: MoEShard's
    if (tp > d.topology.gpus_per_host() || world % tp != 0 || world % (etp * ep) != 0) continue;
    d.layout = make_layout(world, tp, 1, 1, etp, ep, random() % 2 ? ExpertOrder::ep_inner : ExpertOrder::edp_inner);
    d.layout.sequence_parallel = tp > 1 && random() % 2;
    const int experts = 32, k = 1 + static_cast<int>(random() % 4);
    d.widths = {1024, 2048.0 / etp, experts, static_cast<double>(k), 2, 3};
    RoutingProfile profile;
    if (random() % 2)
      profile = {RoutingProfile::Kind::zipf, 0.2 + 0.1 * static_cast<double>(random() % 10), {}, "zipf"};
    d.popularity = expert_popularity(profile, experts);
    if (random() % 3 == 0) d.topk_groups = 1 + static_cast<int>(random() % 4);
    d.tokens = 64 << random() % 8;
    const int n = 1 + static_cast<int>(random() % 4);
    ScheduleRequest request{random() % 2 ? TokenSplit::sliced : TokenSplit::replicated,
                            tp,
                            etp,
                            ep,
                            d.layout.sequence_parallel,
                            n,
                            random() % 2 ? n : 1};
    if (random() % 2) request.backward_chunks = 1 + static_cast<int>(random() % 4), request.backward_pieces = 1;
    request.fp8_dispatch = n % 2 == 0;
    const Transport& t = transports()[random() % transports().size()];
    const int gpus_per_node = d.topology.gpus_per_node();
    if (!t.refuses(request).empty() || (t.needs_even_nodes && !even_nodes(d.layout, gpus_per_node)) ||
        (t.needs_two_nodes && nodes_spanned(d.layout, 0, gpus_per_node) < 2))
      continue;
    d.schedule = t.build(request);
    return d;
  }
}

// GEMMs whose rate does not depend on how long they take: measured clocks fall with time, which is no rate.
Calibration steady_clocks(const GpuSpec& gpu) {
  Calibration c;
  c.name = "steady", c.source = "test", c.machine.gpu = gpu;
  GemmFit fit;
  fit.figures.droop = 0;
  put_figures(c, fit);
  return c;
}

RoutingOdds odds_of(const Draw& d) { return {d.popularity, static_cast<int>(d.widths.top_k), 8, d.topk_groups}; }

// The price; its bound is the one that no execution can beat.
PredictedPass price(const Draw& d, const Topology& topology, bool backward) {
  const Router router(topology);
  TrafficModel traffic(router);
  const Calibration steady[] = {steady_clocks(topology.gpu_spec(0))};
  const Machine machine = machine_of(topology, DType::bf16, steady);
  const RankGroups groups(d.layout, topology.gpus_per_node());
  const RoutingOdds odds = odds_of(d);
  LayerPricer pricer(traffic, machine, groups, d.widths, odds, d.tokens);
  PredictedPass pass = pricer.price(d.schedule, backward);
  const double step_by_step_us = pass.bound_us;
  const auto bound = pricer.lower_bound(d.schedule, backward);
  pass.bound_us = bound.seconds * 1e6, pass.bound_by = bound.by;
  EXPECT_LE(pass.bound_us, step_by_step_us * (1 + 1e-9) + 1e-9);  // a maximum of sums and a sum of maxima
  return pass;
}

// Every rank's bytes of every step, routed: seconds that the busiest link needs at its raw rate.
double link_load_bound_s(const Draw& d, bool backward) {
  const Router router(d.topology);
  const RankGroups groups(d.layout, d.topology.gpus_per_node());
  const double held = d.layout.sequence_parallel ? d.tokens / d.layout.tp : d.tokens;
  const double injected = d.schedule.intake == Intake::tp_slice    ? d.tokens / d.layout.tp
                          : d.schedule.intake == Intake::tp_gather ? d.tokens
                                                                   : held;
  // ExpectedCounts has no chunks: each chunk is 1/n of the tokens.
  const RoutingOdds odds = odds_of(d);
  const ExpectedCounts whole(groups, odds, held, injected);
  LinkLoads loads(router);
  for (const Step& s : backward ? d.schedule.backward : d.schedule.forward) {
    if (s.kind != StepKind::exchange && s.kind != StepKind::all_gather) continue;
    const Buffer& b = d.schedule.buffers[static_cast<std::size_t>(s.in[0].buffer)];
    const double width = b.element == Element::fp8 ? d.widths.hidden * (1 + 4.0 / 128)
                                                   : (b.columns == Columns::hidden ? d.widths.hidden : d.widths.top_k) *
                                                         (b.element == Element::payload ? 2 : 4);
    const double fraction = b.symbol == Symbol::held ? 1 : 1.0 / d.schedule.chunks;
    for (int rank = 0; rank < d.layout.world; ++rank)
      for (const int peer : groups.members(s.group, rank)) {
        if (peer == rank) continue;
        Buffer one = b;
        View v = s.in[0];
        const Chunks c = v.chunks.value_or(b.chunks);
        one.chunks = {0, 1};
        if (v.chunks) v.chunks = Chunks{0, 1};
        const double chunks = b.symbol == Symbol::held ? 1 : c.end - c.begin;
        loads.add(rank, peer, rows_of(one, v, groups, whole, rank, peer) * fraction * chunks * width);
      }
  }
  return loads.bottleneck().seconds;
}

Topology scaled(Topology t, double factor) {
  for (HostTemplate& h : t.templates) {
    h.shape.reset();
    for (Link& l : h.links) l.GBps_per_direction *= factor;
    for (Nic& n : h.nics) n.port.GBps_per_direction *= factor;
    h.gpu.hbm_GBps *= factor, h.gpu.bf16_TFLOPps *= factor;
  }
  if (t.fabric) t.fabric->uplink.GBps_per_direction *= factor;
  return t;
}

TEST(Price, RandomClusters_NeverBeatLinkLoadOrResourceBound) {
  std::mt19937 random(11);
  for (int round = 0; round < 150; ++round) {
    const Draw d = draw(random);
    SCOPED_TRACE("round " + std::to_string(round) + " " + name(d.layout) + " " + d.schedule.name);
    for (const bool backward : {false, true}) {
      const PredictedPass p = price(d, d.topology, backward);
      const double links = link_load_bound_s(d, backward) * 1e6;
      EXPECT_GE(p.time_us, links * (1 - 1e-9));
      EXPECT_GE(p.bound_us, links * (1 - 1e-6));  // it is the link-load bound, where no compute is slower
      EXPECT_GE(p.time_us, p.bound_us * (1 - 1e-9));
      for (const PredictedStep& s : p.steps) EXPECT_GE(s.end_us - s.begin_us, s.alone_us * (1 - 1e-6)) << s.name;
    }
  }
}

TEST(Price, RatesScaled_BoundsScaleInversely) {
  std::mt19937 random(12);
  for (int round = 0; round < 60; ++round) {
    const Draw d = draw(random);
    for (const double factor : {0.5, 3.0}) {
      const auto before = price(d, d.topology, true), after = price(d, scaled(d.topology, factor), true);
      EXPECT_NEAR(after.bound_us * factor, before.bound_us, 1e-6 * before.bound_us);
    }
    // With much more work than latency, times scale too: what remains of latency is below 1 %.
    Draw large = d;
    large.tokens = 1e7;
    const auto before = price(large, d.topology, false), after = price(large, scaled(d.topology, 2), false);
    EXPECT_NEAR(after.time_us * 2 / before.time_us, 1, 0.01);
  }
}

// Rates inside the host stay: they decide routes, and a faster link may draw traffic to it.
TEST(Price, RatesRaised_BoundNeverGrows) {
  std::mt19937 random(13);
  for (int round = 0; round < 100; ++round) {
    const Draw d = draw(random);
    Topology faster = d.topology;
    faster.templates[0].shape.reset();
    if (faster.fabric && random() % 2) faster.fabric->uplink.GBps_per_direction *= 2;
    faster.templates[0].gpu.hbm_GBps *= 1 + static_cast<double>(random() % 3);
    faster.templates[0].gpu.bf16_TFLOPps *= 1 + static_cast<double>(random() % 3);
    for (Nic& n : faster.templates[0].nics) n.port.GBps_per_direction *= 2;
    EXPECT_LE(price(d, faster, true).bound_us, price(d, d.topology, true).bound_us * (1 + 1e-9));
  }
}

// TP 8, EP 2 over two hosts of eight; 4096 wide, 8 experts, top-2, 4096 tokens.
Draw two_hosts() {
  HostShape shape{.kind = "nvswitch",
                  .gpus = 8,
                  .numa_nodes = 2,
                  .gpus_per_pci_switch = 1,
                  .nics = 8,
                  .nvlink = rate(450, 0.5),
                  .pcie = rate(64, 0.5),
                  .c2c = {},
                  .cpu_interconnect = rate(64, 0.5),
                  .nic = rate(50, 1)};
  Topology t;
  t.name = "two";
  t.templates = {build_host(shape, {"test", 80, 2000, 300, 600, 60, 108, Source::assumed, "test"}, "host")};
  t.groups = {{0, 2}};
  t.fabric = Fabric{8, true, 2, 1, 1, rate(100, 0.5)};
  return {t, make_layout(16, 8, 1, 1, 8, 2), {4096, 1792, 8, 2, 2, 3}, std::vector<double>(8, 0.125), 4096, {}};
}

TEST(Price, SlicedUnderTp_MovesOneOverTpBetweenNodes) {
  // Replicated sends each token 8 times between hosts, sliced once.
  Draw d = two_hosts();
  const auto out_of_node = [&](TokenSplit split) {
    d.schedule = build_schedule("flat", {split, 8, 8, 2, false, 1, 1});
    double bytes = 0;
    const auto p = price(d, d.topology, false);
    for (std::size_t i = 0; i < p.steps.size(); ++i)
      if (d.schedule.forward[i].group == Role::ep && d.schedule.forward[i].kind == StepKind::exchange)
        bytes += p.steps[i].bytes;
    return bytes;
  };
  EXPECT_DOUBLE_EQ(out_of_node(TokenSplit::replicated), 8 * out_of_node(TokenSplit::sliced));
  // By hand: T k P (N-1)/N out and back = 2 x 4096 x 2 x 8192 B / 2.
  EXPECT_DOUBLE_EQ(out_of_node(TokenSplit::replicated), 2.0 * 4096 * 2 * 8192 / 2);
}

// Replicated: each rank injects T = 4,096 tokens of 8,192 bytes, 4,096 + 4 * 32 = 4,224 as fp8. T k = 8,192 rows leave,
// half of them to the other host; 8,192 arrive, as the two EP ranks have 4 of 8 experts each.
TEST(Price, Fp8Dispatch_IsWhatItsBytesTake) {
  Draw d = two_hosts();
  const auto priced = [&](bool fp8) {
    d.schedule =
        build_schedule("flat", {.split = TokenSplit::replicated, .tp = 8, .etp = 8, .ep = 2, .fp8_dispatch = fp8});
    return price(d, d.topology, false);
  };
  const auto bytes = [](const PredictedPass& p, const std::string& step) {
    for (const PredictedStep& s : p.steps)
      if (s.name == step) return s.bytes;
    ADD_FAILURE() << step;
    return 0.0;
  };
  const PredictedPass plain = priced(false);
  const double plain_links = link_load_bound_s(d, false);
  const PredictedPass fp8 = priced(true);
  EXPECT_DOUBLE_EQ(bytes(plain, "dispatch.0"), 4096.0 * 8192);
  EXPECT_DOUBLE_EQ(bytes(fp8, "dispatch.0"), 4096.0 * 4224);
  EXPECT_DOUBLE_EQ(bytes(fp8, "return.0"), 4096.0 * 8192);
  EXPECT_DOUBLE_EQ(bytes(fp8, "to fp8.0"), 4096.0 * (8192 + 4224));
  EXPECT_DOUBLE_EQ(bytes(fp8, "pack.0"), (4096 + 8192.0) * 4224);
  EXPECT_DOUBLE_EQ(bytes(fp8, "from fp8.0"), 8192.0 * (4224 + 8192));
  // NICs are the slowest links and carry both ways alike.
  EXPECT_NEAR(link_load_bound_s(d, false) / plain_links, (4224.0 + 8192) / (2 * 8192), 1e-9);
  EXPECT_LT(fp8.time_us, plain.time_us);
}

}  // namespace
}  // namespace topomoe
