// Bytes on links against SimGrid's own count of them, and the platform against hand arithmetic.
#include "tests/support/simgrid_platform.hpp"

#include <random>

#include "random_cluster.hpp"
#include "support.hpp"
#include "topomoe/build_fabric.hpp"
#include "topomoe/class_loads.hpp"

namespace topomoe::test {
namespace {

// All pairs of the GPUs, `bytes` each.
std::vector<SimgridFlow> all_to_all(const Topology& topology, double bytes) {
  std::vector<SimgridFlow> flows;
  for (int src = 0; src < topology.gpu_count(); ++src)
    for (int dst = 0; dst < topology.gpu_count(); ++dst)
      if (src != dst) flows.push_back({src, dst, bytes, 0, {}});
  return flows;
}

// SimGrid against the loads by classes, of all GPUs.
void expect_same_classes(const Topology& topology, double bytes) {
  const Router router(topology);
  const SimgridResult theirs = simulate(router, all_to_all(topology, bytes));
  const FoldedLoads ours = all_to_all_loads(router, bytes);
  for (int id = 0; id < router.link_count(); ++id)
    EXPECT_NEAR(theirs.bytes_on_link[static_cast<std::size_t>(id)], ours.bytes_on(id), 1e-6 * ours.bytes_on(id) + 1)
        << router.link(id).name;
}

std::vector<SimgridFlow> random_traffic(const Topology& topology, unsigned seed, int count) {
  std::mt19937 dice(seed);
  const auto below = [&](int end) { return static_cast<int>(dice() % static_cast<unsigned>(end)); };
  std::vector<SimgridFlow> flows;
  while (static_cast<int>(flows.size()) < count) {
    const int src = below(topology.gpu_count()), dst = below(topology.gpu_count());
    if (src != dst) flows.push_back({src, dst, 1.0 + below(1'000'000), 0, {}});
  }
  return flows;
}

void expect_same_bytes(const Topology& topology, const std::vector<SimgridFlow>& flows) {
  const Router router(topology);
  const SimgridResult theirs = simulate(router, flows);
  LinkLoads ours(router);
  for (const SimgridFlow& flow : flows) ours.add(flow.src_gpu, flow.dst_gpu, flow.bytes);
  double last_s = 0;
  for (const double finish_s : theirs.finish_s) last_s = std::max(last_s, finish_s);
  for (int id = 0; id < router.link_count(); ++id)
    EXPECT_NEAR(theirs.bytes_on_link[static_cast<std::size_t>(id)], ours.bytes_on(id), 1e-6 * ours.bytes_on(id) + 1)
        << router.link(id).name;
  EXPECT_GE(last_s, ours.bottleneck().seconds * (1 - 1e-6)) << "no simulation beats the bound";
}

// gpu0 -> gpu1 and gpu0 -> gpu2 share 100 GB/s out of gpu0: 50 each. The first is over after 1e6 / 50e9 = 20 us; the
// second has 1e6 left of its 2e6 and the link to itself: 10 us more. The third waits for the first: 20 + 10 us.
TEST(Simgrid, SharedLink_TimesByHand) {
  const Router router(small_cluster(1));
  const SimgridResult result =
      simulate(router, {{0, 1, 1e6, 0, {}}, {0, 2, 2e6, 0, {}}, {3, 1, 1e6, 0, {0}}, {1, 3, 1e6, 1e-3, {}}});
  EXPECT_NEAR(result.finish_s[0], 20e-6, 1e-9);
  EXPECT_NEAR(result.finish_s[1], 30e-6, 1e-9);
  EXPECT_NEAR(result.finish_s[2], 30e-6, 1e-9);
  EXPECT_NEAR(result.finish_s[3], 1010e-6, 1e-9);
  EXPECT_NEAR(result.bytes_on_link[static_cast<std::size_t>(router.route(0, 1).links[0])], 3e6, 1);
}

TEST(Simgrid, AllToAllInOneHost_SameBytes) {
  expect_same_bytes(cluster("dgx-h100"), all_to_all(cluster("dgx-h100"), 1e6));
}

TEST(Simgrid, AllToAllOnTwoPods_SameBytes) {
  const Topology topology = small_cluster(4);
  expect_same_bytes(topology, all_to_all(topology, 12345));
}

// 16 hosts of 8 H100: leaves of 4 hosts for each rail, pods of 8 hosts, oversubscribed at both tiers.
Topology sixteen_hosts() {
  Topology topology = cluster("h100-16x8");
  RailOptimisedShape shape;
  shape.hosts_per_leaf = 4;
  shape.spine_count = 4;
  shape.oversubscription = 2;
  shape.hosts_per_pod = 8;
  shape.core_count = 4;
  shape.pod_oversubscription = 2;
  topology.fabric = build_rail_optimised(topology, shape);
  return topology;
}

TEST(Simgrid, AllToAllOnSixteenHostsOfEight_SameBytesByClasses) { expect_same_classes(sixteen_hosts(), 1e6); }

// Three tiers, planes, groups, rings, dead and degraded cables.
TEST(Simgrid, EveryFabric_SameBytes) {
  int tried = 0;
  for (unsigned seed = 0; seed < 24; ++seed) {
    const Topology topology = with_random_exceptions(random_alike_cluster(seed, 4), seed);
    const Router router(topology);
    const auto joined = [&](const SimgridFlow& flow) {
      return router.route(flow.src_gpu, flow.dst_gpu).path_class != PathClass::DIS;
    };
    std::vector<SimgridFlow> flows = random_traffic(topology, seed, 60);
    std::erase_if(flows, [&](const SimgridFlow& flow) { return !joined(flow); });
    tried += flows.size() > 30 ? 1 : 0;
    expect_same_bytes(topology, flows);
  }
  EXPECT_GT(tried, 12);
}

TEST(Simgrid, RandomTraffic_SameBytes) {
  for (unsigned seed = 0; seed < 3; ++seed) {
    const Topology topology = sixteen_hosts();
    expect_same_bytes(topology, random_traffic(topology, seed, 500));
    expect_same_bytes(small_cluster(5), random_traffic(small_cluster(5), seed, 100));
  }
}

}  // namespace
}  // namespace topomoe::test
