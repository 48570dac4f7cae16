// Slurm's and SimGrid's forms of a topology, read back.
#include "topomoe/export.hpp"

#include "random_cluster.hpp"
#include "support.hpp"
#include "topology/fabric.hpp"
#include "topology/read/host_list.hpp"
#include "topology/read/readers.hpp"
#include "topomoe/build_fabric.hpp"

namespace topomoe::test {
namespace {

using Names = std::vector<std::string>;

std::string listed(const Names& names) { return host_list_of(names, "t"); }

TEST(HostListOf, Names_AreShortAndInOrder) {
  EXPECT_EQ(listed({"n1", "n2", "n3", "n7", "m4"}), "n[1-3,7],m4");
  EXPECT_EQ(listed({"n08", "n09", "n10", "n100"}), "n[08-10,100]");
  EXPECT_EQ(listed({"n9", "n10", "n011"}), "n[9-10,011]");
  EXPECT_EQ(listed({"node-0.x", "node-1.x", "node-1.y", "login"}), "node-[0-1].x,node-1.y,login");
  EXPECT_EQ(listed({"3", "2", "1"}), "[3,2,1]");
  for (const char* name : {"", "a b", "a,b", "a[1]", "a=b", "a#1"})
    EXPECT_TRUE(contains(refusal([&] { listed({name}); }), "t: ")) << name;
}

TEST(HostListOf, DrawnNames_ComeBack) {
  std::mt19937 dice(7);
  for (int turn = 0; turn < 300; ++turn) {
    Names names;
    for (unsigned i = 0; i < 12; ++i) {
      std::string number = std::to_string(dice() % 13);
      if (dice() % 3 == 0) number.insert(0, "0");
      names.push_back((dice() % 2 == 0 ? "n" : "m") + number + (dice() % 4 == 0 ? ".x" : ""));
    }
    Names again;
    add_host_list(listed(names), "t", 1000, again);
    EXPECT_EQ(again, names) << listed(names);
  }
}

void expect_same_leaves(const Topology& topology) {
  const Topology again = read_slurm_conf(write_slurm_tree(topology), "again.conf");
  ASSERT_TRUE(again.fabric);
  EXPECT_EQ(unit_of_hosts(again), unit_of_hosts(topology));
  for (int host = 0; host < topology.host_count(); ++host) EXPECT_EQ(again.host_name(host), topology.host_name(host));
  EXPECT_EQ(again.fabric->hosts_per_pod > 0, topology.fabric->hosts_per_pod > 0);
  EXPECT_EQ(pod_sizes(*again.fabric, topology.host_count()), pod_sizes(*topology.fabric, topology.host_count()));
  EXPECT_EQ(again.fabric->spine_count > 0, topology.fabric->spine_count > 0);
}

TEST(WriteSlurm, UnevenTree_ComesBackWithItsNames) {
  const Topology topology = read_topology_file(fixture("slurm-uneven-tree.conf"));
  expect_same_leaves(topology);
  const Topology again = read_slurm_conf(write_slurm_tree(topology), "again.conf");
  EXPECT_EQ(again.host_names, topology.host_names);
  EXPECT_EQ(again.fabric->leaf_names, topology.fabric->leaf_names);
}

TEST(WriteSlurm, DrawnFabrics_KeepTheirLeaves) {
  int trees = 0, refused = 0;
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    Topology topology = random_alike_cluster(seed, 4);
    topology.name = "drawn\nby dice";
    if (!topology.fabric || topology.fabric->kind == FabricKind::torus) {
      EXPECT_TRUE(contains(refusal([&] { write_slurm_tree(topology); }), "export slurm: "));
      ++refused;
    } else {
      expect_same_leaves(topology);
      ++trees;
    }
  }
  EXPECT_GT(trees, 20);
  EXPECT_GT(refused, 2);
}

TEST(WriteSlurm, RailsAndGroups_AreSaidInComments) {
  EXPECT_TRUE(contains(write_slurm_tree(small_cluster(4)),
                       "# unit1: leaf4 to leaf7, one for each rail\nSwitchName=unit0 Nodes=host[0-1]\n"));
  EXPECT_TRUE(contains(write_slurm_tree(cluster("h100-512x8-dragonfly")), "TopologyParam=Dragonfly"));
}

TEST(WriteSlurm, Domains_AreBlocksOfAnotherFile) {
  const Topology topology = read_topology_file(fixture("slurm-blocks.conf"));
  const std::string text = write_slurm_blocks(topology);
  EXPECT_TRUE(contains(text, "BlockName=block2 Nodes=tray[201-209]\nBlockSizes=9\n"));
  const Topology again = read_slurm_conf(text, "again.conf");
  EXPECT_EQ(again.hosts_per_domain, 18);
  EXPECT_EQ(again.host_names, topology.host_names);
  EXPECT_TRUE(contains(refusal([] { write_slurm_blocks(small_cluster(2)); }), "no scale-up domain of several hosts"));
}

// The least rate between each two hosts, of two descriptions of the network alone.
void expect_same_network(const Topology& topology, const Topology& again) {
  EXPECT_EQ(again.host_names, topology.host_names);
  EXPECT_EQ(unit_of_hosts(again), unit_of_hosts(topology));
  const Router a(with_gpus(topology)), b(with_gpus(again));
  for (int src = 0; src < topology.host_count(); ++src)
    for (int dst = 0; dst < topology.host_count(); ++dst) {
      EXPECT_DOUBLE_EQ(a.route(src, dst).bottleneck_GBps, b.route(src, dst).bottleneck_GBps) << src << " to " << dst;
      EXPECT_NEAR(a.route(src, dst).latency_us, b.route(src, dst).latency_us, 1e-9) << src << " to " << dst;
    }
}

TEST(WriteSimgrid, NetworkAlone_ComesBackEqual) {
  const auto through = [](const Topology& topology) { return read_simgrid(write_simgrid(topology), "again.xml"); };
  const Topology sites = read_topology_file(fixture("simgrid-sites.xml"));
  expect_same_network(sites, through(sites));
  const Topology pods = read_topology_file(fixture("simgrid-fat-tree.xml"));
  expect_same_network(pods, through(pods));
  for (const char* name : {"l", "m"}) {  // two hosts alone; two leaves of two
    const std::string cluster = std::string("<cluster id=\"") + name + "\" prefix=\"" + name +
                                "\" suffix=\"\" radical=\"0-1\" speed=\"1f\" bw=\"1GBps\" lat=\"1us\"/>";
    const Topology two = read_simgrid("<platform version=\"4\">" + cluster + "</platform>", "two.xml");
    expect_same_network(two, through(two));
  }
}

TEST(WriteSimgrid, Gpus_AreHostsAndOurLinksAreLinks) {
  const std::string text = write_simgrid(small_cluster(2));
  EXPECT_TRUE(contains(text, "<host id=\"host1.gpu3\" speed=\"1Gf\" />"));
  EXPECT_TRUE(contains(text, "<link id=\"host0.gpu0-&gt;nvswitch\" bandwidth=\"100GBps\" latency=\"0.5us\"") ||
              contains(text, "<link id=\"host0.gpu0->nvswitch\" bandwidth=\"100GBps\" latency=\"0.5us\""))
      << text.substr(0, 2000);
  EXPECT_TRUE(contains(text, "<route src=\"host0.gpu0\" dst=\"host1.gpu3\" symmetrical=\"NO\">"));
}

TEST(WriteSimgrid, WhatItCannotHold_IsRefused) {
  EXPECT_TRUE(contains(refusal([] { write_simgrid(small_cluster(65)); }), "260 GPUs: at most 256"));
  const Topology slurm = read_topology_file(fixture("slurm-uneven-tree.conf"));
  EXPECT_TRUE(contains(refusal([&] { write_simgrid(slurm); }), "uplink unknown"));
}

}  // namespace
}  // namespace topomoe::test
