// Leaves and pods of different sizes, and what people call hosts and switches.
#include <map>

#include "support.hpp"
#include "topomoe/class_loads.hpp"

namespace topomoe::test {
namespace {

// Six hosts of 4 GPUs under leaves of 1, 3 and 2, all NICs of a host on its one leaf.
Topology uneven() {
  Topology topology = small_cluster(6);
  Fabric& fabric = *topology.fabric;
  fabric.rail_optimised = false;
  fabric.hosts_per_leaf = 3;
  fabric.leaf_hosts = {1, 3, 2};
  fabric.oversubscription = 6;  // 3 hosts x 4 NICs x 25 over 50
  return topology;
}

Topology named() {
  Topology topology = uneven();
  topology.host_names = {"a1", "b1", "b2", "b3", "c1", "c2"};
  topology.fabric->leaf_names = {"sw-a", "sw-b", "sw-c"};
  topology.fabric->pod_names = {"spines"};
  return topology;
}

std::string leaf_of(const Topology& topology, int host) {
  const Router router(topology);
  for (int id = 0; id < router.link_count(); ++id) {
    const LinkInfo link = router.link(id);
    if (link.klass == "nic_out" && link.src.starts_with("host" + std::to_string(host) + ".")) return link.dst;
  }
  return "";
}

TEST(UnevenLeaves, Hosts_StandUnderTheirLeaf) {
  const std::string leaves[] = {"leaf0", "leaf1", "leaf1", "leaf1", "leaf2", "leaf2"};
  const Topology topology = uneven();
  EXPECT_EQ(topology.leaf_count(), 3);
  for (int host = 0; host < 6; ++host) EXPECT_EQ(leaf_of(topology, host), leaves[host]) << host;
  const HostRange beside = topology.hosts_beside(2);
  EXPECT_EQ(beside.first, 1);
  EXPECT_EQ(beside.end, 4);
}

// Each GPU sends 1 byte to each of the 23 others. Up from a leaf: its GPUs times those elsewhere.
TEST(UnevenLeaves, AllToAll_ByHand) {
  const Router router(uneven());
  const FoldedLoads loads = all_to_all_loads(router, 1);
  std::map<std::string, double> bytes;
  for (int id = 0; id < router.link_count(); ++id) bytes[router.link(id).name] = loads.bytes_on(id);
  EXPECT_EQ(bytes.at("leaf0->spine"), 4 * 20);
  EXPECT_EQ(bytes.at("leaf1->spine"), 12 * 12);
  EXPECT_EQ(bytes.at("leaf2->spine"), 8 * 16);
  EXPECT_EQ(bytes.at("spine->leaf1"), 12 * 12);
  EXPECT_EQ(loads.bottleneck().name, "leaf1->spine");
}

// Pods of 2 and 1 leaves: 16 GPUs in one, 8 in the other.
TEST(UnevenLeaves, UnevenPods_ByHand) {
  Topology topology = uneven();
  Fabric& fabric = *topology.fabric;
  fabric.hosts_per_pod = 6;
  fabric.pod_leaves = {2, 1};
  fabric.core_count = 2;
  fabric.pod_uplink = {40, 1, Source::assumed, "test"};
  const Router router(topology);
  const FoldedLoads loads = all_to_all_loads(router, 1);
  std::map<std::string, double> bytes;
  for (int id = 0; id < router.link_count(); ++id) bytes[router.link(id).name] = loads.bytes_on(id);
  EXPECT_EQ(bytes.at("pod0->core"), 16 * 8);
  EXPECT_EQ(bytes.at("pod1->core"), 8 * 16);
  EXPECT_EQ(bytes.at("leaf2->pod1"), 8 * 16);
  // Of pod 0's two spines, one takes half of what its own two leaves and the pod send up, and nothing of pod 1.
  const Router worse(edit(topology, {parse_remove("pod0.spine1")}));
  for (int id = 0; id < worse.link_count(); ++id)
    if (const LinkInfo link = worse.link(id); link.kind == LinkKind::leaf_spine || link.kind == LinkKind::pod_core) {
      const bool hit = contains(link.name, "pod0");
      EXPECT_EQ(link.GBps_per_direction, router.link_GBps_per_direction(id) * (hit ? 0.5 : 1)) << link.name;
    }
}

TEST(UnevenLeaves, PodsWithoutCores_AreNotJoined) {
  Topology topology = uneven();
  Fabric& fabric = *topology.fabric;
  fabric.hosts_per_pod = 6;
  fabric.pod_leaves = {2, 1};
  const Router router(topology);
  EXPECT_EQ(router.route(0, 4).path_class, PathClass::NET);   // host 0 to host 1: leaves of one pod
  EXPECT_EQ(router.route(0, 23).path_class, PathClass::DIS);  // to host 5: of the other
  EXPECT_TRUE(contains(show_text(topology), "not joined"));
  EXPECT_EQ(fingerprint(read_cluster_json(write_cluster_json(topology), "t")), fingerprint(topology));
}

TEST(UnevenLeaves, RemovedLeaf_TakesThePortsOfItsHostsAlone) {
  const Topology topology = edit(uneven(), {parse_remove("leaf1")});
  for (int host = 0; host < 6; ++host)
    EXPECT_EQ(topology.host_template(host).nics.empty(), host >= 1 && host <= 3) << host;
}

TEST(UnevenLeaves, Resized_TheLastLeavesGoAndFullOnesCome) {
  const Topology fewer = resize_hosts(named(), 12, nullptr);
  EXPECT_EQ(fewer.fabric->leaf_hosts, (std::vector<int>{1, 2}));
  EXPECT_EQ(fewer.host_names, (std::vector<std::string>{"a1", "b1", "b2"}));
  EXPECT_EQ(fewer.fabric->leaf_names, (std::vector<std::string>{"sw-a", "sw-b"}));
  const Topology more = resize_hosts(named(), 40, nullptr);
  EXPECT_EQ(more.fabric->leaf_hosts, (std::vector<int>{1, 3, 2, 3, 1}));
  EXPECT_EQ(more.host_name(5), "c2");
  EXPECT_EQ(more.host_name(6), "host6");
}

TEST(UnevenLeaves, Fingerprint_HasSizesAndNoNames) {
  EXPECT_EQ(fingerprint(named()), fingerprint(uneven()));
  Topology moved = uneven();
  moved.fabric->leaf_hosts = {3, 1, 2};
  EXPECT_NE(fingerprint(moved), fingerprint(uneven()));
  // As even as if they had not been given.
  Topology even = uneven(), plain = uneven();
  even.fabric->leaf_hosts = {3, 3};
  plain.fabric->leaf_hosts.clear();
  EXPECT_EQ(fingerprint(even), fingerprint(plain));
}

TEST(UnevenLeaves, Json_RoundTripsWithNames) {
  const std::string text = write_cluster_json(named());
  const Topology read = read_cluster_json(text, "t");
  EXPECT_EQ(write_cluster_json(read), text);
  EXPECT_EQ(read.host_names, named().host_names);
  EXPECT_EQ(*read.fabric, *named().fabric);
  EXPECT_TRUE(contains(show_text(read), "leaf1 sw-b: b1 to b3, 3 hosts, under spines"));
}

// Without GPUs, nothing is computed from a rate that nobody knows; with them it must be given.
TEST(UnevenLeaves, UnknownUplinks_StandOnlyWhereNoHostHasGpus) {
  Topology topology = named();
  topology.fabric->uplink = {0, 0, Source::unknown, "test"};
  EXPECT_TRUE(contains(refusal([&] { Router router(topology); }), "fabric.uplink: unknown"));
  HostTemplate bare;
  bare.name = "bare";
  bare.devices = {{DeviceKind::numa, "numa0", "", -1, {}}};
  topology.templates = {bare};
  const Topology read = read_cluster_json(write_cluster_json(topology), "t");
  EXPECT_EQ(read.fabric->uplink, topology.fabric->uplink);
  EXPECT_TRUE(contains(show_text(read), "unknown GB/s up from a leaf"));
  EXPECT_EQ(edit(read, {parse_set("uplink.GBps=400")}).fabric->uplink.GBps_per_direction, 400);
}

TEST(UnevenLeaves, BadSizesAndNames_AreRefusedByName) {
  const auto spoilt = [](auto spoil) {
    Topology topology = named();
    spoil(topology);
    return refusal([&] { require_valid(topology, "t"); });
  };
  EXPECT_TRUE(contains(spoilt([](Topology& t) { t.fabric->leaf_hosts = {1, 3}; }), "fabric.leaf_hosts: 4 in all"));
  EXPECT_TRUE(contains(spoilt([](Topology& t) { t.fabric->leaf_hosts = {2, 4}; }), "fabric.leaf_hosts[1]: 4"));
  EXPECT_TRUE(contains(spoilt([](Topology& t) { t.fabric->leaf_hosts = {0, 3, 3}; }), "fabric.leaf_hosts[0]: 0"));
  EXPECT_TRUE(contains(spoilt([](Topology& t) { t.fabric->pod_leaves = {3}; }), "fabric.pod_leaves: given"));
  EXPECT_TRUE(contains(spoilt([](Topology& t) { t.fabric->leaf_names.pop_back(); }), "fabric.leaf_names: 2 names"));
  EXPECT_TRUE(contains(spoilt([](Topology& t) { t.fabric->pod_names = {"a", "b"}; }), "fabric.pod_names: 2 names"));
  EXPECT_TRUE(contains(spoilt([](Topology& t) { t.host_names[3] = "a1"; }), "host_names[3]: \"a1\": named twice"));
  EXPECT_TRUE(contains(spoilt([](Topology& t) { t.host_names[3] = "a\n"; }), "host_names[3]"));
  EXPECT_TRUE(contains(spoilt([](Topology& t) {
                         t.fabric->hosts_per_pod = 3;
                         t.fabric->pod_leaves = {1, 1};
                       }),
                       "fabric.pod_leaves: 2 in all"));
}

}  // namespace
}  // namespace topomoe::test
