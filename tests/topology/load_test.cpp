#include <cmath>
#include <map>
#include <random>

#include "support.hpp"

namespace topomoe::test {
namespace {

// All pairs of 2 hosts x 4 GPUs send 1 GB each. Per GPU: 3 GB inside over NVLink. Between hosts, PXN: the flows to
// gpu r of the other host leave by nic r, so each NIC carries 4 GB out and 4 GB in: 4 / 25 = 0.16 s.
// NVLink out of one GPU: 3 GB inside + 3 GB to the GPU of the other rails = 6 GB: 6 / 100 = 0.06 s.
TEST(LinkLoads, UniformAllToAll_EqualsHandComputedLoads) {
  const Router router(small_cluster(2));
  LinkLoads loads(router);
  for (int src = 0; src < 8; ++src)
    for (int dst = 0; dst < 8; ++dst) loads.add(src, dst, 1e9);
  const Bottleneck worst = loads.bottleneck();
  EXPECT_EQ(worst.klass, "nic_out");
  EXPECT_EQ(worst.name, "host0.nic0->leaf0");
  EXPECT_DOUBLE_EQ(worst.seconds, 4.0 / 25);
  std::map<std::string, ClassLoad> by_class;
  for (const ClassLoad& load : loads.by_class()) by_class[load.klass] = load;
  EXPECT_DOUBLE_EQ(by_class.at("nvlink").max_bytes, 6e9);
  EXPECT_DOUBLE_EQ(by_class.at("nvlink").seconds, 0.06);
  EXPECT_DOUBLE_EQ(by_class.at("nic_out").max_bytes, 4e9);
  EXPECT_DOUBLE_EQ(by_class.at("nic_out").total_bytes, 32e9);  // 2 hosts x 4 GPUs x 4 peers
  EXPECT_DOUBLE_EQ(by_class.at("nic_in").total_bytes, 32e9);
  EXPECT_DOUBLE_EQ(by_class.at("pcie").max_bytes, 4e9);
  EXPECT_EQ(by_class.count("leaf_up"), 0U);  // one pod
}

// Hosts 0,1 to hosts 2,3 on the same rail: 2 flows of 5 GB share the 50 GB/s up of leaf 0, each NIC has one.
TEST(LinkLoads, TwoFlowsOnOneUplink_AreAddedUp) {
  const Router router(small_cluster(4));
  LinkLoads loads(router);
  loads.add(0, 8, 5e9);
  loads.add(4, 12, 5e9);
  EXPECT_DOUBLE_EQ(loads.bottleneck().seconds, 0.2);  // 5 / 25 on a NIC; the uplink takes 10 / 50, which is no longer
  EXPECT_EQ(loads.bottleneck().klass, "nic_out");
  loads.add(8, 0, 1e9);
  loads.add(0, 12, 1e9);  // 6 GB from nic0 of host0: 0.24
  EXPECT_DOUBLE_EQ(loads.bottleneck().seconds, 0.24);
}

TEST(LinkLoads, BytesAreConservedAtEverySwitch) {
  const Router router(small_cluster(6));
  LinkLoads loads(router);
  std::mt19937 random(7);
  std::map<std::string, double> net;  // bytes in minus out, by device
  for (int i = 0; i < 500; ++i) {
    const int src = static_cast<int>(random() % 24), dst = static_cast<int>(random() % 24);
    const double bytes = static_cast<double>(random() % 1000);
    loads.add(src, dst, bytes);
    net[router.topology().gpu_name(src)] += bytes;
    net[router.topology().gpu_name(dst)] -= bytes;
  }
  for (int id = 0; id < router.link_count(); ++id) {
    const LinkInfo link = router.link(id);
    net[link.dst] += loads.bytes_on(id);
    net[link.src] -= loads.bytes_on(id);
  }
  for (const auto& [device, bytes] : net) EXPECT_EQ(bytes, 0) << device;  // whole numbers below 2^53 add exactly
}

TEST(LinkLoads, SelfAndNothing_LoadNothing) {
  LinkLoads loads{Router(small_cluster(2))};
  loads.add(3, 3, 1e12);
  loads.add(0, 1, 0);
  EXPECT_EQ(loads.bottleneck().link, -1);
  EXPECT_EQ(loads.bottleneck().seconds, 0);
  EXPECT_TRUE(loads.by_class().empty());
}

TEST(LinkLoads, MergedHalves_EqualTheWhole) {
  const Router router(small_cluster(4));
  LinkLoads whole(router), odd(router), even(router);
  for (int src = 0; src < 16; ++src)
    for (int dst = 0; dst < 16; ++dst) {
      whole.add(src, dst, 64);
      (src % 2 ? odd : even).add(src, dst, 64);
    }
  odd.merge(even);
  for (int id = 0; id < router.link_count(); ++id) EXPECT_EQ(odd.bytes_on(id), whole.bytes_on(id));
}

TEST(LinkLoads, BadInput_IsRefusedByName) {
  Topology topology = small_cluster(4);
  topology.fabric->spine_count = 0;
  LinkLoads loads{Router(topology)};
  EXPECT_TRUE(contains(refusal([&] { loads.add(0, 1, -1); }), "bytes"));
  EXPECT_TRUE(contains(refusal([&] { loads.add(0, 1, std::nan("")); }), "bytes"));
  EXPECT_TRUE(contains(refusal([&] { loads.add(0, 99, 1); }), "0 to 15"));
  EXPECT_TRUE(contains(refusal([&] { loads.add(0, 8, 1); }), "host0.gpu0 -> host2.gpu0: no path"));
  EXPECT_EQ(loads.bottleneck().link, -1);  // a refused flow leaves nothing behind
}

TEST(LinkLoads, ThousandHosts_StayCheap) {
  const Router router(cluster("h100-1024x8"));
  LinkLoads loads(router);
  std::mt19937 random(1);
  for (int i = 0; i < 100'000; ++i) loads.add(static_cast<int>(random() % 8192), static_cast<int>(random() % 8192), 1);
  EXPECT_LT(router.link_count(), 100'000);
  EXPECT_GT(loads.bottleneck().seconds, 0);
}

}  // namespace
}  // namespace topomoe::test
