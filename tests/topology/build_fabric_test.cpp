// Builders: rates by hand, and every bad parameter refused by its name.
#include "topomoe/build_fabric.hpp"

#include "support.hpp"

namespace topomoe::test {
namespace {

// 16 hosts of 4 GPUs and 4 NICs of 25 GB/s.
Topology hosts() {
  Topology topology = small_cluster(16);
  topology.fabric.reset();
  return topology;
}

// A leaf takes 2 x 4 x 25 = 200 GB/s and sends 100 up; a pod of 2 leaves takes 200 and sends 50 up.
TEST(BuildFabric, FatTree_RatesFollowFromOversubscription) {
  FatTreeShape shape;
  shape.hosts_per_leaf = 2;
  shape.spine_count = 4;
  shape.oversubscription = 2;
  const Fabric two = build_fat_tree(hosts(), shape);
  EXPECT_EQ(two.uplink.GBps_per_direction, 100);
  EXPECT_EQ(two.hosts_per_pod, 0);
  shape.hosts_per_pod = 4;
  shape.core_count = 2;
  shape.pod_oversubscription = 4;
  EXPECT_EQ(build_fat_tree(hosts(), shape).pod_uplink.GBps_per_direction, 50);
  shape.planes = 2;  // each plane has half the NICs
  EXPECT_EQ(build_fat_tree(hosts(), shape).uplink.GBps_per_direction, 50);
  EXPECT_EQ(build_fat_tree(hosts(), shape).pod_uplink.GBps_per_direction, 25);
}

TEST(BuildFabric, RailOptimised_WithAndWithoutSpineOverRails) {
  Topology topology = hosts();
  RailOptimisedShape shape;
  shape.hosts_per_leaf = 4;
  shape.spine_count = 2;
  topology.fabric = build_rail_optimised(topology, shape);
  EXPECT_EQ(topology.fabric->uplink.GBps_per_direction, 4 * 25);
  EXPECT_EQ(topology.leaf_count(), 16);
  EXPECT_EQ(Router(topology, {.pxn = false}).route(0, 4 * 4 + 1).path_class, PathClass::NET);
  shape.spine_over_rails = false;
  topology.fabric = build_rail_optimised(topology, shape);
  const Router router(topology);
  const Route same = router.route(0, 4 * 4);
  EXPECT_EQ(link_names(router, same)[3], "leaf0->plane0.spine");
  EXPECT_EQ(router.route(0, 4 * 4 + 1).path_class, PathClass::PXN);
  // Without NVLink in between, the NIC of the right rail is reached over PCIe: no spine joins the rails.
  const Router without(topology, {.pxn = false});
  const Route cross = without.route(0, 4 * 4 + 3);
  EXPECT_EQ(cross.path_class, PathClass::NET);
  // gpu, switch, CPU, CPU, switch, nic, leaf, spine, leaf, nic, switch, gpu
  EXPECT_EQ(link_names(without, cross).size(), 11U);
  shape.spine_count = 0;
  topology.fabric = build_rail_optimised(topology, shape);
  EXPECT_EQ(Router(topology).route(0, 4 * 4).path_class, PathClass::DIS);
}

// A group of 4 hosts: 2 leaves of 200 GB/s up = 400, over 3 other groups and 2:1: 66.7 to each.
TEST(BuildFabric, DragonflyPlus_SharesWhatLeavesAGroupOverTheOthers) {
  Topology topology = hosts();
  DragonflyPlusShape shape;
  shape.hosts_per_leaf = 2;
  shape.hosts_per_group = 4;
  shape.spine_count = 2;
  shape.group_oversubscription = 2;
  topology.fabric = build_dragonfly_plus(topology, shape);
  EXPECT_DOUBLE_EQ(topology.fabric->pod_uplink.GBps_per_direction, 400.0 / 3 / 2);
  const Router router(topology);
  const Route route = router.route(0, 4 * 15);
  const auto names = link_names(router, route);
  EXPECT_EQ(std::vector<std::string>(names.begin() + 3, names.begin() + 6),
            (std::vector<std::string>{"leaf0->group0", "group0->group3", "group3->leaf7"}));
}

// 4 x 4: from (0,0) to (3,2): one down in x; in y two are equally far both ways, place 0 is even: up.
TEST(BuildFabric, Torus_ShorterWayRoundDimensionByDimension) {
  Topology topology = hosts();
  topology.fabric = build_torus(topology, {{4, 4}, {10, 1, Source::assumed, "test"}});
  const Router router(topology);
  const auto names = link_names(router, router.route(0, 4 * (3 + 4 * 2)));
  EXPECT_EQ(std::vector<std::string>(names.begin() + 3, names.begin() + 6),
            (std::vector<std::string>{"host0.ring->host3.ring", "host3.ring->host7.ring", "host7.ring->host11.ring"}));
  EXPECT_EQ(router.link(router.route(0, 4).links[3]).klass, "ring");
  EXPECT_EQ(topology.leaf_count(), 0);
}

TEST(BuildFabric, BadParameters_AreRefusedByName) {
  const auto fat_tree = [](auto change) {
    FatTreeShape shape;
    shape.hosts_per_leaf = 2, shape.spine_count = 4, shape.hosts_per_pod = 4, shape.core_count = 2;
    change(shape);
    return refusal([&] { build_fat_tree(hosts(), shape); });
  };
  EXPECT_TRUE(contains(fat_tree([](auto& s) { s.hosts_per_leaf = 0; }), "fat_tree.hosts_per_leaf: 0"));
  EXPECT_TRUE(contains(fat_tree([](auto& s) { s.spine_count = -1; }), "fat_tree.spine_count: -1"));
  EXPECT_TRUE(contains(fat_tree([](auto& s) { s.oversubscription = 0; }), "fat_tree.oversubscription: 0"));
  EXPECT_TRUE(contains(fat_tree([](auto& s) { s.oversubscription = std::nan(""); }), "fat_tree.oversubscription: nan"));
  EXPECT_TRUE(contains(fat_tree([](auto& s) { s.hosts_per_pod = 3; }),
                       "fat_tree.hosts_per_pod: 3: a multiple of hosts_per_leaf"));
  EXPECT_TRUE(contains(fat_tree([](auto& s) { s.core_count = 0; }), "fat_tree.core_count: 0"));
  EXPECT_TRUE(contains(fat_tree([](auto& s) { s.pod_oversubscription = -2; }), "fat_tree.pod_oversubscription: -2"));
  EXPECT_TRUE(contains(fat_tree([](auto& s) { s.planes = 5; }), "fat_tree.planes: 5"));
  EXPECT_TRUE(contains(fat_tree([](auto& s) { s.latency_us = -1; }), "fat_tree.latency_us: -1"));
  EXPECT_TRUE(contains(fat_tree([](auto& s) { s.hosts_per_pod = 0; }), "fat_tree.core_count: 2"));

  const auto rails = [](auto change) {
    RailOptimisedShape shape;
    shape.hosts_per_leaf = 2, shape.spine_count = 4;
    change(shape);
    return refusal([&] { build_rail_optimised(hosts(), shape); });
  };
  EXPECT_TRUE(contains(rails([](auto& s) { s.hosts_per_leaf = -3; }), "rail_optimised.hosts_per_leaf: -3"));
  EXPECT_TRUE(contains(rails([](auto& s) { s.spine_count = 2'000'000; }), "rail_optimised.spine_count: 2000000"));
  EXPECT_TRUE(contains(rails([](auto& s) { s.planes = 3; }), "rail_optimised.planes: 3: a divisor"));
  EXPECT_TRUE(contains(rails([](auto& s) { s.planes = 2, s.spine_over_rails = false; }), "rail_optimised.planes: 2"));
  EXPECT_TRUE(contains(rails([](auto& s) { s.oversubscription = 1e9; }), "rail_optimised.oversubscription"));
  EXPECT_TRUE(contains(rails([](auto& s) { s.hosts_per_pod = 4; }), "rail_optimised.core_count: 0"));

  const auto groups = [](auto change) {
    DragonflyPlusShape shape;
    shape.hosts_per_leaf = 2, shape.spine_count = 4, shape.hosts_per_group = 4;
    change(shape);
    return refusal([&] { build_dragonfly_plus(hosts(), shape); });
  };
  EXPECT_TRUE(contains(groups([](auto& s) { s.hosts_per_group = 0; }), "dragonfly_plus.hosts_per_group: 0"));
  EXPECT_TRUE(
      contains(groups([](auto& s) { s.hosts_per_group = 5; }), "dragonfly_plus.hosts_per_group: 5: a multiple"));
  EXPECT_TRUE(contains(groups([](auto& s) { s.spine_count = 0; }), "dragonfly_plus.spine_count: 0"));
  EXPECT_TRUE(contains(groups([](auto& s) { s.group_oversubscription = 0; }), "dragonfly_plus.group_oversubscription"));
  EXPECT_TRUE(contains(groups([](auto& s) { s.group_latency_us = 1e9; }), "dragonfly_plus.group_latency_us"));

  const Rate ring{10, 1, Source::assumed, "test"};
  const auto torus = [](const std::vector<int>& dims, const Rate& rate) {
    return refusal([&] { build_torus(hosts(), {dims, rate}); });
  };
  EXPECT_TRUE(contains(torus({4, 5}, ring), "fabric.dims: 20 places"));
  EXPECT_TRUE(contains(torus({16, 1}, ring), "fabric.dims[1]: 1"));
  EXPECT_TRUE(contains(torus({}, ring), "fabric.dims: number: 0"));
  EXPECT_TRUE(contains(torus({1 << 20, 1 << 20}, ring), "fabric.dims"));
  EXPECT_TRUE(contains(torus({4, 4}, {}), "fabric.ring.GBps_per_direction: 0"));
}

// A figure that the kind never reads is a mistake, in a file as in a struct.
TEST(BuildFabric, FiguresOfOtherKinds_AreRefused) {
  Topology topology = small_cluster(4);
  topology.fabric->dims = {4};
  EXPECT_TRUE(contains(refusal([&] { Router router(topology); }), "fabric.dims: given: leave it out"));
  topology = small_cluster(4);
  topology.fabric->core_count = 3;
  EXPECT_TRUE(contains(refusal([&] { Router router(topology); }), "fabric.core_count"));
  topology = small_cluster(4);
  topology.fabric->exceptions = {{"leaf99->spine", 0}};
  EXPECT_TRUE(contains(refusal([&] { Router router(topology); }), "fabric.exceptions[0].name: \"leaf99->spine\""));
  topology.fabric->exceptions = {{"leaf0->spine", 2}};
  EXPECT_TRUE(contains(refusal([&] { Router router(topology); }), "fabric.exceptions[0].factor: 2"));
}

}  // namespace
}  // namespace topomoe::test
