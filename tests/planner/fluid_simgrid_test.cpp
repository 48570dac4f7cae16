// Our fluid core against SimGrid's on the same routes: each flow ends within 1 % of when SimGrid ends it.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "planner/fluid.hpp"
#include "tests/support/simgrid_platform.hpp"

namespace topomoe::test {
namespace {

Topology cluster(const std::string& name) {
  return read_topology_file(std::string(TOPOMOE_SOURCE_DIR) + "/configs/clusters/" + name + ".json");
}

// Not rail-optimised, `hosts_per_leaf` hosts behind a leaf that passes 1 / oversubscription of what they send.
Topology leaf_spine(int hosts, int hosts_per_leaf, double oversubscription) {
  Topology t = resize_hosts(cluster("h100-16x8"), hosts * 8, nullptr);
  Fabric& f = *t.fabric;
  f.rail_optimised = false;
  f.hosts_per_leaf = hosts_per_leaf;
  f.spine_count = 1;
  f.oversubscription = oversubscription;
  f.uplink.GBps_per_direction = hosts_per_leaf * 8 * 50 / oversubscription;
  return t;
}

std::vector<SimgridFlow> all_to_all(const Topology& t, double bytes) {
  std::vector<SimgridFlow> flows;
  for (int a = 0; a < t.gpu_count(); ++a)
    for (int b = 0; b < t.gpu_count(); ++b)
      if (a != b) flows.push_back({a, b, bytes, 0, {}});
  return flows;
}

// Sizes over two decades; one flow in four waits for an earlier one.
std::vector<SimgridFlow> random_traffic(const Topology& t, unsigned seed, int count, bool chains = true) {
  std::mt19937 dice(seed);
  const auto below = [&](int n) { return static_cast<int>(dice() % static_cast<unsigned>(n)); };
  std::vector<SimgridFlow> flows;
  while (static_cast<int>(flows.size()) < count) {
    const int a = below(t.gpu_count()), b = below(t.gpu_count());
    if (a == b) continue;
    flows.push_back({a, b, 1e5 * (1 + below(100)), 0, {}});
    if (chains && flows.size() > 1 && below(4) == 0)
      flows.back().after.push_back(below(static_cast<int>(flows.size()) - 1));
  }
  return flows;
}

void expect_same_times(const Topology& t, const std::vector<SimgridFlow>& flows) {
  const Router router(t);
  std::vector<double> capacity;
  for (int id = 0; id < router.link_count(); ++id) capacity.push_back(router.link_GBps_per_direction(id) * 1e9);
  std::vector<Flow> ours;
  for (const SimgridFlow& f : flows) {
    ours.push_back({f.bytes, std::numeric_limits<double>::infinity(), {}, -1, f.after});
    for (const int id : router.route(f.src_gpu, f.dst_gpu).links) ours.back().uses.emplace_back(id, 1);
  }
  const auto mine = run_fluid(ours, capacity);
  const auto theirs = simulate(router, flows).finish_s;
  // Asked for: 1 %. The two agree to rounding, and a difference would be a mistake.
  for (std::size_t f = 0; f < flows.size(); ++f)
    ASSERT_NEAR(mine[f].end_s, theirs[f], 1e-6 * theirs[f]) << t.name << ", flow " << f;
}

TEST(FluidSimgrid, OneHost_AllToAllAndRandom) {
  for (const char* name : {"dgx-h100", "l40s-8x-pcie"}) {
    const Topology t = cluster(name);
    expect_same_times(t, all_to_all(t, 1e6));
    for (unsigned seed = 0; seed < 4; ++seed) expect_same_times(t, random_traffic(t, seed, 120));
  }
}

TEST(FluidSimgrid, TwoHosts_AllToAllAndRandom) {
  for (const char* name : {"h100-2x8", "a800-2x8"}) {
    const Topology t = cluster(name);
    expect_same_times(t, all_to_all(t, 1e6));
    for (unsigned seed = 0; seed < 4; ++seed) expect_same_times(t, random_traffic(t, seed, 200));
  }
}

TEST(FluidSimgrid, ScaleUpDomain_Random) {
  const Topology t = cluster("gb200-nvl72");
  expect_same_times(t, random_traffic(t, 1, 400));
}

TEST(FluidSimgrid, OversubscribedLeaves_AllToAllAndRandom) {
  for (const double oversubscription : {1.0, 3.0, 8.0}) {
    const Topology t = leaf_spine(6, 2, oversubscription);
    expect_same_times(t, all_to_all(t, 1e6));
    expect_same_times(t, random_traffic(t, 5, 400));
  }
}

TEST(FluidSimgrid, SixteenTimesEight_AllToAll) {
  expect_same_times(cluster("h100-16x8"), all_to_all(cluster("h100-16x8"), 1e6));
}

TEST(FluidSimgrid, SixteenTimesEightUnevenLeaves_AllToAll) {
  expect_same_times(leaf_spine(16, 3, 4), all_to_all(leaf_spine(16, 3, 4), 1e6));
}

TEST(FluidSimgrid, SixteenTimesEight_Random) {
  expect_same_times(cluster("h100-16x8"), random_traffic(cluster("h100-16x8"), 6, 1500));
  expect_same_times(leaf_spine(16, 4, 4), random_traffic(leaf_spine(16, 4, 4), 7, 1500));
}

}  // namespace
}  // namespace topomoe::test
