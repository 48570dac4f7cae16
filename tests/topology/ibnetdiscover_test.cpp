// What ibnetdiscover prints, in either form.
#include "support.hpp"
#include "topology/read/readers.hpp"

namespace topomoe::test {
namespace {

// leaf-a has 3 hosts and 2 + 2 cables of 25 GB/s up, leaf-b 1 host and 2 + 1: 3/4 of its sibling's.
TEST(Ibnetdiscover, FullForm_CountsCablesAndMissesOne) {
  const Topology topology = read_topology_file(fixture("ib-two-tiers.out"));
  const Fabric& fabric = *topology.fabric;
  EXPECT_EQ(topology.host_names, (std::vector<std::string>{"n1", "n2", "n10", "n4"}));
  EXPECT_EQ(fabric.leaf_names, (std::vector<std::string>{"leaf-a", "leaf-b"}));
  EXPECT_TRUE(fabric.leaf_hosts.empty());  // 3 and 1: as even as it gets
  EXPECT_EQ(fabric.hosts_per_leaf, 3);
  EXPECT_EQ(fabric.spine_count, 2);
  EXPECT_DOUBLE_EQ(fabric.uplink.GBps_per_direction, 100);
  EXPECT_DOUBLE_EQ(fabric.oversubscription, 0.75);
  ASSERT_EQ(fabric.exceptions.size(), 1U);
  EXPECT_EQ(fabric.exceptions[0].name, "leaf1->spine");
  EXPECT_DOUBLE_EQ(fabric.exceptions[0].factor, 0.75);
  EXPECT_TRUE(warns(topology, "leaf1->spine (\"leaf-b\") carries 75 GB/s, others 100"));
  EXPECT_TRUE(warns(topology, "1 aggregation nodes"));
  const Nic& nic = topology.host_template(0).nics.at(0);
  EXPECT_EQ(nic.name, "mlx5_0");
  EXPECT_DOUBLE_EQ(nic.port.GBps_per_direction, 25);
}

// Only hosts' cables have a speed: what leaves carry up is not known, and does not follow from the adapters in JSON.
TEST(Ibnetdiscover, CablesOfUnknownSpeed_StayUnknownInJson) {
  std::string text = text_of(fixture("ib-two-tiers.out"));
  for (std::size_t at = 0; (at = text.find("4xHDR", at)) != std::string::npos; ++at) {
    const std::size_t line = text.rfind('\n', at) + 1;
    if (contains(text.substr(line, at - line), "spine")) text.replace(at, 5, "?xHDR");
  }
  const Topology topology = read_ibnetdiscover(text, "t.out");
  EXPECT_EQ(topology.fabric->uplink.GBps_per_direction, 0);
  EXPECT_EQ(topology.fabric->uplink.source, Source::unknown);
  const std::string json = write_cluster_json(topology);
  EXPECT_EQ(read_cluster_json(json, "t.json").fabric, topology.fabric);
  EXPECT_EQ(write_cluster_json(read_cluster_json(json, "t.json")), json);
}

TEST(Ibnetdiscover, PortForm_FindsRails) {
  const Topology topology = read_topology_file(fixture("ib-rails-p.out"));
  const Fabric& fabric = *topology.fabric;
  EXPECT_TRUE(fabric.rail_optimised);
  EXPECT_EQ(fabric.rails, 2);
  EXPECT_EQ(topology.leaf_count(), 2);
  EXPECT_TRUE(topology.templates.at(0).name.starts_with("2 adapters, like ")) << topology.templates[0].name;
  EXPECT_EQ(fabric.leaf_names, (std::vector<std::string>{"rail-a", "rail-b"}));  // mlx5_2 before mlx5_10
  EXPECT_DOUBLE_EQ(fabric.uplink.GBps_per_direction, 50);
  EXPECT_TRUE(fabric.exceptions.empty());
  EXPECT_EQ(topology.groups.size(), 1U);
  EXPECT_TRUE(warns(topology, "1 switches without a live cable"));
}

std::string cable(const char* a, int pa, const char* name_a, const char* b, int pb, const char* name_b) {
  const auto end = [](const char* guid, int port) {
    return std::string(guid[0] == 'h' ? "CA" : "SW") + " 1 " + std::to_string(port) + " 0x" + guid;
  };
  return end(a, pa) + " 4x EDR - " + end(b, pb) + " ( '" + name_a + "' - '" + name_b + "' )\n";
}

Topology read(const std::string& text) { return read_ibnetdiscover(text, "t.out"); }

// The second pod's only host has no adapter of the first rail: the pod is called after its other leaf.
TEST(Ibnetdiscover, PodWhoseFirstLeafIsMissing_IsNamedByItsNext) {
  const Topology topology =
      read(cable("h1", 1, "n1 mlx5_0", "a0", 1, "leaf-a0") + cable("h2", 1, "n1 mlx5_1", "a1", 1, "leaf-a1") +
           cable("h3", 1, "n2 mlx5_1", "b1", 1, "leaf-b1") + cable("a0", 9, "leaf-a0", "s1", 1, "s1") +
           cable("a1", 9, "leaf-a1", "s1", 2, "s1") + cable("b1", 9, "leaf-b1", "s2", 1, "s2") +
           cable("s1", 8, "s1", "c1", 1, "core") + cable("s1", 9, "s1", "c1", 2, "core") +
           cable("s2", 9, "s2", "c1", 3, "core"));
  EXPECT_TRUE(warns(topology, "pod of \"leaf-b1\""));
}

// Two pods of a leaf and a spine under one core; the second has two cables up, the first one.
TEST(Ibnetdiscover, ThreeTiers_HavePodsAndCores) {
  std::string text = cable("h1", 1, "n1 mlx5_0", "a1", 1, "l1") + cable("h2", 1, "n2 mlx5_0", "a2", 1, "l2") +
                     cable("a1", 9, "l1", "b1", 1, "s1") + cable("a2", 9, "l2", "b2", 1, "s2") +
                     cable("b1", 9, "s1", "c1", 1, "core") + cable("b2", 9, "s2", "c1", 2, "core");
  const std::string second = cable("b2", 10, "s2", "c1", 3, "core");
  const Topology even = read(text);
  EXPECT_EQ(even.fabric->core_count, 1);
  EXPECT_EQ(even.fabric->hosts_per_pod, 1);
  EXPECT_TRUE(even.fabric->exceptions.empty());
  const Topology uneven = read(text + second);
  EXPECT_DOUBLE_EQ(uneven.fabric->pod_uplink.GBps_per_direction, 25);
  ASSERT_EQ(uneven.fabric->exceptions.size(), 1U);
  EXPECT_EQ(uneven.fabric->exceptions[0].name, "pod0->core");
  EXPECT_DOUBLE_EQ(uneven.fabric->exceptions[0].factor, 0.5);
  // The same from the other end is the same cable.
  EXPECT_EQ(fingerprint(read(text + cable("c1", 2, "core", "b2", 9, "s2"))), fingerprint(even));
}

TEST(Ibnetdiscover, RailsWithSpinesOfTheirOwn_ArePlanes) {
  const Topology topology =
      read(cable("h1", 1, "n1 mlx5_0", "a1", 1, "r0") + cable("h2", 1, "n1 mlx5_1", "a2", 1, "r1") +
           cable("h3", 1, "n2 mlx5_0", "a3", 1, "r2") + cable("h4", 1, "n2 mlx5_1", "a4", 1, "r3") +
           cable("a1", 9, "r0", "b1", 1, "s0") + cable("a3", 9, "r2", "b1", 2, "s0") +
           cable("a2", 9, "r1", "b2", 1, "s1") + cable("a4", 9, "r3", "b2", 2, "s1"));
  EXPECT_EQ(topology.fabric->planes, 2);
  EXPECT_EQ(topology.leaf_count(), 4);
  EXPECT_EQ(topology.fabric->hosts_per_leaf, 1);
}

TEST(Ibnetdiscover, LeafWithoutCableUp_IsAnException) {
  const Topology topology = read(cable("h1", 1, "n1 mlx5_0", "a1", 1, "l1") +
                                 cable("h2", 1, "n2 mlx5_0", "a2", 1, "l2") + cable("a1", 9, "l1", "b1", 1, "s1"));
  ASSERT_EQ(topology.fabric->exceptions.size(), 1U);
  EXPECT_EQ(topology.fabric->exceptions[0].name, "leaf1->spine");
  EXPECT_EQ(topology.fabric->exceptions[0].factor, 0);
}

TEST(Ibnetdiscover, WhatIsNoTree_IsSaid) {
  const std::string hosts = cable("h1", 1, "n1 mlx5_0", "a1", 1, "l1") + cable("h2", 1, "n2 mlx5_0", "a2", 1, "l2");
  const auto said = [](const std::string& text) { return refusal([&] { read(text); }); };
  EXPECT_TRUE(contains(said(hosts + cable("a1", 9, "l1", "a2", 9, "l2")),
                       "\"l1\" and \"l2\", both leaves, are joined directly"));
  EXPECT_TRUE(contains(said(hosts + cable("a1", 9, "l1", "b1", 1, "s1") + cable("a2", 9, "l2", "b2", 1, "s2") +
                            cable("b1", 9, "s1", "b2", 9, "s2")),
                       "both spines"));
  EXPECT_TRUE(contains(said(hosts + cable("a1", 9, "l1", "b1", 1, "s1") + cable("b1", 9, "s1", "c1", 1, "c1") +
                            cable("c1", 9, "c1", "d1", 1, "d1")),
                       "\"d1\" three switches above"));
  EXPECT_TRUE(contains(said(hosts + cable("h3", 1, "n1 mlx5_1", "a2", 2, "l2")), "t.out"));
  EXPECT_TRUE(contains(said(cable("a1", 9, "l1", "b1", 1, "s1")), "no host"));
  EXPECT_TRUE(contains(said(cable("h1", 1, "n1", "h2", 1, "n2")), "without a switch"));
  EXPECT_TRUE(contains(said("hello\n"), "line 1"));
  EXPECT_TRUE(contains(said("[1] \"S-1\"[1] # \"x\" 4xHDR\n"), "a port before any Switch"));
}

TEST(Ibnetdiscover, CutOffOrSpoiltAtEachByte_IsReadOrRefused) {
  for (const char* file : {"ib-two-tiers.out", "ib-rails-p.out"}) {
    const std::string text = text_of(fixture(file));
    const auto read_or_refused = [](const std::string& some) {
      try {
        EXPECT_GT(read(some).host_count(), 0);
      } catch (const InvalidInput&) {
      }
    };
    for (std::size_t i = 0; i < text.size(); ++i) {
      read_or_refused(text.substr(0, i));
      std::string spoilt = text;
      spoilt[i] = "[]'\"S-9\n"[i % 8];
      read_or_refused(spoilt);
    }
  }
}

// Lines of a large subnet: leaves that lack their cables up, dead ports, an aggregation node.
TEST(Ibnetdiscover, OthersFiles_ReadAndRoundTrip) {
  const std::string folder = data_path("topologies/ib");
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not there; set TOPOMOE_DATA_DIR";
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".out") continue;
    SCOPED_TRACE(entry.path());
    const Topology topology = read_topology_file(entry.path());
    const bool first = entry.path().filename() == "treydock-ibnetdiscover-p-test.out";
    if (first) {
      EXPECT_EQ(topology.host_names, (std::vector<std::string>{"o0001", "o0002", "p0001"}));
      EXPECT_EQ(topology.fabric->exceptions.at(0).name, "leaf1->spine");  // of ib-i4l1s01 no cable up is listed
      EXPECT_DOUBLE_EQ(topology.fabric->uplink.GBps_per_direction, 12.5);
    }
    const std::string written = write_cluster_json(topology);
    EXPECT_EQ(write_cluster_json(read_cluster_json(written, "again")), written);
    EXPECT_FALSE(show_text(topology).empty());
    ++files;
  }
  EXPECT_GT(files, 1);
}

}  // namespace
}  // namespace topomoe::test
