#include "support.hpp"

namespace topomoe::test {
namespace {

TEST(Resize, SameNumber_ChangesNothingAndSaysNothing) {
  std::string note = "untouched";
  const Topology topology = small_cluster(4);
  EXPECT_EQ(resize_hosts(topology, 16, &note), topology);
  EXPECT_EQ(note, "");
}

TEST(Resize, Fewer_TakesWholeHostsInOrder) {
  std::string note;
  const Topology topology = resize_hosts(small_cluster(4), 6, &note);
  EXPECT_EQ(topology.host_count(), 2);
  EXPECT_EQ(topology.gpu_count(), 8);
  EXPECT_EQ(note, "small: the first 2 of 4 hosts (8 of 16 GPUs); 6 GPUs asked for, hosts are taken whole");
}

TEST(Resize, More_GrowsHostsAndLeavesAtTheSameOversubscription) {
  std::string note;
  const Topology topology = resize_hosts(cluster("h100-1024x8"), 16384, &note);
  EXPECT_EQ(topology.host_count(), 2048);
  EXPECT_EQ(topology.leaf_count(), 512);
  EXPECT_EQ(topology.fabric->uplink.GBps_per_direction, 800);
  EXPECT_TRUE(contains(note, "leaves from 256 to 512 at the same 2:1 oversubscription")) << note;
  EXPECT_TRUE(warns(topology, "grown from 1024 hosts to 2048"));
}

// One host without a fabric becomes many: a fabric is assumed, and said.
TEST(Resize, OneHostToMany_AssumesAFabricAndSaysSo) {
  std::string note;
  const Topology topology = resize_hosts(cluster("dgx-h100"), 512, &note);
  ASSERT_TRUE(topology.fabric.has_value());
  EXPECT_TRUE(topology.fabric->rail_optimised);
  EXPECT_EQ(topology.leaf_count(), 16);  // 64 hosts, 2 pods of 32, 8 rails
  EXPECT_GT(topology.fabric->spine_count, 0);
  EXPECT_DOUBLE_EQ(topology.fabric->uplink.GBps_per_direction, 32 * 50);
  EXPECT_TRUE(contains(note, "a fabric is assumed")) << note;
  EXPECT_EQ(Router(topology).route(0, 511).path_class, PathClass::PXN);
  const std::string written = write_cluster_json(topology);
  EXPECT_EQ(write_cluster_json(read_cluster_json(written, "grown")), written);
}

TEST(Resize, NvlinkDomain_GrowsByRacks) {
  std::string note;
  const Topology topology = resize_hosts(cluster("gb200-nvl72"), 144, &note);
  EXPECT_EQ(topology.node_count(), 2);
  const Router router(topology);
  EXPECT_EQ(router.route(0, 71).path_class, PathClass::NVL);
  EXPECT_EQ(router.route(0, 72).path_class, PathClass::NET);
}

TEST(Resize, Impossible_IsRefused) {
  EXPECT_TRUE(contains(refusal([] { resize_hosts(small_cluster(1), 0, nullptr); }), "gpus: 0"));
  EXPECT_TRUE(contains(refusal([] { resize_hosts(small_cluster(1), 2'000'000'000, nullptr); }), "at most 10,000,000"));
  HostShape lonely = small_shape();
  lonely.nics = 0;
  Topology topology = small_cluster(1, lonely);
  topology.fabric.reset();
  EXPECT_TRUE(contains(refusal([&] { resize_hosts(topology, 64, nullptr); }), "without a NIC"));
}

}  // namespace
}  // namespace topomoe::test
