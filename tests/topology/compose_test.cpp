// From descriptions of single hosts and of the network to one cluster.
#include "topomoe/compose.hpp"
#include "support.hpp"
#include "topology/read/readers.hpp"
#include "topomoe/build_fabric.hpp"

namespace topomoe::test {
namespace {

DescribedHosts described(const std::string& name, const HostShape& shape = small_shape()) {
  Topology topology;
  topology.name = "this-host";
  topology.templates = {build_host(shape, {}, "this-host")};
  topology.groups = {{0, 1}};
  return {name, topology};
}

std::vector<DescribedHosts> numbered(int count) {
  std::vector<DescribedHosts> hosts;
  for (int i = count; i > 0; --i) hosts.push_back(described("n" + std::to_string(i)));
  return hosts;
}

// The GPUs say which NVLink domain they are in, as discovery writes it.
DescribedHosts in_domain(const std::string& name, const std::string& clique) {
  DescribedHosts host = described(name);
  HostTemplate& own = host.topology.templates[0];
  own.shape.reset();
  for (const int gpu : own.gpus)
    own.devices[static_cast<std::size_t>(gpu)].attributes = {{"fabric_cluster", "7a1e"}, {"fabric_clique", clique}};
  return host;
}

Topology slurm(const std::string& text) { return read_slurm_conf(text, "topology.conf"); }

TEST(Compose, SixtyFourEqualHosts_AreTheBuiltCluster) {
  ComposeOptions options;
  options.fabric_spec = "rail-optimised:hosts_per_leaf=32,spine_count=8,oversubscription=2";
  Topology composed = compose(numbered(64), std::nullopt, options);
  EXPECT_EQ(composed.host_names.at(1), "n2");
  EXPECT_EQ(composed.host_names.at(9), "n10");

  Topology built = described("n1").topology;
  built.groups = {{0, 64}};
  RailOptimisedShape shape;
  shape.hosts_per_leaf = 32;
  shape.spine_count = 8;
  shape.oversubscription = 2;
  built.fabric = build_rail_optimised(built, shape);
  EXPECT_EQ(fingerprint(composed), fingerprint(built));
  EXPECT_EQ(composed.templates.at(0).name, "like n1");
  // All but what the hosts are called and where it was read.
  composed.templates[0].name = built.templates[0].name;
  composed.host_names.clear();
  composed.warnings.clear();
  composed.name = built.name;
  composed.source = built.source;
  EXPECT_EQ(composed, built);
}

TEST(Compose, ThroughFiles_IsTheSame) {
  std::vector<DescribedHosts> hosts = numbered(4);
  for (DescribedHosts& host : hosts) host.topology = read_cluster_json(write_cluster_json(host.topology), host.label);
  ComposeOptions options;
  options.fabric_spec = "fat-tree:hosts_per_leaf=2,spine_count=2";
  const Topology composed = compose(hosts, std::nullopt, options);
  EXPECT_EQ(fingerprint(composed), fingerprint(compose(numbered(4), std::nullopt, options)));
  const std::string text = write_cluster_json(composed);
  EXPECT_EQ(write_cluster_json(read_cluster_json(text, "composed.json")), text);
}

TEST(Compose, HostThatDiffers_IsATemplateOfItsOwnAndIsSaid) {
  std::vector<DescribedHosts> hosts = numbered(3);
  HostTemplate& odd = hosts[0].topology.templates[0];  // n3
  odd.links[0].GBps_per_direction /= 2;
  odd.shape.reset();
  const Topology composed = compose(hosts, std::nullopt, {});
  EXPECT_EQ(composed.templates.size(), 2U);
  EXPECT_EQ(composed.groups, (std::vector<HostGroup>{{0, 2}, {1, 1}}));
  EXPECT_TRUE(warns(composed, "n3: not as n1 (2 of 3 hosts): ")) << composed.warnings.at(0);
}

TEST(Compose, NameDescribedTwice_AlikeIsSaidAndDifferentlyIsRefused) {
  std::vector<DescribedHosts> hosts = {described("a"), described("b")};
  for (DescribedHosts& host : hosts) host.topology.host_names = {"n1"};
  const Topology composed = compose(hosts, std::nullopt, {});
  EXPECT_EQ(composed.host_count(), 1);
  EXPECT_TRUE(warns(composed, "n1: described by a and by b, alike"));
  HostShape other = small_shape();
  other.nics = 2;
  hosts[1] = described("b", other);
  hosts[1].topology.host_names = {"n1"};
  EXPECT_TRUE(contains(refusal([&] { compose(hosts, std::nullopt, {}); }), "n1: described by a and by b, differently"));
}

TEST(Compose, HostsThatNothingJoins_AreSaid) {
  EXPECT_TRUE(warns(compose(numbered(2), std::nullopt, {}), "nothing joins the hosts"));
  EXPECT_FALSE(warns(compose(numbered(1), std::nullopt, {}), "nothing joins the hosts"));
}

TEST(Compose, HostsWithANetwork_AreRefused) {
  EXPECT_TRUE(contains(refusal([] {
                         compose(std::vector<DescribedHosts>{{"c", small_cluster(2)}}, std::nullopt, {});
                       }),
                       "has a network of its own"));
}

// ---------------------------------------------------------------- on a network

constexpr const char* kTree =
    "SwitchName=a Nodes=n3,n1\nSwitchName=b Nodes=n2.cluster.local,spare\nSwitchName=top Switches=a,b\n";

TEST(Compose, OnSlurmsTree_HostsStandWhereItSays) {
  const Topology composed = compose(numbered(3), slurm(kTree), {});
  EXPECT_EQ(composed.host_names, (std::vector<std::string>{"n3", "n1", "n2", "spare"}));
  EXPECT_EQ(composed.gpus_per_host(2), 4);
  EXPECT_EQ(composed.gpus_per_host(3), 0);
  EXPECT_TRUE(warns(composed, "1 of 4 hosts of the network are not described (\"spare\" first)"));
  EXPECT_FALSE(warns(composed, "not as"));
  // Two hosts of 4 NICs at 25 GB/s below each leaf.
  EXPECT_DOUBLE_EQ(composed.fabric->uplink.GBps_per_direction, 200);
  EXPECT_EQ(composed.fabric->uplink.source, Source::assumed);
  EXPECT_TRUE(warns(composed, "1:1, as the network's file has no rates"));
  EXPECT_EQ(composed.fabric->leaf_names, (std::vector<std::string>{"a", "b"}));
}

TEST(Compose, HostThatTheNetworkLacks_IsRefusedByName) {
  EXPECT_TRUE(contains(refusal([] { compose(numbered(5), slurm(kTree), {}); }), "n4: not in the network, and 1 more"));
}

TEST(Compose, NetworkWithGpus_IsRefused) {
  EXPECT_TRUE(
      contains(refusal([] { compose(numbered(1), small_cluster(2), {}); }), "a description of the network alone"));
}

// Hosts n1 and n2 of the shape, all four NICs of 25 GB/s on one leaf, as ibnetdiscover would have them.
Topology cabled(double GBps = 25, int nics = 4) {
  Topology network;
  network.name = network.source = "ib.out";
  HostTemplate host;
  host.name = "4 adapters";
  host.devices = {{DeviceKind::numa, "numa0", "", -1, {}}};
  for (int i = 0; i < nics; ++i) {
    host.devices.push_back({DeviceKind::nic, "nic" + std::to_string(i), "", -1, {}});
    // The cables are on rails in the reverse order of the NICs.
    host.nics.push_back({i + 1, nics - 1 - i, "nic" + std::to_string(i), {GBps, 0, Source::datasheet, "4xHDR"}, {}});
  }
  network.templates = {host};
  network.groups = {{0, 2}};
  network.host_names = {"n1", "n2"};
  Fabric fabric;
  fabric.rails = nics;
  fabric.rail_optimised = true;
  fabric.hosts_per_leaf = 2;
  network.fabric = fabric;
  require_valid(network, "test");
  return network;
}

std::vector<DescribedHosts> two_with_known_ports(double GBps) {
  HostShape shape = small_shape();
  shape.nic = {GBps, 3, Source::datasheet, "port"};
  std::vector<DescribedHosts> hosts = {described("n1", shape), described("n2", shape)};
  for (DescribedHosts& host : hosts)
    for (std::size_t i = 0; i < 4; ++i) host.topology.templates[0].nics[i].name = "nic" + std::to_string(i);
  return hosts;
}

TEST(Compose, OnCables_RailsAreTheNetworks) {
  const Topology composed = compose(two_with_known_ports(25), cabled(), {});
  for (int i = 0; i < 4; ++i) EXPECT_EQ(composed.templates.at(0).nics.at(static_cast<std::size_t>(i)).rail, 3 - i);
  EXPECT_TRUE(composed.templates.at(0).nics.at(0).port.source == Source::datasheet);
  EXPECT_TRUE(warns(composed, "n1 nic0: on rail 3 by its cable, 0 by its place in the host"));
}

TEST(Compose, PortRatesThatDiffer_AreRefusedUntilSomeoneIsPreferred) {
  const std::vector<DescribedHosts> hosts = two_with_known_ports(50);
  const std::string message = refusal([&] { compose(hosts, cabled(), {}); });
  EXPECT_TRUE(contains(message, "n1 nic0: 50 GB/s, and 25 on the network")) << message;
  ComposeOptions options;
  options.prefer = ComposeOptions::Prefer::hosts;
  EXPECT_EQ(compose(hosts, cabled(), options).templates.at(0).nics.at(0).port.GBps_per_direction, 50);
  options.prefer = ComposeOptions::Prefer::network;
  const Topology composed = compose(hosts, cabled(), options);
  EXPECT_EQ(composed.templates.at(0).nics.at(0).port.GBps_per_direction, 25);
  EXPECT_TRUE(warns(composed, "25 is taken"));
}

TEST(Compose, AssumedPortRate_GivesWayToTheCables) {
  std::vector<DescribedHosts> hosts = two_with_known_ports(50);
  for (DescribedHosts& host : hosts)
    for (Nic& nic : host.topology.templates[0].nics) nic.port.source = Source::assumed;
  EXPECT_EQ(compose(hosts, cabled(), {}).templates.at(0).nics.at(0).port.GBps_per_direction, 25);
}

TEST(Compose, NicsThatTheNetworkLacks_AreLeftOutAndThoseTheHostLacksRefused) {
  std::vector<DescribedHosts> hosts = two_with_known_ports(25);
  const Topology composed = compose(hosts, cabled(25, 3), {});
  EXPECT_EQ(composed.templates.at(0).nics.size(), 3U);
  EXPECT_TRUE(warns(composed, "n1: NICs that this network does not have are left out of it: nic3"));
  hosts[1].topology.templates[0].nics.pop_back();
  hosts[1].topology.templates[0].shape.reset();
  EXPECT_TRUE(contains(refusal([&] { compose(hosts, cabled(), {}); }), "n2: 3 NICs (nic0, nic1, nic2)"));
}

TEST(Compose, NicsOfOtherNames_AreRefusedOrMatchedByOrderAndSaid) {
  std::vector<DescribedHosts> hosts = two_with_known_ports(25);
  for (DescribedHosts& host : hosts)
    for (Nic& nic : host.topology.templates[0].nics) nic.name = "ib" + nic.name;
  EXPECT_TRUE(contains(refusal([&] { compose(hosts, cabled(), {}); }), "name them alike, or --prefer network"));
  ComposeOptions options;
  options.prefer = ComposeOptions::Prefer::network;
  const Topology composed = compose(hosts, cabled(), options);
  EXPECT_EQ(composed.templates.at(0).nics.at(0).rail, 3);
  EXPECT_TRUE(warns(composed, "n1: NICs of other names (ibnic0 first, nic0 on the network): matched by their order"));
}

// ---------------------------------------------------------------- scale-up domains

TEST(Compose, CliquesOfTheGpus_AreDomains) {
  // a and c share one domain, b and d the other: side by side after composing, and of one kind.
  const std::vector<DescribedHosts> hosts = {in_domain("a", "1"), in_domain("b", "2"), in_domain("c", "1"),
                                             in_domain("d", "2")};
  const Topology composed = compose(hosts, std::nullopt, {});
  EXPECT_EQ(composed.hosts_per_domain, 2);
  EXPECT_EQ(composed.host_names, (std::vector<std::string>{"a", "c", "b", "d"}));
  EXPECT_EQ(composed.templates.size(), 1U);
  EXPECT_EQ(route(composed, 0, 4).path_class, PathClass::NVL);
  EXPECT_EQ(route(composed, 0, 8).path_class, PathClass::DIS);
}

TEST(Compose, DomainThatTheNetworkCuts_IsRefused) {
  const std::vector<DescribedHosts> hosts = {in_domain("n1", "1"), in_domain("n2", "1"), in_domain("n3", "2")};
  const std::string message = refusal([&] { compose(hosts, slurm(kTree), {}); });  // n3, n1, n2, spare
  EXPECT_TRUE(contains(message, "n1: its NVLink domain does not fit into hosts 0 to 1")) << message;
}

TEST(Compose, HostWithoutDomainAmongOthers_IsRefused) {
  const std::vector<DescribedHosts> hosts = {in_domain("n1", "1"), in_domain("n2", "1"), described("n3")};
  EXPECT_TRUE(contains(refusal([&] { compose(hosts, std::nullopt, {}); }), "n3: in no NVLink domain"));
}

TEST(Compose, GpusOfTwoCliquesInOneHost_AreRefused) {
  DescribedHosts host = in_domain("n1", "1");
  HostTemplate& own = host.topology.templates[0];
  own.devices[static_cast<std::size_t>(own.gpus[0])].attributes.pop_back();
  EXPECT_TRUE(contains(refusal([&] { compose(std::vector{host}, std::nullopt, {}); }), "n1: GPUs of 2 fabric cliques"));
}

TEST(Compose, BlocksOfTheNetwork_AreDomainsOnlyWhereHostsSayThatTheyShareOne) {
  const Topology blocks = slurm("BlockName=x Nodes=n[1-2]\nBlockName=y Nodes=n[3-4]\nBlockSizes=2\n");
  const Topology racks = compose(numbered(3), blocks, {});
  EXPECT_EQ(racks.hosts_per_domain, 1);
  EXPECT_TRUE(warns(racks, "--hosts-per-domain 2 where a block is an NVLink domain"));
  EXPECT_FALSE(warns(racks, "are taken as scale-up domains"));
  ComposeOptions options;
  options.hosts_per_domain = 2;
  EXPECT_EQ(compose(numbered(3), blocks, options).hosts_per_domain, 2);
  const std::vector<DescribedHosts> said = {in_domain("n1", "1"), in_domain("n2", "1"), in_domain("n3", "2")};
  EXPECT_EQ(compose(said, blocks, {}).hosts_per_domain, 2);
  std::vector<DescribedHosts> hosts;
  for (const char* name : {"n1", "n2", "n3", "n4"}) hosts.push_back(in_domain(name, "1"));
  EXPECT_TRUE(contains(refusal([&] { compose(hosts, blocks, {}); }), "blocks of 2 hosts"));
}

// ---------------------------------------------------------------- a fabric in one line

TEST(FabricSpec, FieldsAreThoseOfTheBuilders) {
  Topology hosts = small_cluster(4);
  hosts.fabric.reset();
  FatTreeShape shape;
  shape.hosts_per_leaf = 1;
  shape.spine_count = 2;
  shape.hosts_per_pod = 2;
  shape.core_count = 3;
  EXPECT_EQ(fabric_from_spec(hosts, "fat-tree:hosts_per_leaf=1,spine_count=2,hosts_per_pod=2,core_count=3"),
            build_fat_tree(hosts, shape));
  const Fabric torus = fabric_from_spec(hosts, "torus:dims=2x2,GBps=50,latency_us=0.5");
  EXPECT_EQ(torus.dims, (std::vector<int>{2, 2}));
  EXPECT_EQ(torus.ring.latency_us, 0.5);
  DragonflyPlusShape dragonfly;
  dragonfly.hosts_per_leaf = 1;
  dragonfly.hosts_per_group = 2;
  dragonfly.spine_count = 1;
  EXPECT_EQ(fabric_from_spec(hosts, "dragonfly-plus:hosts_per_leaf=1,hosts_per_group=2,spine_count=1"),
            build_dragonfly_plus(hosts, dragonfly));
}

TEST(FabricSpec, WhatDoesNotFit_IsRefusedByField) {
  Topology hosts = small_cluster(4);
  hosts.fabric.reset();
  const auto said = [&](const std::string& spec) { return refusal([&] { fabric_from_spec(hosts, spec); }); };
  EXPECT_TRUE(contains(said("fat-tree"), "fat-tree.hosts_per_leaf: not given"));
  EXPECT_TRUE(contains(said("fat-tree:16"), "name=value"));
  EXPECT_TRUE(contains(said("fat-tree:hosts_per_leaf=two,spine_count=1"), "fat-tree.hosts_per_leaf: \"two\""));
  EXPECT_TRUE(contains(said("fat-tree:hosts_per_leaf=99999999999,spine_count=1"), "\"99999999999\""));
  EXPECT_TRUE(contains(said("fat-tree:hosts_per_leaf=1,spine_count=1,spines=3"), "the fields are hosts_per_leaf,"));
  EXPECT_TRUE(contains(said("fat-tree:hosts_per_leaf=1,hosts_per_leaf=1"), "given twice"));
  EXPECT_TRUE(contains(said("torus:dims=2x,GBps=1"), "4x4x2"));
  EXPECT_TRUE(contains(said("torus:dims=2x2,GBps=nan"), "GBps"));
  EXPECT_TRUE(contains(said("mesh:4"), "fat-tree:, rail-optimised:"));
  EXPECT_TRUE(contains(said("fat-tree:hosts_per_leaf=1\n,x=\x07"), "fabric: \"fat-tree:hosts_per_leaf=1?,x=?\""));
  EXPECT_TRUE(contains(said("fat-tree:leafs=3"), "fat-tree.leafs: 3: the fields are"));
  EXPECT_TRUE(contains(said("fat-tree:hosts_per_leaf=2"), "fat-tree.spine_count: not given"));
  EXPECT_TRUE(is_fabric_spec("mesh:4"));
  EXPECT_TRUE(is_fabric_spec("rail-optimized"));
  EXPECT_TRUE(fabric_from_spec(hosts, "rail-optimized:hosts_per_leaf=2,spine_count=1").rail_optimised);
  EXPECT_FALSE(is_fabric_spec("/tmp/a:b"));
  EXPECT_FALSE(is_fabric_spec("fat-tree.conf"));
}

}  // namespace
}  // namespace topomoe::test
