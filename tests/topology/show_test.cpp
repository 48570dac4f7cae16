#include <cstdlib>
#include <nlohmann/json.hpp>
#include <pugixml.hpp>

#include "random_cluster.hpp"
#include "support.hpp"
#include "topology/counted.hpp"
#include "topology/fabric.hpp"

namespace topomoe::test {
namespace {

TEST(Show, Text_HasTreeMatricesFabricAndWarnings) {
  const std::string text = show_text(cluster("h100-2x8"));
  EXPECT_TRUE(contains(text, "h100-2x8: 2 hosts, 16 GPUs in 2 nodes of up to 8; fingerprint "));
  EXPECT_TRUE(contains(text, "nvlink: 450 GB/s out of each GPU"));
  EXPECT_TRUE(contains(text, "NVL 450"));
  EXPECT_TRUE(contains(text, "PIX 64*"));
  EXPECT_TRUE(
      contains(text, "fabric: rail-optimised, 8 leaves, 32 hosts a leaf, 8 rails, 4 spines, 1:1 oversubscription"));
  EXPECT_TRUE(contains(text, "assumed or unknown:"));
}

// Four rails, two hosts a leaf: leaves 0 to 3 have hosts 0 and 1, leaves 4 to 7 host 2.
TEST(Show, LeavesOfTheSameHosts_AreOneLine) {
  Topology topology = small_cluster(3);
  topology.host_names = {"n1", "n2", "n3"};
  EXPECT_TRUE(contains(show_text(topology), "\n  leaf0 to leaf3: n1 to n2, 2 hosts\n  leaf4 to leaf7: n3\n"));
  topology.fabric->leaf_names = {"", "sw-1", "", "", "", "", "", ""};
  EXPECT_TRUE(contains(show_text(topology),
                       "\n  leaf0: n1 to n2, 2 hosts\n  leaf1 sw-1: n1 to n2, 2 hosts\n"
                       "  leaf2 to leaf3: n1 to n2, 2 hosts\n  leaf4 to leaf7: n3\n"));
}

// 14 units of one host and four rails: 12 lines, then 2 x 4 leaves.
TEST(Show, LeavesBeyondAScreenful_AreCounted) {
  Topology topology = small_cluster(14);
  topology.fabric->hosts_per_leaf = 1;
  topology.fabric->oversubscription = 0.5;  // 25 below, 50 above
  for (int i = 0; i < 14; ++i) topology.host_names.push_back("n" + std::to_string(i));
  const std::string text = show_text(topology);
  EXPECT_TRUE(contains(text, "  leaf44 to leaf47: n11\n  and 8 leaves more\n")) << text;
  EXPECT_TRUE(contains(text, "56 leaves, 1 host a leaf, 4 rails")) << text;
}

TEST(Show, HostsWithoutAnythingInThem_AreSaid) {
  const std::string text = show_text(edit(cluster("h100-2x8"), {parse_remove("host0")}));
  EXPECT_TRUE(contains(text, " x 1; nothing is known of what is in it\n")) << text;
  EXPECT_TRUE(contains(text, " x 1; rates in GB/s, one direction\n")) << text;
}

TEST(Show, OfOne_IsSaidInTheSingular) {
  Topology topology = small_cluster(1);
  topology.fabric->hosts_per_leaf = 1;
  topology.fabric->spine_count = 1;
  topology.fabric->oversubscription = 0.5;  // 25 below, 50 above
  topology.fabric->exceptions = {{"leaf0->spine", 0.5}};
  EXPECT_EQ(fabric_words(topology), "1 spine, 4 leaves of 1 host, 0.5:1 oversubscription; 1 exception");
  const std::string text = show_text(topology);
  EXPECT_TRUE(contains(text, "small: 1 host, 4 GPUs in 1 node of up to 4; ")) << text;
  EXPECT_TRUE(contains(text, "4 leaves, 1 host a leaf, 4 rails, 1 spine, ")) << text;
}

TEST(Show, CpuRoot_StandsUnderItsCpuAndHidesNothing) {
  const std::string text = show_text(cluster("l40s-8x-pcie"));
  EXPECT_TRUE(
      contains(text, "    cpu_root0      cpu_root 64\n      pci_switch0  pcie 32\n        gpu0       pcie 32\n"));
  EXPECT_TRUE(contains(text, "\n      pci_switch3  pcie 32\n        gpu6"));
}

TEST(Show, Json_ParsesAndAgreesWithTheTopology) {
  const Topology topology = cluster("l40s-8x-pcie");
  const auto json = nlohmann::json::parse(show_json(topology));
  EXPECT_EQ(json["gpus"].get<int>(), 8);
  EXPECT_EQ(json["fingerprint"].get<std::string>(), fingerprint(topology));
  EXPECT_EQ(json["host_routes"][0]["gpu_to_gpu"][0][1]["path_class"].get<std::string>(), "PIX");
  EXPECT_EQ(json["host_routes"][0]["gpu_to_gpu"][0][7]["path_class"].get<std::string>(), "SYS");
  EXPECT_EQ(json["cluster"]["schema"].get<std::string>(), "topomoe.cluster/1");
}

TEST(Show, Svg_IsWellFormedAndFoldsHosts) {
  for (const char* name : {"h100-1024x8", "gb200-nvl72", "l40s-8x-pcie", "quickstart-2xh100"}) {
    const std::string svg = write_svg(cluster(name));
    pugi::xml_document document;
    EXPECT_TRUE(document.load_string(svg.c_str())) << name;
    EXPECT_LT(svg.size(), 100'000U) << name;
  }
  Topology odd = small_cluster(2);
  odd.name = "a <b> & \"c\"";
  pugi::xml_document document;
  EXPECT_TRUE(document.load_string(write_svg(odd).c_str()));
}

TEST(Show, Dot_NamesDevicesAndRates) {
  const std::string dot = write_dot(small_cluster(3));
  EXPECT_TRUE(contains(dot, "\"group0.gpu0\" -> \"group0.nvswitch\" [label=\"100\""));
  EXPECT_TRUE(contains(dot, "\"leaf3\" -> \"spine\""));
  EXPECT_TRUE(contains(dot, "small-host x 3"));
}

TEST(Show, EveryFabric_IsDrawnAndNamed) {
  for (unsigned seed = 0; seed < 30; ++seed) {
    const Topology topology = with_random_exceptions(random_alike_cluster(seed, 4), seed);
    pugi::xml_document document;
    EXPECT_TRUE(document.load_string(write_svg(topology).c_str())) << seed;
    const std::string text = show_text(topology), dot = write_dot(topology);
    if (topology.fabric->kind == FabricKind::torus) {
      EXPECT_TRUE(contains(text, "fabric: torus of ")) << text;
      EXPECT_TRUE(contains(dot, "\"host0.ring\"")) << dot;
    } else {
      EXPECT_TRUE(contains(dot, "\"leaf0\"")) << dot;
    }
    if (topology.fabric->hosts_per_pod > 0) {
      EXPECT_TRUE(contains(text, "of " + counted(topology.fabric->hosts_per_pod, "host") + ", "));
    }
    for (const FabricException& own : topology.fabric->exceptions) EXPECT_TRUE(contains(text, "  " + own.name)) << text;
  }
  EXPECT_TRUE(contains(show_text(edit(cluster("h100-2x8"), {parse_remove("host0")})), "removed"));
}

}  // namespace
}  // namespace topomoe::test
