// What the search prunes by, held against what it prunes; and traffic folded by pattern against traffic flow by flow.

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "planner/algorithm_choice.hpp"
#include "planner/layer_prices.hpp"
#include "planner/machine.hpp"
#include "topomoe/topology.hpp"

namespace topomoe {
namespace {

Topology cluster(const std::string& name) {
  return read_topology_file(std::string(TOPOMOE_SOURCE_DIR) + "/configs/clusters/" + name + ".json");
}

std::vector<double> popularity(int experts, double skew) {
  std::vector<double> p;
  double sum = 0;
  for (int e = 0; e < experts; ++e) p.push_back(std::pow(e + 1.0, -skew)), sum += p.back();
  for (double& x : p) x /= sum;
  return p;
}

struct Case {
  Layout layout;
  double skew, tokens;
};

std::vector<Case> cases() {
  std::vector<Case> out;
  for (const Layout& l :
       {make_layout(16, 1, 1, 1, 1, 8), make_layout(16, 2, 1, 1, 1, 16), make_layout(16, 4, 1, 1, 4, 4),
        make_layout(16, 2, 1, 2, 1, 4, ExpertOrder::edp_inner), make_layout(16, 8, 1, 1, 8, 2)})
    for (const double skew : {0.0, 0.8})
      for (const double tokens : {64.0, 4096.0}) out.push_back({l, skew, tokens});
  return out;
}

TEST(LaneBound, NoNumberOfChunksOrPiecesBeatsIt) {
  const Topology topology = cluster("h100-2x8");
  const Router router(topology);
  const Machine machine = machine_of(topology, DType::bf16);
  int priced = 0;
  for (const Case& c : cases()) {
    TrafficModel traffic(router);
    ScheduleCache cache;
    const RankGroups groups(c.layout, 8);
    const RoutingOdds odds(popularity(16, c.skew), 2);
    LayerPricer pricer(traffic, machine, groups, {2048, 4096.0 / c.layout.etp, 16, 2, 2, 3}, odds, c.tokens);
    const AlgorithmOptions options;
    for (const Algorithm& one : list_algorithms(groups, options)) {
      const auto& single = cache.get(one.transport, request_for(c.layout, one));
      const auto forward = pricer.lane_bound(single.schedule, false, single.forward),
                 backward = pricer.lane_bound(single.schedule, true, single.backward);
      for (const int n : kChunkCounts)
        for (const int r : {1, n}) {
          Algorithm a = one;
          a.forward = a.backward = {n, r};
          price(a, pricer, cache, c.layout, options);
          EXPECT_LE(forward.time_s, a.forward_s) << name(a);
          EXPECT_LE(backward.time_s, a.backward_s) << name(a);
          EXPECT_LE(backward.inter_node_s, a.backward_s - a.idle_s + 1e-12) << name(a);
          // Longer by x, idle by at most x more.
          EXPECT_LE(a.idle_s - (backward.time_s - backward.inter_node_s), a.backward_s - backward.time_s + 1e-12)
              << name(a);
          ++priced;
        }
    }
  }
  EXPECT_GT(priced, 1000);
}

// Weights that depend on places in the EP group only, as TrafficModel asks.
TEST(Traffic, FoldedByPattern_IsWhatFlowsAddUpTo) {
  for (const char* name : {"h100-2x8", "a800-2x8", "l40s-8x-pcie"}) {
    const Topology topology = cluster(name);
    const Router router(topology);
    std::mt19937 random(7);
    for (const Case& c : cases()) {
      if (c.layout.world != topology.gpu_count()) continue;
      TrafficModel traffic(router);
      const RankGroups groups(c.layout, topology.gpus_per_node());
      std::vector<double> drawn(256);
      for (double& w : drawn) w = 1 + static_cast<double>(random() % 1000);
      const auto weight = [&](int rank, int peer) {
        return drawn[static_cast<std::size_t>(groups.index_in(Role::ep, rank) * 16 + groups.index_in(Role::ep, peer))];
      };
      for (const Role role : {Role::ep, Role::node, Role::rail}) {
        if (role != Role::ep && !even_nodes(c.layout, topology.gpus_per_node())) continue;
        LinkLoads loads(router);
        traffic.add(loads, groups, role, 0, weight);
        const GroupLoad& folded = traffic.weighted(groups, role, 0, 1, weight);
        const auto flows = loads.by_class();
        if (groups.members(role, 0).size() < 2) continue;
        ASSERT_EQ(folded.classes.size(), flows.size());
        for (std::size_t i = 0; i < flows.size(); ++i) {
          EXPECT_EQ(folded.classes[i].name, flows[i].klass);
          EXPECT_NEAR(folded.classes[i].units / folded.classes[i].raw_GBps,
                      flows[i].max_bytes / flows[i].GBps_per_direction, 1e-9 * flows[i].max_bytes);
        }
      }
    }
  }
}

}  // namespace
}  // namespace topomoe
