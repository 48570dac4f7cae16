#include <limits>
#include <set>

#include "support.hpp"

namespace topomoe::test {
namespace {

using Names = std::vector<std::string>;

TEST(Route, SameGpu_IsLocWithoutLinks) {
  const Route route = Router(small_cluster(1)).route(2, 2);
  EXPECT_EQ(route.path_class, PathClass::LOC);
  EXPECT_TRUE(route.links.empty());
  EXPECT_EQ(route.bottleneck_GBps, std::numeric_limits<double>::infinity());
}

// NVLink plane (2 links, 100 GB/s) and PCIe switch (2 links, 32 GB/s) are equally short: the wider one is taken.
TEST(Route, SwitchPeersWithNvlink_TakeTheWiderOfTwoShortestPaths) {
  const Router router(small_cluster(1));
  const Route route = router.route(0, 1);
  EXPECT_EQ(route.path_class, PathClass::NVL);
  EXPECT_EQ(link_names(router, route), (Names{"host0.gpu0->nvswitch", "host0.nvswitch->gpu1"}));
  EXPECT_EQ(route.bottleneck_GBps, 100);
  EXPECT_DOUBLE_EQ(route.latency_us, 1.0);  // 2 x 0.5
}

TEST(Route, PcieOnlyHost_ClassesByWhatThePathCrosses) {
  HostShape shape = small_shape();
  shape.kind = "pcie";
  shape.gpus = 8;  // switches 0,1 on numa0 and 2,3 on numa1
  const Router router(small_cluster(1, shape));
  EXPECT_EQ(router.route(0, 1).path_class, PathClass::PIX);  // one switch
  EXPECT_EQ(router.route(0, 2).path_class, PathClass::PHB);  // switch, CPU, switch
  EXPECT_EQ(router.route(0, 7).path_class, PathClass::SYS);  // switch, CPU, CPU, switch
  EXPECT_EQ(router.route(0, 7).links.size(), 5U);
  EXPECT_DOUBLE_EQ(router.route(0, 7).latency_us, 4 * 1 + 2);
  EXPECT_EQ(router.route(0, 7).bottleneck_GBps, 32);
}

// Two switches in a row under one root: PXB.
TEST(Route, TwoSwitchesOnThePath_IsPxb) {
  Topology topology;
  HostTemplate host;
  host.name = "chain";
  host.devices = {{DeviceKind::numa, "numa0", "", 0},
                  {DeviceKind::pci_switch, "s0", "", 0},
                  {DeviceKind::pci_switch, "s1", "", 0},
                  {DeviceKind::gpu, "gpu0", "", 0},
                  {DeviceKind::gpu, "gpu1", "", 0}};
  host.gpus = {3, 4};
  host.links = {{1, 0, LinkKind::pcie, 32, 1, Source::assumed, "", true},
                {2, 1, LinkKind::pcie, 16, 1, Source::assumed, "", true},
                {3, 1, LinkKind::pcie, 32, 1, Source::assumed, "", true},
                {4, 2, LinkKind::pcie, 32, 1, Source::assumed, "", true}};
  topology.templates = {host};
  topology.groups = {{0, 1}};
  const Route route = Router(topology).route(0, 1);
  EXPECT_EQ(route.path_class, PathClass::PXB);
  EXPECT_EQ(route.bottleneck_GBps, 16);
}

// Direct links 0-1 and 1-2 of 50 GB/s; 0 and 2 meet over GPU 1 (NVB, two links), not over PCIe (two links, 16 GB/s).
// GPU 3 has a link to 2 only: two GPUs between 0 and 3 are one too many, so PCIe.
TEST(Route, NvlinkMesh_PassesOverAtMostOneGpu) {
  Topology topology;
  HostTemplate host;
  host.name = "mesh";
  host.devices = {{DeviceKind::numa, "numa0", "", 0},
                  {DeviceKind::gpu, "gpu0", "", 0},
                  {DeviceKind::gpu, "gpu1", "", 0},
                  {DeviceKind::gpu, "gpu2", "", 0},
                  {DeviceKind::gpu, "gpu3", "", 0}};
  host.gpus = {1, 2, 3, 4};
  for (int gpu = 1; gpu <= 4; ++gpu) host.links.push_back({gpu, 0, LinkKind::pcie, 16, 1, Source::assumed, "", true});
  for (int gpu = 1; gpu <= 3; ++gpu)
    host.links.push_back({gpu, gpu + 1, LinkKind::nvlink, 50, 1, Source::assumed, "", true});
  topology.templates = {host};
  topology.groups = {{0, 1}};
  const Router router(topology);
  EXPECT_EQ(router.route(0, 1).path_class, PathClass::NVL);
  EXPECT_EQ(router.route(0, 2).path_class, PathClass::NVB);
  EXPECT_EQ(link_names(router, router.route(0, 2)), (Names{"host0.gpu0->gpu1", "host0.gpu1->gpu2"}));
  EXPECT_EQ(router.route(0, 3).path_class, PathClass::PHB);
}

TEST(Route, SameRail_OverOneLeafInsideAPodAndOverTheSpineOutside) {
  const Router router(small_cluster(4));
  const Route near = router.route(1, 5);  // gpu1 of host0 and host1
  EXPECT_EQ(near.path_class, PathClass::NET);
  EXPECT_EQ(link_names(router, near),
            (Names{"host0.gpu1->pci_switch0", "host0.pci_switch0->nic1", "host0.nic1->leaf1", "leaf1->host1.nic1",
                   "host1.nic1->pci_switch0", "host1.pci_switch0->gpu1"}));
  EXPECT_EQ(near.bottleneck_GBps, 25);
  EXPECT_DOUBLE_EQ(near.latency_us, 4 * 1 + 2 * 3);
  const Route far = router.route(1, 13);  // host3 is in pod 1, whose leaves are 4..7
  EXPECT_EQ(far.links.size(), 8U);
  EXPECT_EQ(router.link(far.links[3]).name, "leaf1->spine");
  EXPECT_EQ(router.link(far.links[4]).name, "spine->leaf5");
  EXPECT_EQ(router.link(far.links[3]).klass, "leaf_up");
}

TEST(Route, OtherRail_OverNvlinkFirst_OrOverTheSpineWithoutPxn) {
  const Topology topology = small_cluster(2);
  const Router with_pxn(topology);
  const Route pxn = with_pxn.route(0, 7);  // rail 0 to gpu3 of host1, rail 3
  EXPECT_EQ(pxn.path_class, PathClass::PXN);
  EXPECT_EQ(link_names(with_pxn, pxn),
            (Names{"host0.gpu0->nvswitch", "host0.nvswitch->gpu3", "host0.gpu3->pci_switch1", "host0.pci_switch1->nic3",
                   "host0.nic3->leaf3", "leaf3->host1.nic3", "host1.nic3->pci_switch1", "host1.pci_switch1->gpu3"}));
  const Router without(topology, {.pxn = false});
  const Route net = without.route(0, 7);
  EXPECT_EQ(net.path_class, PathClass::NET);
  EXPECT_EQ(link_names(without, net),
            (Names{"host0.gpu0->pci_switch0", "host0.pci_switch0->nic0", "host0.nic0->leaf0", "leaf0->spine",
                   "spine->leaf3", "leaf3->host1.nic3", "host1.nic3->pci_switch1", "host1.pci_switch1->gpu3"}));
}

TEST(Route, NoNvlink_OtherRailCrossesTheSpineThoughPxnIsOn) {
  HostShape shape = small_shape();
  shape.kind = "pcie";
  EXPECT_EQ(Router(small_cluster(2, shape)).route(0, 7).path_class, PathClass::NET);
}

TEST(Route, NoSpine_OtherLeafIsUnreachable) {
  Topology topology = small_cluster(4);
  topology.fabric->spine_count = 0;
  const Router router(topology);
  EXPECT_EQ(router.route(0, 4).path_class, PathClass::NET);
  EXPECT_EQ(router.route(0, 8).path_class, PathClass::DIS);
  EXPECT_EQ(router.route(0, 8).bottleneck_GBps, 0);
}

TEST(Route, OneDomainOfSeveralHosts_MeetsOnTheSharedPlane) {
  const Topology topology = cluster("gb200-nvl72");
  const Router router(topology);
  EXPECT_EQ(topology.gpus_per_node(), 72);
  EXPECT_EQ(topology.node_count(), 1);
  const Route route = router.route(0, 71);
  EXPECT_EQ(route.path_class, PathClass::NVL);
  EXPECT_EQ(link_names(router, route), (Names{"host0.gpu0->domain0.nvswitch", "domain0.nvswitch->host17.gpu3"}));
  EXPECT_EQ(router.route_to_nic(0, 0).path_class, PathClass::P2C);
}

// Four NICs under the switch of one GPU: it spreads its peers over them, and both ends agree on the rail.
TEST(Route, SeveralNicsOfOneGpu_SpreadOverPeers) {
  HostShape shape = small_shape();
  shape.gpus = 2;
  shape.gpus_per_pci_switch = 1;
  shape.nics = 8;
  const Router router(small_cluster(8, shape));
  std::set<std::string> used;
  for (int host = 1; host < 8; ++host)
    for (const int id : router.route(0, 2 * host).links)
      if (router.link(id).klass == "nic_out") used.insert(router.link(id).name);
  EXPECT_EQ(used.size(), 4U);
}

TEST(Topology, Counting_ThroughGroupsOfDifferentHosts) {
  Topology topology = small_cluster(3);
  HostShape big = small_shape();
  big.gpus = 8;
  topology.templates.push_back(build_host(big, {}, "big-host"));
  topology.groups.push_back({1, 2});
  EXPECT_EQ(topology.host_count(), 5);
  EXPECT_EQ(topology.gpu_count(), 3 * 4 + 2 * 8);
  EXPECT_EQ(topology.host_of(11), 2);
  EXPECT_EQ(topology.host_of(12), 3);
  EXPECT_EQ(topology.gpu_name(21), "host4.gpu1");
  EXPECT_FALSE(topology.uniform());
  EXPECT_EQ(topology.gpus_in_node(4), 8);
  const Router router(topology);
  EXPECT_EQ(router.route(0, 27).path_class, PathClass::PXN);  // gpu7 of host4 owns rail 3
  EXPECT_TRUE(contains(refusal([&] { router.route(0, 28); }), "0 to 27"));
}

}  // namespace
}  // namespace topomoe::test
