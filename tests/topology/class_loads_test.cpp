// Loads by classes: equal to those added flow by flow, conserved at each device, and worth what hand arithmetic says.
#include "topomoe/class_loads.hpp"

#include <map>
#include <random>

#include "random_cluster.hpp"
#include "support.hpp"

namespace topomoe::test {
namespace {

LinkLoads flow_by_flow(const Router& router, double bytes, RankPattern p) {
  if (p.ranks == 0) p.ranks = router.topology().gpu_count();
  if (p.group == 0) p.group = p.ranks;
  LinkLoads loads(router);
  const int span = p.group * p.stride;
  for (int src = 0; src < p.ranks; ++src)
    for (int dst = 0; dst < p.ranks; ++dst)
      if (src / span == dst / span && src % p.stride == dst % p.stride) loads.add(src, dst, bytes);
  return loads;
}

// Exact: whole bytes, sums far below 2^53.
void expect_equal(const FoldedLoads& folded, const LinkLoads& loads, const std::string& what) {
  const Router& router = loads.router();
  for (int id = 0; id < router.link_count(); ++id)
    ASSERT_EQ(folded.bytes_on(id), loads.bytes_on(id)) << what << ": " << router.link(id).name;
  const Bottleneck a = folded.bottleneck(), b = loads.bottleneck();
  EXPECT_EQ(a.name, b.name) << what;
  EXPECT_EQ(a.seconds, b.seconds) << what;
  const auto ours = folded.by_class(), theirs = loads.by_class();
  ASSERT_EQ(ours.size(), theirs.size()) << what;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    EXPECT_EQ(ours[i].klass, theirs[i].klass) << what;
    EXPECT_EQ(ours[i].link, theirs[i].link) << what;
    EXPECT_EQ(ours[i].max_bytes, theirs[i].max_bytes) << what;
    EXPECT_EQ(ours[i].total_bytes, theirs[i].total_bytes) << what;
  }
}

// Refused by both (false), or equal.
bool expect_same(const Topology& topology, RankPattern pattern, const std::string& what, RouteOptions options = {}) {
  const Router router(topology, options);
  std::string ours, theirs;
  std::optional<FoldedLoads> folded;
  LinkLoads loads(router);
  try {
    folded = all_to_all_loads(router, 3, pattern);
  } catch (const InvalidInput& error) {
    ours = error.value;
  }
  try {
    loads = flow_by_flow(router, 3, pattern);
  } catch (const InvalidInput& error) {
    theirs = error.value;
  }
  EXPECT_EQ(ours, theirs) << what;
  if (folded) expect_equal(*folded, loads, what);
  return folded.has_value();
}

// Bytes that enter a switch leave it; GPUs send as much as they take. Each flow between nodes leaves by one NIC.
void expect_conserved(const FoldedLoads& loads) {
  const Router& router = loads.router();
  std::map<std::string, double> net;
  for (int id = 0; id < router.link_count(); ++id) {
    const LinkInfo link = router.link(id);
    net[link.dst] += loads.bytes_on(id);
    net[link.src] -= loads.bytes_on(id);
  }
  for (const auto& [device, bytes] : net) EXPECT_EQ(bytes, 0) << device;
  const Topology& topology = router.topology();
  double between_nodes = 0, nic_out = 0;
  for (int node = 0; node < topology.node_count(); ++node)
    between_nodes += topology.gpus_in_node(node) * (topology.gpu_count() - topology.gpus_in_node(node));
  for (const ClassLoad& load : loads.by_class())
    if (load.klass == "nic_out") nic_out = load.total_bytes;
  EXPECT_EQ(nic_out, between_nodes);
}

TEST(ClassLoads, RandomFabrics_EqualFlowByFlow) {
  int joined = 0;
  for (unsigned seed = 0; seed < 120; ++seed)
    joined += expect_same(random_fabric_cluster(seed), {}, "seed " + std::to_string(seed), {.pxn = seed % 3 != 0});
  EXPECT_GT(joined, 60);  // the others have hosts that no plane joins
}

TEST(ClassLoads, RandomFabricsWithDeadLinks_EqualFlowByFlow) {
  int joined = 0;
  for (unsigned seed = 0; seed < 120; ++seed)
    joined +=
        expect_same(with_random_exceptions(random_fabric_cluster(seed), seed), {}, "seed " + std::to_string(seed));
  EXPECT_GT(joined, 30);
}

TEST(ClassLoads, GroupsOfEveryRegularPartition_EqualFlowByFlow) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    Topology topology = with_random_exceptions(random_alike_cluster(seed, 4), seed);
    const int ranks = topology.gpu_count();
    for (int group = 1; group <= ranks; ++group)
      for (int stride = 1; group * stride <= ranks; ++stride)
        if (ranks % (group * stride) == 0)
          expect_same(topology, {0, group, stride},
                      "seed " + std::to_string(seed) + ", " + std::to_string(group) + " x " + std::to_string(stride));
  }
}

TEST(ClassLoads, FewerRanksThanGpus_TheRestIsIdle) {
  const Topology topology = small_cluster(6);
  for (const RankPattern& pattern : {RankPattern{16, 0, 1}, {16, 4, 4}, {16, 4, 2}, {18, 0, 1}, {18, 3, 2}, {4, 0, 1}})
    expect_same(topology, pattern, std::to_string(pattern.ranks));
}

TEST(ClassLoads, RemovedHost_GroupsGoOnWithTheNext) {
  Topology topology = small_cluster(9);
  HostTemplate gone;
  gone.name = "gone";
  gone.devices = {{DeviceKind::numa, "numa0", "", 0}};
  topology.templates.push_back(gone);
  topology.groups = {{0, 3}, {1, 1}, {0, 5}};
  for (const RankPattern& pattern : {RankPattern{}, {0, 8, 1}, {0, 8, 4}, {0, 4, 4}, {0, 4, 2}})
    expect_same(topology, pattern, std::to_string(pattern.group) + " x " + std::to_string(pattern.stride));
}

TEST(ClassLoads, EveryFabric_ConservesBytesAtEachDevice) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    const Topology topology = random_alike_cluster(seed, 4);
    expect_conserved(all_to_all_loads(Router(topology), 1));
  }
}

// 8 hosts of 4 GPUs in 2 pods of 2 units of 2 hosts, one leaf a unit: each GPU sends 1 byte to each of 31 others.
// Up from a leaf: 8 GPUs x 24 outside the unit. Up from a pod: 16 GPUs x 16 outside it.
TEST(ClassLoads, ThreeTiers_ByHand) {
  Topology topology = small_cluster(8);
  Fabric& fabric = *topology.fabric;
  fabric.rail_optimised = false;
  fabric.hosts_per_pod = 4;
  fabric.core_count = 2;
  fabric.pod_uplink = {100, 1, Source::assumed, "test"};
  const FoldedLoads loads = all_to_all_loads(Router(topology), 1);
  std::map<std::string, ClassLoad> by_class;
  for (const ClassLoad& load : loads.by_class()) by_class[load.klass] = load;
  EXPECT_EQ(by_class.at("leaf_up").max_bytes, 8 * 24);
  EXPECT_EQ(by_class.at("leaf_down").total_bytes, 4 * 8 * 24);
  EXPECT_EQ(by_class.at("pod_up").max_bytes, 16 * 16);
  EXPECT_EQ(by_class.at("pod_up").name, "pod0->core");
  EXPECT_EQ(by_class.at("pod_down").total_bytes, 2 * 16 * 16);
  EXPECT_EQ(loads.kinds_of_host(), 1U);
}

// A ring of 4 hosts of 1 GPU: to the next, to the one after that (even hosts up, odd ones down), and to the previous.
// Up-link 0->1: 0->1, 0->2 and 3's way... 3->1 goes down. So 0->1 has {0->1, 0->2}, 1->2 has {1->2, 0->2}; down alike.
TEST(ClassLoads, RingOfFourHosts_ByHand) {
  Topology topology = small_cluster(4);
  HostShape shape = small_shape();
  shape.gpus = 1, shape.numa_nodes = 1, shape.gpus_per_pci_switch = 1, shape.nics = 1;
  topology.templates = {build_host(shape, {}, "one")};
  topology.fabric = Fabric{};
  topology.fabric->kind = FabricKind::torus;
  topology.fabric->dims = {4};
  topology.fabric->ring = {10, 1, Source::assumed, "test"};
  const Router router(topology);
  const FoldedLoads loads = all_to_all_loads(router, 1);
  std::map<std::string, double> bytes;
  for (int id = 0; id < router.link_count(); ++id) bytes[router.link(id).name] += loads.bytes_on(id);
  for (const char* name :
       {"host0.ring->host1.ring", "host1.ring->host2.ring", "host2.ring->host3.ring", "host3.ring->host0.ring",
        "host0.ring->host3.ring", "host3.ring->host2.ring", "host2.ring->host1.ring", "host1.ring->host0.ring"})
    EXPECT_EQ(bytes.at(name), 2) << name;
}

TEST(ClassLoads, Ring_EqualsEachToItsNext) {
  const Router router(small_cluster(4));
  const FoldedLoads folded = ring_loads(router, 7, {0, 4, 4});  // GPU l of hosts 0 to 3
  LinkLoads loads(router);
  for (int l = 0; l < 4; ++l)
    for (int host = 0; host < 4; ++host) loads.add(host * 4 + l, (host + 1) % 4 * 4 + l, 7);
  expect_equal(folded, loads, "ring");
  LinkLoads unfolded = folded.unfold();
  for (int id = 0; id < router.link_count(); ++id) EXPECT_EQ(unfolded.bytes_on(id), loads.bytes_on(id));
}

TEST(ClassLoads, ManyHosts_FewKinds) {
  Topology topology = cluster("h100-1024x8");
  topology.fabric->exceptions = {{"leaf3->spine", 0}};
  const FoldedLoads loads = all_to_all_loads(Router(topology), 1);
  EXPECT_LE(loads.kinds_of_host(), 3U);  // the unit of the dead link, and the others
  // No flow is lost: every NIC carries 8 x 1023 flows in all, 8192 x 8184 between hosts.
  for (const ClassLoad& load : loads.by_class())
    if (load.klass == "nic_out") {
      EXPECT_EQ(load.total_bytes, 8192.0 * 8184);
    }
}

// A slow host takes the routes of the others: its rates differ, and with them what is worst, not the loads.
TEST(ClassLoads, DegradedHosts_AreOfOneKindAndStillTheBottleneck) {
  std::vector<Edit> edits;
  for (int host = 0; host < 30; ++host)
    edits.push_back(parse_degrade("host" + std::to_string(host) + ".nic1=" + std::to_string(0.9 - host * 0.01)));
  HostShape shape = small_shape();
  shape.gpus_per_pci_switch = 1;  // with two NICs equally near, a GPU would leave the slow one alone
  const Topology topology = edit(small_cluster(40, shape), edits);
  EXPECT_EQ(topology.templates.size(), 31U);
  const Router router(topology);
  expect_equal(all_to_all_loads(router, 1), flow_by_flow(router, 1, {}), "degraded");
  EXPECT_EQ(all_to_all_loads(router, 1).bottleneck().name, "host29.nic1->leaf57");
}

// Bus bandwidth bound of all-to-all, S/t (n-1)/n, of the first n GPUs; each sends S/n to each other.
double bus_GBps(const Topology& topology, int n) {
  const double bytes = 1e6;
  return n * bytes / all_to_all_loads(Router(topology), bytes, {n, 0, 1}).bottleneck().seconds / 1e9 * (n - 1) / n;
}

// 8 L40S, two to a switch, two switches to a CPU, PCIe 32, what a CPU passes on 64 GB/s in all.
// 2: each GPU sends S/2 over its slot: S/t = 64, times 1/2.
// 4: a switch sends 2 x 2 x S/4 up, as long as the CPU takes for 4 x 2 x S/4 = 2 S: S/t = 32, times 3/4.
// 8: a CPU passes on 4 x 6 x S/8 from below and 4 x 4 x S/8 from the other CPU, 5 S: S/t = 12.8, times 7/8.
TEST(PcieBox, AllToAll_FallsWithTheLinksThatAreShared) {
  const Topology box = cluster("l40s-8x-pcie");
  EXPECT_DOUBLE_EQ(bus_GBps(box, 2), 32);
  EXPECT_DOUBLE_EQ(bus_GBps(box, 4), 24);
  EXPECT_DOUBLE_EQ(bus_GBps(box, 8), 11.2);
  EXPECT_EQ(all_to_all_loads(Router(box), 1, {8, 0, 1}).bottleneck().klass, "cpu_root");
  // Measured: 22, 4.5, 2.1. One figure, 12 GB/s through a CPU, gives both of those that pass one: 12 x 3/8, 12 x 7/40.
  const Topology measured = edit(box, {parse_set("cpu_root.GBps=12")});
  EXPECT_NEAR(bus_GBps(measured, 4), 4.5, 1e-9);
  EXPECT_NEAR(bus_GBps(measured, 8), 2.1, 1e-9);
  EXPECT_DOUBLE_EQ(bus_GBps(measured, 2), 32);
  EXPECT_EQ(link_names(Router(box), Router(box).route(0, 7)),
            (std::vector<std::string>{"host0.gpu0->pci_switch0", "host0.pci_switch0->cpu_root0",
                                      "host0.cpu_root0->numa0", "host0.numa0->cpu_root1", "host0.cpu_root1->numa1",
                                      "host0.numa1->pci_switch3", "host0.pci_switch3->gpu7"}));
}

TEST(ClassLoads, BadPatterns_AreRefusedByName) {
  const Router router(small_cluster(2));
  EXPECT_TRUE(contains(refusal([&] { all_to_all_loads(router, 1, {9, 0, 1}); }), "ranks: 9"));
  EXPECT_TRUE(contains(refusal([&] { all_to_all_loads(router, 1, {0, 3, 1}); }), "group: 3"));
  EXPECT_TRUE(contains(refusal([&] { all_to_all_loads(router, 1, {0, 4, 3}); }), "stride: 3"));
  EXPECT_TRUE(contains(refusal([&] { all_to_all_loads(router, -1); }), "bytes"));
  Topology apart = small_cluster(4);
  apart.fabric->spine_count = 0;
  EXPECT_TRUE(contains(refusal([&] { all_to_all_loads(Router(apart), 1); }), "no path"));
  EXPECT_TRUE(contains(refusal([&] { ring_loads(Router(apart), 1); }), "no path"));
}

}  // namespace
}  // namespace topomoe::test
