// SimAI's and ns-3's nodes and links as hosts and a fabric, and back.
#include <fmt/format.h>

#include <map>

#include "random_cluster.hpp"
#include "spoiled.hpp"
#include "topology/read/readers.hpp"
#include "topology/read/torus_shape.hpp"
#include "topomoe/build_fabric.hpp"
#include "topomoe/export.hpp"

namespace topomoe::test {
namespace {

Topology read(const std::string& text) { return read_simai(text, "t.txt"); }

// Lines as SimAI's own generator orders them: NVSwitches, then leaves and spines.
struct SimaiText {
  int gpus = 0, per_server = 0, nvswitches_per_server = 1, leaves = 0, spines = 0, links = 0;
  std::string lines;
  int nvswitch(int i) const { return gpus + i; }
  int leaf(int i) const { return gpus + gpus / per_server * nvswitches_per_server + i; }
  int spine(int i) const { return leaf(leaves) + i; }
  void link(int a, int b, const char* rate, const char* delay = "0.0005ms") {
    ++links;
    lines += fmt::format("{} {} {} {} 0\n", a, b, rate, delay);
  }
  void nvlinks() {
    for (int gpu = 0; gpu < gpus; ++gpu)
      for (int i = 0; i < nvswitches_per_server; ++i)
        link(gpu, nvswitch(gpu / per_server * nvswitches_per_server + i), "1200Gbps", "0.000025ms");
  }
  std::string text(int said_links = -1) const {
    const int nvswitches = gpus / per_server * nvswitches_per_server, nodes = spine(spines);
    std::string out = fmt::format("{} {} {} {} {} A100\n", nodes, per_server, nvswitches, leaves + spines,
                                  said_links < 0 ? links : said_links);
    for (int i = gpus; i < nodes; ++i) out += std::to_string(i) + " ";
    return out + "\n" + lines;
  }
};

// Two servers of four on rails of their own leaves; each leaf has 2 x 50 GB/s down and 4 x 12.5 up.
TEST(Simai, RailOptimised_IsReadWhole) {
  const Topology topology = read_topology_file(fixture("simai-two-servers.txt"));
  EXPECT_EQ(topology.host_count(), 2);
  EXPECT_EQ(topology.gpu_count(), 8);
  EXPECT_EQ(topology.gpu_spec(0).name, "H800");
  EXPECT_EQ(topology.gpu_spec(0).source, Source::unknown);
  EXPECT_TRUE(topology.host_names.empty());
  EXPECT_EQ(topology.templates.size(), 1U);
  const Fabric& fabric = *topology.fabric;
  EXPECT_TRUE(fabric.rail_optimised);
  EXPECT_EQ(fabric.rails, 4);
  EXPECT_EQ(fabric.planes, 1);
  EXPECT_EQ(fabric.hosts_per_leaf, 2);
  EXPECT_EQ(fabric.spine_count, 4);
  EXPECT_EQ(fabric.uplink.GBps_per_direction, 50);
  EXPECT_EQ(fabric.uplink.latency_us, 1);
  EXPECT_EQ(fabric.oversubscription, 2);
  const Router router(topology);
  EXPECT_EQ(router.route(0, 3).path_class, PathClass::NVL);
  EXPECT_EQ(router.route(0, 3).bottleneck_GBps, 360);
  EXPECT_EQ(router.route(0, 4).path_class, PathClass::NET);  // over their leaf: 2 x 0.5 us
  EXPECT_DOUBLE_EQ(router.route(0, 4).latency_us, 1);
  EXPECT_EQ(router.route(0, 5).path_class, PathClass::PXN);
  EXPECT_TRUE(warns(topology, "PCIe and NUMA nodes are not in such a file"));
}

SimaiText small_servers(int servers, int leaves, int spines) {
  SimaiText own;
  own.gpus = 4 * servers;
  own.per_server = 4;
  own.leaves = leaves;
  own.spines = spines;
  return own;
}

// Every GPU has a port on a leaf of either plane; planes share no spine.
TEST(Simai, TwoPortsInTwoPlanes_AreTwicePlanesTheRails) {
  SimaiText own = small_servers(4, 8, 4);
  own.nvlinks();
  for (int gpu = 0; gpu < own.gpus; ++gpu)
    for (const int plane : {0, 1}) own.link(gpu, own.leaf(4 * plane + gpu % 4), "200Gbps");
  for (int leaf = 0; leaf < 8; ++leaf)
    for (const int i : {0, 1}) own.link(own.leaf(leaf), own.spine(leaf / 4 * 2 + i), "400Gbps");
  const Topology topology = read(own.text());
  EXPECT_EQ(topology.fabric->rails, 8);
  EXPECT_EQ(topology.fabric->planes, 2);
  EXPECT_EQ(topology.fabric->spine_count, 2);
  EXPECT_EQ(topology.fabric->uplink.GBps_per_direction, 100);
  EXPECT_EQ(topology.templates[0].nics.size(), 8U);
  const Router router(topology);
  for (int gpu = 1; gpu < 16; ++gpu) EXPECT_NE(router.route(0, gpu).path_class, PathClass::DIS) << gpu;
  // The same leaves under common spines: one plane.
  SimaiText one = small_servers(4, 8, 2);
  one.nvlinks();
  for (int gpu = 0; gpu < one.gpus; ++gpu)
    for (const int plane : {0, 1}) one.link(gpu, one.leaf(4 * plane + gpu % 4), "200Gbps");
  for (int leaf = 0; leaf < 8; ++leaf)
    for (const int i : {0, 1}) one.link(one.leaf(leaf), one.spine(i), "400Gbps");
  EXPECT_EQ(read(one.text()).fabric->planes, 1);
}

// Servers 0 and 1 below leaf 0, 2 and 3 below leaf 1: no rails.
TEST(Simai, AllPortsOfAServerOnOneLeaf_IsAFatTree) {
  SimaiText own = small_servers(4, 2, 2);
  own.nvlinks();
  for (int gpu = 0; gpu < own.gpus; ++gpu) own.link(gpu, own.leaf(gpu / 8), "100Gbps");
  for (const int leaf : {0, 1})
    for (const int i : {0, 1}) own.link(own.leaf(leaf), own.spine(i), "400Gbps");
  const Topology topology = read(own.text());
  EXPECT_FALSE(topology.fabric->rail_optimised);
  EXPECT_EQ(topology.fabric->rails, 4);
  EXPECT_EQ(topology.leaf_count(), 2);
  EXPECT_EQ(topology.fabric->oversubscription, 1);  // 8 x 12.5 down, 2 x 50 up
}

// Both leaves of a server meet in the same spines: two rails, each with the ports of four GPUs.
TEST(Simai, TwoPortsWithoutRails_AreTwoRails) {
  SimaiText own = small_servers(4, 4, 2);
  own.nvlinks();
  for (int gpu = 0; gpu < own.gpus; ++gpu)
    for (const int port : {0, 1}) own.link(gpu, own.leaf(2 * port + gpu / 8), "100Gbps");
  for (int leaf = 0; leaf < 4; ++leaf)
    for (const int i : {0, 1}) own.link(own.leaf(leaf), own.spine(i), "400Gbps");
  const Topology topology = read(own.text());
  EXPECT_TRUE(topology.fabric->rail_optimised);
  EXPECT_EQ(topology.fabric->rails, 2);
  EXPECT_EQ(topology.fabric->hosts_per_leaf, 2);
  EXPECT_EQ(topology.templates[0].nics.size(), 8U);
  EXPECT_EQ(topology.templates[0].nics[5].rail, 1);
}

// Leaves 2 and 3 are cabled and empty; they are no cores.
TEST(Simai, LeavesWithoutHosts_AreLeftOut) {
  SimaiText own = small_servers(4, 4, 2);
  own.nvlinks();
  for (int gpu = 0; gpu < own.gpus; ++gpu) own.link(gpu, own.leaf(gpu / 8), "100Gbps");
  for (int leaf = 0; leaf < 4; ++leaf)
    for (const int i : {0, 1}) own.link(own.leaf(leaf), own.spine(i), "400Gbps");
  const Topology topology = read(own.text());
  EXPECT_EQ(topology.leaf_count(), 2);
  EXPECT_EQ(topology.fabric->core_count, 0);
  EXPECT_TRUE(warns(topology, "2 leaves without hosts (switch 22 first): left out"));
}

// Nodes 0 and 1 are on switch 4, 2 and 3 on switch 5, all on switch 6: two hosts of two GPUs.
TEST(Simai, IslandsOfNs3sForm_AreNvswitches) {
  std::string text = "7 3 8\n4 5 6 \n";
  for (const int node : {0, 1, 2, 3})
    text += fmt::format("{} {} 2400Gbps 0.000025ms 0\n6 {} 200Gbps 0.0005ms 0\n", 4 + node / 2, node, node);
  const Topology topology = read(text);
  EXPECT_EQ(topology.host_count(), 2);
  EXPECT_EQ(topology.gpu_count(), 4);
  EXPECT_EQ(topology.leaf_count(), 1);
  EXPECT_EQ(Router(topology).route(0, 1).bottleneck_GBps, 300);
  EXPECT_EQ(Router(topology).route(0, 2).bottleneck_GBps, 25);
  EXPECT_TRUE(warns(topology, "2 switches (switch 4 first) join only nodes that meet in other switches"));
  // Two switches of the same nodes are two rails of hosts.
  const Topology rails = read("4 2 4\n2 3\n0 2 1Gbps 1us 0\n0 3 1Gbps 1us 0\n1 2 1Gbps 1us 0\n1 3 1Gbps 1us 0\n");
  EXPECT_EQ(rails.gpu_count(), 0);
  EXPECT_EQ(rails.fabric->rails, 2);
}

TEST(Simai, NameThatSaysAnotherNumber_IsWarnedOf) {
  const std::string text = text_of(fixture("simai-two-servers.txt"));
  for (const char* name : {"Rail_Opti_SingleToR_64gpu_4gps_400Gbps_H800", "x/Spectrum-X_16g_4gps_400Gbps_A100",
                           "HPN_7_0_128_gpus_8_in_one_server", "dcn_32g"})
    EXPECT_TRUE(warns(read_simai(text, name), "the file's name says ")) << name;
  for (const char* name : {"Rail_Opti_SingleToR_8gpu_4gps_400Gbps_H800", "topo", "100Gbps", "a_8g.topo"})
    EXPECT_FALSE(warns(read_simai(text, name), "the file's name says ")) << name;
}

// Switches may have any numbers; and what follows the last link need not make sense.
TEST(Simai, SwitchesFirst_AndLeftOvers) {
  const Topology tree = read(
      "7 3 6\n0 5 6\n5 1 8Gbps 1us 0\n5 2 8Gbps 1us 0\n6 3 8Gbps 1us 0\n6 4 8Gbps 1us 0\n0 5 8Gbps 1us 0\n0 6 8Gbps "
      "1us 0\n");
  EXPECT_EQ(tree.host_count(), 4);
  EXPECT_EQ(tree.leaf_count(), 2);
  EXPECT_EQ(tree.fabric->spine_count, 1);
  const Topology star = read("3 1 2 \n0\n0 1 8Gbps 1us 0\n0 2 8Gbps 1us 0\n0 3 8Gbps 1us 0");
  EXPECT_EQ(star.host_count(), 2);
  EXPECT_TRUE(warns(star, "line 5 and what follows is no link and was left out"));
}

TEST(Simai, SwitchesWithoutACable_AreLeftOut) {
  SimaiText own = small_servers(2, 1, 3);
  own.nvlinks();
  for (int gpu = 0; gpu < own.gpus; ++gpu) own.link(gpu, own.leaf(0), "100Gbps");
  own.link(own.leaf(0), own.spine(0), "400Gbps");
  EXPECT_EQ(read(own.text()).fabric->spine_count, 1);
  EXPECT_TRUE(warns(read(own.text()), "2 switches without a live cable"));
}

TEST(Simai, SeveralNvswitches_AddUp) {
  SimaiText own = small_servers(1, 0, 0);
  own.nvswitches_per_server = 6;
  own.nvlinks();
  const Topology topology = read(own.text());
  EXPECT_FALSE(topology.fabric);
  EXPECT_EQ(topology.templates[0].links[0].GBps_per_direction, 900);
  EXPECT_EQ(topology.templates[0].links[0].count, 6);
}

// 8 GPUs on one NVSwitch, 4 to a server: a domain of two hosts.
TEST(Simai, NvswitchOfSeveralServers_IsAScaleUpDomain) {
  SimaiText own;
  own.gpus = 16;
  own.per_server = 8;
  own.nvlinks();
  std::string text = own.text();
  text.replace(text.find(" 8 "), 3, " 4 ");
  const Topology topology = read(text);
  EXPECT_EQ(topology.host_count(), 4);
  EXPECT_EQ(topology.hosts_per_domain, 2);
  EXPECT_EQ(topology.gpus_per_node(), 8);
  // 3 to a server do not fit: what the switches join is believed.
  text.replace(text.find(" 4 "), 3, " 3 ");
  EXPECT_EQ(read(text).host_count(), 2);
  EXPECT_TRUE(warns(read(text), "the first line says 3 GPUs to a server, NVSwitches join 8"));
}

// SimAI's generator counts half as many spine links as it writes where their number is odd.
TEST(Simai, MoreLinksThanTheFirstLineSays_AreTakenAndSaid) {
  SimaiText own = small_servers(2, 1, 0);
  own.nvlinks();
  for (int gpu = 0; gpu < own.gpus; ++gpu) own.link(gpu, own.leaf(0), "100Gbps");
  const Topology topology = read(own.text(14));
  EXPECT_EQ(topology.host_count(), 2);
  EXPECT_TRUE(warns(topology, "the first line says 14 links and there are 16: all are taken"));
  EXPECT_TRUE(contains(refusal([&] { read(own.text(17)); }), "16 links: the first line says 17: cut off"));
  // Notes below the last link are no links; above it they are a mistake.
  const std::string note = "\nFirst line: total node #, switch node #, link #\nsrc0 dst0 rate delay error_rate\n";
  EXPECT_TRUE(warns(read(own.text() + note), "is no link and was left out"));
  EXPECT_TRUE(contains(refusal([&] { read(own.text(17) + note); }), "this is number 17"));
}

TEST(Simai, WithoutNvswitches_EachGpuIsAlone) {
  const Topology topology = read("9 8 0 1 8 H100\n8\n" + [] {
    std::string lines;
    for (int gpu = 0; gpu < 8; ++gpu) lines += fmt::format("8 {} 100Gbps 1us 0\n", gpu);
    return lines;
  }());
  EXPECT_EQ(topology.host_count(), 8);
  EXPECT_EQ(topology.gpu_count(), 8);
  EXPECT_TRUE(warns(topology, "NVSwitches join 1"));
}

TEST(Simai, RatesAndDelays_AsNs3WritesThem) {
  const auto port = [](const std::string& rate, const std::string& delay) {
    return read(fmt::format("2 1 1\n1\n0 1 {} {} 0\n", rate, delay)).templates[0].nics[0].port;
  };
  EXPECT_DOUBLE_EQ(port("400Gbps", "0.0005ms").GBps_per_direction, 50);
  EXPECT_DOUBLE_EQ(port("400Gbps", "0.0005ms").latency_us, 0.5);
  EXPECT_DOUBLE_EQ(port("100Gb/s", "5us").GBps_per_direction, 12.5);
  EXPECT_DOUBLE_EQ(port("2.5GBps", "500ns").GBps_per_direction, 2.5);
  EXPECT_DOUBLE_EQ(port("1000Mbps", "0.000001s").GBps_per_direction, 0.125);
  EXPECT_DOUBLE_EQ(port("1Gibps", "0.000001s").GBps_per_direction, 1.073741824 / 8);
  EXPECT_DOUBLE_EQ(port("1Tbps", "0.000001").latency_us, 1);
}

TEST(Simai, WhatIsNoSuchNetwork_IsRefusedByLineAndName) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "empty"},
      {"1 2\n", "line 1: \"1 2\": nodes, GPUs of a server"},
      {"8 0 x\n", "\"x\": links: a whole number"},
      {"-8 0 8\n", "\"-8\": nodes"},
      {"99999999 0 8\n", "at most 1000000"},
      {"2 2 1\n", "2 nodes, 2 of them switches"},
      {"4 4 9 0 1 A100\n", "\"9\": NVSwitches: a whole number, at most 4"},
      {"3 1 2\n", "1 numbers of switches, as the first line says"},
      {"3 1 2\nx\n", "line 2: \"x\": 1 numbers of switches"},
      {"3 1 2\n2 1\n", "\"1\": 1 numbers of switches"},
      {"3 1 2\n7\n", "\"7\": nodes are 0 to 2"},
      {"4 2 2\n2 2\n", "this switch is listed twice"},
      {"3 1 2\n2\n0 2 1Gbps 1ms 0\n", "1 links: the first line says 2"},
      {"3 1 2\n2\n0 2 1Gbps\n", "line 3: \"0 2 1Gbps\": a link"},
      {"3 1 2\n2\n0 2 1Gbps 1ms 0 0\n", "a link"},
      {"3 1 2\n2\n0 9 1Gbps 1ms 0\n", "\"9\": nodes are"},
      {"3 1 2\n2\n0 0 1Gbps 1ms 0\n", "a link joins two nodes"},
      {"3 1 2\n2\n0 2 1Gb 1ms 0\n", "\"1Gb\": a rate above 0"},
      {"3 1 2\n2\n0 2 0Gbps 1ms 0\n", "a rate above 0"},
      {"3 1 2\n2\n0 2 infGbps 1ms 0\n", "a rate above 0"},
      {"3 1 2\n2\n0 2 1Gbps 1min 0\n", "\"1min\": a delay"},
      {"3 1 2\n2\n0 2 1Gbps 1ms 2\n", "an error rate, 0 to 1"},
      {"3 1 2\n2\n0 2 1Gbps 1ms 0\n0 1 1Gbps 1ms 0\n", "hosts 0 and 1 joined directly: beside switches"},
      {"3 1 1\n2\n0 2 1Gbps 1ms 0\n", "host 1 without a link to a switch"},
      {"4 0 3\n0 1 1Gbps 1ms 0\n0 2 1Gbps 1ms 0\n0 3 1Gbps 1ms 0\n", "4 hosts joined directly, and not as a ring"},
      {"3 0 3\n0 1 1Gbps 1ms 0\n1 2 1Gbps 1ms 0\n2 0 2Gbps 1ms 0\n", "line 4: a direct link that is not as that of"},
      {"4 2 1 1 2 A100\n2 3\n2 3 1Gbps 1ms 0\n0 2 1Gbps 1ms 0\n", "NVSwitch 2 and switch 3"},
      {"4 2 2 0 2 A100\n2 3\n2 3 1Gbps 1ms 0\n0 2 1Gbps 1ms 0\n", "NVSwitch 2 and NVSwitch 3"},
      {"3 2 1 0 2 A100\n2\n0 2 1Gbps 1ms 0\n1 2 2Gbps 1ms 0\n", "GPUs 0 and 1 are on different NVSwitches"},
      // Three leaves, and one host is on two of them.
      {"6 3 4\n3 4 5\n0 3 1Gbps 1ms 0\n0 4 1Gbps 1ms 0\n1 4 1Gbps 1ms 0\n2 5 1Gbps 1ms 0\n", "t.txt: host"},
  };
  for (const auto& [text, said] : cases) {
    const std::string message = refusal([&, t = text] { read(t); });
    EXPECT_TRUE(contains(message, said)) << text << message;
  }
}

TEST(Simai, TooMuch_IsRefusedQuickly) {
  std::string one_switch = "601 1000 1 0 600 A100\n600\n";
  for (int gpu = 0; gpu < 600; ++gpu) one_switch += fmt::format("{} 600 1Gbps 1ms 0\n", gpu);
  EXPECT_TRUE(contains(refusal([&] { read(one_switch); }), "600 GPUs on the NVSwitches of GPU 0"));
  std::string many_ports = "2 1 5000\n1\n";
  for (int i = 0; i < 5000; ++i) many_ports += "0 1 1Gbps 1ms 0\n";
  EXPECT_TRUE(contains(refusal([&] { read(many_ports); }), "more than 4096 ports"));
  // Leaf, spine, leaf, spine ... in one long chain: one pod.
  std::string chain = "12000 6000 11999\n";
  for (int i = 0; i < 6000; ++i) chain += std::to_string(6000 + i) + " ";
  chain += "\n";
  for (int i = 0; i < 6000; ++i) chain += fmt::format("{} {} 1Gbps 1us 0\n", i, 6000 + (i < 3000 ? i : i - 3000));
  for (int i = 0; i < 3000; ++i) {
    chain += fmt::format("{} {} 1Gbps 1us 0\n", 6000 + i, 9000 + i);
    if (i > 0) chain += fmt::format("{} {} 1Gbps 1us 0\n", 9000 + i - 1, 6000 + i);
  }
  EXPECT_EQ(read(chain).fabric->spine_count, 3000);
  // A star of direct links, all of whose divisors look like the beginning of a torus.
  std::string star = "55440 0 55439\n";
  for (int node = 1; node < 55440; ++node) star += fmt::format("0 {} 1Gbps 1ms 0\n", node);
  EXPECT_TRUE(contains(refusal([&] { read(star); }), "not as a ring or torus"));
}

TEST(Simai, CutOffOrSpoiltAtEachByte_IsReadOrRefused) {
  survives_cuts_and_spoilt_bytes(text_of(fixture("simai-two-servers.txt")), "0 9-\nGx.1",
                                 [](const std::string& text) { EXPECT_GT(read(text).gpu_count(), 0); });
}

TEST(TorusShape, RingsAndTori_ByTheirNumbers) {
  using Pairs = std::vector<std::pair<int, int>>;
  EXPECT_EQ(torus_dims(2, Pairs{{0, 1}}), std::vector<int>{2});
  EXPECT_EQ(torus_dims(3, Pairs{{0, 1}, {1, 2}, {0, 2}}), std::vector<int>{3});
  EXPECT_EQ(torus_dims(4, Pairs{{0, 1}, {2, 3}, {0, 2}, {1, 3}}), (std::vector<int>{2, 2}));
  EXPECT_EQ(torus_dims(4, Pairs{{0, 1}, {1, 2}, {2, 3}}), std::vector<int>{});          // a line
  EXPECT_EQ(torus_dims(4, Pairs{{0, 2}, {1, 2}, {1, 3}, {0, 3}}), std::vector<int>{});  // a ring in another order
  EXPECT_EQ(torus_dims(1, {}), std::vector<int>{});
}

// ---------------------------------------------------------------- written

// Rates of each class of links but PCIe, in order; of what the simulators do not know there is nothing.
std::map<std::string, std::vector<double>> rates(const Topology& topology, bool latencies) {
  std::map<std::string, std::vector<double>> out;
  const Router router(topology);
  for (int id = 0; id < router.link_count(); ++id) {
    const LinkInfo link = router.link(id);
    if (link.klass == "pcie" || link.klass == "cpu_interconnect" || link.klass == "cpu_root") continue;
    out[link.klass].push_back(latencies ? link.latency_us : link.GBps_per_direction);
  }
  for (auto& [klass, own] : out) std::sort(own.begin(), own.end());
  return out;
}

void same_network(const Topology& a, const Topology& b) {
  EXPECT_EQ(a.host_count(), b.host_count());
  EXPECT_EQ(a.gpu_count(), b.gpu_count());
  EXPECT_EQ(a.hosts_per_domain, b.hosts_per_domain);
  EXPECT_EQ(a.leaf_count(), b.leaf_count());
  ASSERT_EQ(a.fabric.has_value(), b.fabric.has_value());
  if (a.fabric) {
    EXPECT_EQ(a.fabric->spine_count, b.fabric->spine_count);
    EXPECT_EQ(a.fabric->core_count, b.fabric->core_count);
    EXPECT_EQ(a.fabric->planes, b.fabric->planes);
    EXPECT_EQ(a.fabric->rails, b.fabric->rails);
    EXPECT_EQ(a.fabric->rail_optimised, b.fabric->rail_optimised);
    EXPECT_EQ(a.fabric->dims, b.fabric->dims);
    EXPECT_NEAR(a.fabric->oversubscription, b.fabric->oversubscription, 1e-9);
  }
  for (const bool latencies : {false, true}) {
    const auto left = rates(a, latencies), right = rates(b, latencies);
    ASSERT_EQ(left.size(), right.size());
    for (const auto& [klass, own] : left) {
      SCOPED_TRACE(klass);
      const auto found = right.find(klass);
      ASSERT_NE(found, right.end());
      ASSERT_EQ(own.size(), found->second.size());
      for (std::size_t i = 0; i < own.size(); ++i) EXPECT_NEAR(own[i], found->second[i], 1e-9 * std::max(1.0, own[i]));
    }
  }
}

// What all-to-all puts on each class of links but PCIe.
void same_loads(const Topology& a, const Topology& b) {
  const auto loads = [](const Topology& topology) {
    LinkLoads own{Router(topology)};
    for (int src = 0; src < topology.gpu_count(); ++src)
      for (int dst = 0; dst < topology.gpu_count(); ++dst) own.add(src, dst, 1e6);
    std::map<std::string, std::pair<double, double>> out;
    for (const ClassLoad& load : own.by_class())
      if (load.klass != "pcie" && load.klass != "cpu_interconnect")
        out[load.klass] = {load.max_bytes, load.total_bytes};
    return out;
  };
  EXPECT_EQ(loads(a), loads(b));
}

Topology with_fabric(int hosts, const Fabric& fabric) {
  Topology topology = small_cluster(hosts);
  topology.fabric = fabric;
  return topology;
}

TEST(SimaiWritten, BuiltClusters_ReadBackEqual) {
  std::vector<Topology> clusters;
  for (const int hosts : {4, 8, 12})
    for (const double ratio : {1.0, 2.0, 1.5}) {
      const Topology bare = small_cluster(hosts);
      clusters.push_back(with_fabric(hosts, build_fat_tree(bare, {hosts, 1, 1, 0, 0, 1, 1, 0.5})));  // one leaf
      clusters.push_back(with_fabric(hosts, build_fat_tree(bare, {2, 4, ratio, 0, 0, 1, 1, 0.5})));
      clusters.push_back(with_fabric(hosts, build_fat_tree(bare, {2, 2, ratio, 4, 3, ratio, 1, 0.25})));
      clusters.push_back(with_fabric(hosts, build_rail_optimised(bare, {2, 2, true, ratio, 1, 0, 0, 1, 0.5})));
      clusters.push_back(with_fabric(hosts, build_rail_optimised(bare, {2, 3, true, ratio, 2, 0, 0, 1, 0.5})));
      clusters.push_back(with_fabric(hosts, build_rail_optimised(bare, {2, 2, false, ratio, 1, 0, 0, 1, 0.5})));
      clusters.push_back(with_fabric(hosts, build_rail_optimised(bare, {2, 2, true, ratio, 1, 4, 2, ratio, 0.5})));
      clusters.push_back(with_fabric(hosts, build_rail_optimised(bare, {hosts, 0})));  // one tier
    }
  int number = 0;
  for (const Topology& topology : clusters) {
    SCOPED_TRACE(number++);
    const std::string text = write_simai(topology);
    const Topology again = read_topology(text, "again");
    same_network(topology, again);
    same_loads(topology, again);
    EXPECT_TRUE(again.host_names.empty());
    EXPECT_EQ(write_simai(again).substr(text.find('\n')), text.substr(text.find('\n')));
  }
}

// A fat tree of two planes is written as leaves of either plane, which read as two rails: the same links and loads.
TEST(SimaiWritten, PlanesOfAFatTree_ReadBackAsRails) {
  const Topology bare = small_cluster(8);
  const Topology topology = with_fabric(8, build_fat_tree(bare, {2, 2, 1, 0, 0, 1, 2, 0.5}));
  const Topology again = read_topology(write_simai(topology), "again");
  EXPECT_EQ(again.fabric->planes, 2);
  EXPECT_EQ(again.fabric->rails, 2);
  EXPECT_EQ(rates(again, false), rates(topology, false));
  same_loads(topology, again);
  // Pods above several planes are written, and not read.
  const Topology pods = with_fabric(8, build_rail_optimised(bare, {2, 2, true, 1, 2, 4, 2, 1, 0.5}));
  EXPECT_TRUE(contains(refusal([&] { read_topology(write_simai(pods), "again"); }), "groups of spines"));
}

TEST(SimaiWritten, RandomTrees_ReadBackEqual) {
  int compared = 0;
  for (unsigned seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    Topology topology = random_alike_cluster(seed, 4);
    Fabric& fabric = *topology.fabric;
    // Others are not written, or not told apart from rails when read.
    if (fabric.kind != FabricKind::fat_tree ||
        (fabric.planes > 1 && (fabric.hosts_per_pod > 0 || !fabric.rail_optimised)))
      continue;
    if (fabric.hosts_per_pod > 0 && (fabric.core_count == 0 || !fabric.leaf_hosts.empty())) continue;
    if (fabric.rail_optimised && topology.leaf_count() == 0) continue;
    {
      const Topology again = read_topology(write_simai(topology), "again");
      EXPECT_EQ(again.gpu_count(), topology.gpu_count());
      EXPECT_EQ(again.leaf_count(), topology.leaf_count());
      const auto left = rates(topology, false), right = rates(again, false);
      for (const auto& [klass, own] : left) {
        SCOPED_TRACE(klass);
        ASSERT_EQ(own.size(), right.at(klass).size());
        for (std::size_t i = 0; i < own.size(); ++i) EXPECT_NEAR(own[i], right.at(klass)[i], 1e-9 * own[i]);
      }
      same_loads(topology, again);
      ++compared;
    }
  }
  EXPECT_GT(compared, 40);
}

TEST(SimaiWritten, DeadAndDegradedCables_StaySo) {
  Topology topology = with_fabric(8, build_fat_tree(small_cluster(8), {2, 4, 1, 0, 0, 1, 1, 0.5}));
  topology.fabric->exceptions = {{"leaf1->spine2", 0}, {"leaf2->spine", 0.5}};
  const Topology again = read_topology(write_simai(topology), "again");
  ASSERT_EQ(again.fabric->exceptions.size(), 2U);
  const Router before(topology), after(again);
  for (const int gpu : {8, 16})
    EXPECT_NEAR(before.route(gpu, 0).bottleneck_GBps, after.route(gpu, 0).bottleneck_GBps, 1e-9);
  same_loads(topology, again);
}

TEST(SimaiWritten, NetworksAlone_TakeNs3sForm) {
  const Topology ring = read("4 0 4\n0 1 8Gbps 1us 0\n1 2 8Gbps 1us 0\n2 3 8Gbps 1us 0\n3 0 8Gbps 1us 0\n");
  EXPECT_EQ(ring.fabric->dims, std::vector<int>{4});
  const std::string text = write_simai(ring);
  EXPECT_TRUE(text.starts_with("4 0 4\n0 1 8Gbps 0.001ms 0\n")) << text;
  EXPECT_EQ(fingerprint(read(text)), fingerprint(ring));
  Topology torus = small_cluster(12);
  torus.templates[0] = read("2 1 2\n1\n0 1 8Gbps 1us 0\n0 1 8Gbps 1us 0\n").templates[0];
  torus.fabric = build_torus(torus, {{2, 3, 2}, {2, 1, Source::assumed, ""}});
  EXPECT_EQ(read(write_simai(torus)).fabric->dims, (std::vector<int>{2, 3, 2}));
}

// Host 1 is below switch 3, hosts 0 and 2 below switch 4: hosts follow their leaves, and keep their numbers as names.
TEST(Simai, HostsInAnotherOrderThanTheirLeaves_KeepTheirNumbers) {
  const Topology topology =
      read("6 3 5\n3 4 5\n0 4 1Gbps 1ms 0\n1 3 1Gbps 1ms 0\n2 4 1Gbps 1ms 0\n3 5 1Gbps 1ms 0\n4 5 1Gbps 1ms 0\n");
  EXPECT_EQ(topology.host_names, (std::vector<std::string>{"node 1", "node 0", "node 2"}));
  EXPECT_EQ(topology.fabric->leaf_hosts, (std::vector<int>{1, 2}));
  EXPECT_TRUE(warns(topology, "hosts are in the order of their leaves"));
  EXPECT_EQ(topology.host_count(), 3);
}

TEST(SimaiWritten, WhatHasNoPlaceInIt_IsRefusedWithTheReason) {
  const auto said = [](const Topology& topology) { return refusal([&] { write_simai(topology); }); };
  HostShape pcie = small_shape();
  pcie.kind = "pcie";
  EXPECT_TRUE(contains(said(small_cluster(2, pcie)), "gpu0 on no NVSwitch"));
  HostShape shared = small_shape();
  shared.nics = 2;
  EXPECT_TRUE(contains(said(small_cluster(2, shared)), "nic0 is shared by gpu0 and gpu1"));
  Topology uneven = small_cluster(4);
  HostShape more = small_shape();
  more.gpus = 8;
  uneven.templates.push_back(build_host(more, {}, "other"));
  uneven.groups = {{0, 2}, {1, 2}};
  EXPECT_TRUE(contains(said(uneven), "one number of GPUs for all servers"));
  Topology groups = small_cluster(8);
  groups.fabric = build_dragonfly_plus(groups, {2, 4, 2, 1, 1, 0, 0});
  EXPECT_TRUE(contains(said(groups), "dragonfly_plus"));
  Topology torus = small_cluster(4);
  torus.fabric = build_torus(torus, {{4}, {50, 1, Source::assumed, ""}});
  EXPECT_TRUE(contains(said(torus), "rings join GPUs"));
  EXPECT_TRUE(contains(said(read_topology_file(fixture("nccl-template-without-gpus.xml"))), "on no NVSwitch"));
}

TEST(SimaiWritten, NamesOfGpus_AreOneWord) {
  Topology topology = small_cluster(2);
  const auto type = [&](const char* name) {
    topology.templates[0].gpu.name = name;
    const std::string text = write_simai(topology);
    const std::string line = text.substr(0, text.find('\n'));
    return line.substr(line.rfind(' ') + 1);
  };
  EXPECT_EQ(type("NVIDIA H100 80GB HBM3"), "H100");
  EXPECT_EQ(type("H800"), "H800");
  EXPECT_EQ(type("TPU"), "TPU");
  EXPECT_EQ(type(""), "unknown");
  EXPECT_EQ(type("some thing else"), "unknown");
}

// The files that others wrote: hosts, leaves, GB/s; and written, they are the same network.
TEST(Simai, OthersFiles_ReadAndRoundTrip) {
  const std::string folder = data_path("topologies/simulators/ns3/");
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not there; set TOPOMOE_DATA_DIR";
  const Topology tree = read_topology_file(folder + "128_nodes_16_switch_topology.txt");
  EXPECT_EQ(tree.host_count(), 128);
  EXPECT_EQ(tree.leaf_count(), 8);
  EXPECT_EQ(tree.fabric->spine_count, 8);
  EXPECT_EQ(tree.fabric->uplink.GBps_per_direction, 200);
  EXPECT_DOUBLE_EQ(tree.fabric->uplink.latency_us, 12.5);
  EXPECT_EQ(tree.fabric->oversubscription, 2);  // 16 x 25 down
  EXPECT_EQ(read_topology_file(folder + "8nodes_ring_topology.txt").fabric->dims, std::vector<int>{8});
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    SCOPED_TRACE(entry.path());
    if (entry.path().extension() == ".json") {
      EXPECT_TRUE(contains(refusal([&] { read_topology_file(entry.path()); }), "logical dimensions"));
      continue;
    }
    const Topology topology = read_topology_file(entry.path());
    EXPECT_EQ(fingerprint(read_topology(write_simai(topology), "again")), fingerprint(topology));
    const std::string json = write_cluster_json(topology);
    EXPECT_EQ(write_cluster_json(read_cluster_json(json, "again")), json);
    EXPECT_FALSE(show_text(topology).empty());
    ++files;
  }
  EXPECT_GE(files, 2);
}

}  // namespace
}  // namespace topomoe::test
