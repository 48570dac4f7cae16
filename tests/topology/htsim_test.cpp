// htsim's fat trees as hosts and a fabric.
#include "spoiled.hpp"
#include "topology/read/readers.hpp"

namespace topomoe::test {
namespace {

Topology read(const std::string& text) { return read_htsim(text, "t.topo"); }

// A leaf has 4 x 25 GB/s down and half of it up, in 2 links to 2 spines of its pod; a pod of 8 hosts sends 100 GB/s,
// the pods together 16 links to 16 / 8 cores. Latency: 1 us and half of the leaf's 0.1; 0.5 us and half of 0.1 and 0.2;
// 2 us and half of 0.2.
TEST(Htsim, ThreeTiers_AreReadWhole) {
  const Topology topology = read_topology_file(fixture("htsim-three-tiers.topo"));
  EXPECT_EQ(topology.host_count(), 16);
  EXPECT_EQ(topology.gpu_count(), 0);
  EXPECT_EQ(topology.leaf_count(), 4);
  const Fabric& fabric = *topology.fabric;
  EXPECT_EQ(fabric.hosts_per_leaf, 4);
  EXPECT_EQ(fabric.spine_count, 2);
  EXPECT_EQ(fabric.hosts_per_pod, 8);
  EXPECT_EQ(fabric.core_count, 2);
  EXPECT_EQ(fabric.uplink.GBps_per_direction, 50);
  EXPECT_EQ(fabric.pod_uplink.GBps_per_direction, 100);
  EXPECT_EQ(fabric.oversubscription, 2);
  EXPECT_EQ(fabric.pod_oversubscription, 1);
  EXPECT_DOUBLE_EQ(topology.templates[0].nics[0].port.latency_us, 1.05);
  EXPECT_DOUBLE_EQ(fabric.uplink.latency_us, 0.65);
  EXPECT_DOUBLE_EQ(fabric.pod_uplink.latency_us, 2.1);
  EXPECT_TRUE(warns(topology, "GPUs are not in such a file"));
}

TEST(Htsim, NumbersThatDoNotFitTogether_AreRefused) {
  const std::string text = text_of(fixture("htsim-three-tiers.topo"));
  const auto with = [&](const std::string& what, const std::string& by) {
    std::string own = text;
    own.replace(own.find(what), what.size(), by);
    return own;
  };
  const std::pair<std::string, const char*> cases[] = {
      {"", "nodes: missing"},
      {with("Nodes 16", "Nodes many"), "line 2: nodes: \"many\": a whole number"},
      {with("Nodes 16", "Nodes 0"), "at least 1"},
      {with("Nodes 16", "Nodes 17"), "nodes in pods: 17 over 8"},
      {with("Tiers 3", "Tiers 4"), "tiers: 4: 2 or 3"},
      {with("Tiers 3", "Tiers 2"), "with two tiers all nodes are one pod"},
      {with("Podsize 8", "Podsize 8\nPodsize 8"), "given twice"},
      {with("Tier 0", "Tier 3"), "tiers are 0"},
      {with("Tier 0\n", ""), "belongs below a line"},
      {with("Radix_Down 4", "Radix_Down 3"), "podsize in leaves: 8 over 3"},
      {with("Radix_Up 2", "Radix_Up 3"), "tier 0 radix_up: 3: 2 by speeds and Oversubscribed"},
      {with("Radix_Up 4", "Radix_Up 2"), "tier 1 radix_up: 2: 4 by speeds"},
      {with("Oversubscribed 2", "Oversubscribed 3"), "uplinks"},
      {with("Radix_Down 8", "Radix_Down 5"), "switches of a tier: 16 over 5"},
      {with("Radix_Down 8", ""), "tier 2 radix_down: missing"},
  };
  for (const auto& [own, said] : cases) {
    const std::string message = refusal([&, t = own] { read(t); });
    EXPECT_TRUE(contains(message, said)) << message;
  }
}

TEST(Htsim, CutOffOrSpoiltAtEachByte_IsReadOrRefused) {
  survives_cuts_and_spoilt_bytes(text_of(fixture("htsim-three-tiers.topo")), "0 9-\nTx.1",
                                 [](const std::string& text) { EXPECT_GT(read(text).host_count(), 0); });
}

TEST(Htsim, OthersFiles_Read) {
  const std::string folder = data_path("topologies/simulators/htsim/");
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not there; set TOPOMOE_DATA_DIR";
  // Two pods of two leaves of two hosts; 16 links of 100 Gbit/s to 4 cores.
  const Topology three = read_topology_file(folder + "astra-8nodes.topo");
  EXPECT_EQ(three.host_count(), 8);
  EXPECT_EQ(three.leaf_count(), 4);
  EXPECT_EQ(three.fabric->spine_count, 2);
  EXPECT_EQ(three.fabric->core_count, 4);
  EXPECT_EQ(three.fabric->uplink.GBps_per_direction, 50);
  EXPECT_EQ(three.fabric->pod_uplink.GBps_per_direction, 100);
  const Topology two = read_topology_file(folder + "leaf_spine_tiny.topo");
  EXPECT_EQ(two.host_count(), 32);
  EXPECT_EQ(two.leaf_count(), 4);
  EXPECT_EQ(two.fabric->spine_count, 2);
  EXPECT_EQ(two.fabric->oversubscription, 4);
}

}  // namespace
}  // namespace topomoe::test
