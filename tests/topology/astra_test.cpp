// ASTRA-sim's dimensions as hosts and fabric, and back.
#include <fmt/format.h>

#include "random_cluster.hpp"
#include "spoiled.hpp"
#include "topology/read/astra_network.hpp"
#include "topology/read/readers.hpp"
#include "topomoe/build_fabric.hpp"
#include "topomoe/export.hpp"

namespace topomoe::test {
namespace {

std::string file(const std::string& topology, const std::string& npus, const std::string& GBps, const std::string& ns) {
  return fmt::format("topology: [ {} ]\nnpus_count: [ {} ]\nbandwidth: [ {} ]\nlatency: [ {} ]\n", topology, npus, GBps,
                     ns);
}
Topology read(const std::string& text) { return read_astra(text, "t.yml"); }
Topology read(const std::string& topology, const std::string& npus, const std::string& GBps, const std::string& ns) {
  return read(file(topology, npus, GBps, ns));
}
double GBps(const Topology& topology, int a, int b) { return Router(topology).route(a, b).bottleneck_GBps; }
double us(const Topology& topology, int a, int b) { return Router(topology).route(a, b).latency_us; }

TEST(Astra, Recognised_ByItsKeysInAnyOrder) {
  EXPECT_EQ(read_topology_file(fixture("astra-switch-ring.yml")).gpu_count(), 32);
  EXPECT_EQ(
      read_topology("latency: [ 1 ]\nnpus_count: [ 4 ]\nbandwidth: [ 1 ]\ntopology: [ Switch ]\n", "x").gpu_count(), 4);
  EXPECT_EQ(read_topology("topology:\n  - Switch\nnpus_count:\n- 4\nbandwidth: [5]\nlatency: [0]\n", "x").gpu_count(),
            4);
}

// One switch: 936.25 ns to it and 936.25 ns from it.
TEST(Astra, InnerSwitch_IsAHostOnOnePlane) {
  const Topology topology = read("Switch", "8", "400", "936.25");
  EXPECT_EQ(topology.host_count(), 1);
  EXPECT_EQ(topology.gpu_count(), 8);
  EXPECT_FALSE(topology.fabric);
  EXPECT_EQ(topology.templates[0].nvlink, Presence::present);
  EXPECT_EQ(topology.gpu_spec(0).source, Source::unknown);
  EXPECT_EQ(GBps(topology, 0, 7), 400);
  EXPECT_DOUBLE_EQ(us(topology, 0, 7), 1.8725);
  EXPECT_TRUE(warns(topology, "ASTRA-sim counts 2^30"));
  EXPECT_TRUE(warns(topology, "GPU figures: unknown"));
}

TEST(Astra, InnerFullyConnected_IsAMesh) {
  const Topology topology = read("FullyConnected", "4", "50", "500");
  EXPECT_EQ(topology.host_count(), 1);
  EXPECT_EQ(topology.templates[0].links.size(), 6U);
  EXPECT_EQ(GBps(topology, 0, 3), 50);
  EXPECT_DOUBLE_EQ(us(topology, 0, 3), 0.5);
}

// Two Rings of one rate: 4 x 8 hosts of one NPU, neighbours at 1 us, the opposite corner 2 + 4 links away.
TEST(Astra, RingsAlike_AreATorusOfSingleNpus) {
  const Topology topology = read("Ring, Ring", "4, 8", "80.0, 80.0", "1000, 1000");
  EXPECT_EQ(topology.host_count(), 32);
  EXPECT_EQ(topology.gpus_per_host(), 1);
  EXPECT_EQ(topology.fabric->dims, (std::vector<int>{4, 8}));
  EXPECT_EQ(GBps(topology, 0, 1), 80);
  EXPECT_DOUBLE_EQ(us(topology, 0, 1), 1);
  EXPECT_DOUBLE_EQ(us(topology, 0, 18), 6);                               // 18 = 2 + 4 x 4
  EXPECT_EQ(topology.templates[0].nics[0].port.GBps_per_direction, 320);  // two links in each of two rings
}

// Each NPU has 50 GB/s to either side; the host's eight together 400.
TEST(Astra, SwitchThenRing_IsATorusOfHosts) {
  const Topology topology = read_topology_file(fixture("astra-switch-ring.yml"));
  EXPECT_EQ(topology.host_count(), 4);
  EXPECT_EQ(topology.fabric->dims, std::vector<int>{4});
  EXPECT_EQ(topology.fabric->ring.GBps_per_direction, 400);
  EXPECT_EQ(topology.templates[0].nics.size(), 8U);
  EXPECT_EQ(topology.templates[0].nics[7].port.GBps_per_direction, 100);
  EXPECT_DOUBLE_EQ(us(topology, 0, 8), 1);
  EXPECT_TRUE(warns(topology, "the 8 rings of the NPUs of a host count as one of their sum"));
  // All-to-all of a rail: 50 GB/s to either side and 4 places in each ring: the host's ring link is what counts.
  LinkLoads loads{Router(topology)};
  for (int gpu = 0; gpu < 8; ++gpu) loads.add(gpu, 8 + gpu, 50e9);
  EXPECT_DOUBLE_EQ(loads.bottleneck().seconds, 1);
  EXPECT_EQ(loads.bottleneck().klass, "ring");
}

// Each of the four NPUs of a host has a switch of its own outside: rails that meet nowhere.
TEST(Astra, SwitchThenSwitch_IsALeafForEachNpu) {
  const Topology topology = read("Switch, Switch", "4, 8", "400, 50", "900, 1000");
  EXPECT_EQ(topology.host_count(), 8);
  EXPECT_TRUE(topology.fabric->rail_optimised);
  EXPECT_EQ(topology.fabric->spine_count, 0);
  EXPECT_EQ(topology.leaf_count(), 4);
  const Router router(topology);
  EXPECT_EQ(router.route(0, 4).path_class, PathClass::NET);
  EXPECT_DOUBLE_EQ(router.route(0, 4).latency_us, 2);
  EXPECT_EQ(router.route(0, 5).path_class, PathClass::PXN);  // over NVLink to the NPU of that rail
  EXPECT_DOUBLE_EQ(router.route(0, 5).latency_us, 2 + 2 * 0.9);
}

// 200 GB/s inside; 7 links of 100 GB/s in one port; 8 hosts' links of 50 above each leaf: 400.
TEST(Astra, ThreeDimensions_AreLeavesAndSpinesOfEachRail) {
  const Topology topology = read("Ring, FullyConnected, Switch", "2, 8, 4", "200, 100, 50", "50, 500, 2000");
  EXPECT_EQ(topology.host_count(), 32);
  EXPECT_EQ(topology.gpu_count(), 64);
  const Fabric& fabric = *topology.fabric;
  EXPECT_EQ(fabric.hosts_per_leaf, 8);
  EXPECT_EQ(fabric.planes, 2);
  EXPECT_EQ(fabric.uplink.GBps_per_direction, 400);
  EXPECT_EQ(topology.templates[0].nics[0].port.GBps_per_direction, 700);
  EXPECT_EQ(GBps(topology, 0, 1), 200);
  EXPECT_DOUBLE_EQ(us(topology, 0, 2), 0.5);
  EXPECT_DOUBLE_EQ(us(topology, 0, 16), 4);  // two links of 2 us
  EXPECT_TRUE(warns(topology, "FullyConnected is held as a switch"));
  EXPECT_TRUE(warns(topology, "traffic of several shares it"));
  const Topology four = read("Switch, Switch, Switch, Switch", "2, 2, 3, 2", "200, 100, 50, 25", "1, 2, 3, 4");
  EXPECT_EQ(four.fabric->hosts_per_pod, 6);
  EXPECT_EQ(four.fabric->pod_uplink.GBps_per_direction, 150);
  EXPECT_EQ(Router(four).route(0, 23).path_class, PathClass::PXN);
}

TEST(Astra, InnerRingOfOtherRate_IsInsideTheHost) {
  const Topology topology = read("Ring, Ring, Ring", "2, 2, 2", "100, 50, 50", "1, 2, 2");
  EXPECT_EQ(topology.gpus_per_host(), 2);
  EXPECT_EQ(topology.fabric->dims, (std::vector<int>{2, 2}));
  EXPECT_EQ(read("Ring, Switch", "5, 2", "1, 1", "1, 1").gpus_per_host(), 5);
}

TEST(Astra, LargeSwitch_IsAScaleUpDomain) {
  const Topology topology = read("Switch", "1024", "100", "500");
  EXPECT_EQ(topology.host_count(), 2);
  EXPECT_EQ(topology.hosts_per_domain, 2);
  EXPECT_EQ(topology.gpus_per_node(), 1024);
  EXPECT_EQ(GBps(topology, 0, 1023), 100);
  EXPECT_EQ(read("Switch", "521", "100", "500").host_count(), 521);  // a prime: one NPU to a host
}

TEST(Astra, WhatItCannotHold_IsRefusedByName) {
  const std::pair<std::string, const char*> cases[] = {
      {file("Ring", "tbd", "50", "500"),
       "line 2: npus_count[0]: \"tbd\": a whole number: this file was never filled in"},
      {file("Ring", "4", "TBD", "500"), "bandwidth[0]: \"TBD\": GB/s: this file was never filled in"},
      {file("Ring", "4", "50", "tbd"), "latency[0]"},
      {file("Ring", "4", "50GB/s", "1"), "bandwidth[0]: \"50GB/s\": GB/s"},
      {file("Ring", "1", "50", "500"), "npus_count[0]: \"1\": a whole number, 2 to"},
      {file("Ring", "2.5", "50", "500"), "a whole number"},
      {file("Ring", "-4", "50", "500"), "npus_count[0]"},
      {file("Ring", "4", "0", "500"), "more than 0 GB/s"},
      {file("Ring", "4", "nan", "500"), "bandwidth[0]"},
      {file("Ring", "4", "50", "-1"), "latency[0]"},
      {file("Ring", "4", "50", "inf"), "latency[0]"},
      {file("Torus2D", "4", "50", "500"), "topology[0]: \"Torus2D\": one of Ring, FullyConnected, Switch"},
      {file("Ring, Ring", "4", "50", "500"), "npus_count: 1 items: one for each of the 2 dimensions"},
      {file("Ring", "4, 4", "50", "500"), "npus_count: 2 items"},
      {file("Ring, Switch", "8, 4", "50, 50", "1, 1"), "a Ring of 8 inside dimensions of other kinds"},
      {file("Ring, Ring", "8, 4", "50, 60", "1, 1"), "a Ring of 8 inside"},
      {file("Switch, Ring, Ring", "8, 4, 4", "9, 5, 6", "1, 1, 1"), "Rings of different bandwidth"},
      {file("Switch, Ring, Switch", "8, 4, 4", "9, 5, 6", "1, 1, 1"), "outer dimensions are all Rings, or none is"},
      {file("Switch, Switch, Switch, Switch, Switch", "2, 2, 2, 2, 2", "1, 1, 1, 1, 1", "1, 1, 1, 1, 1"), "4 tiers"},
      {file("FullyConnected", "1000", "50", "500"), "topology[0]: FullyConnected of 1000: at most 256"},
      {file("Switch, Switch", "1024, 2", "50, 50", "1, 1"), "a Switch of 1024 below other dimensions"},
      {file("Switch, Switch, Switch", "128, 2, 2", "50, 50, 50", "1, 1, 1"), "at most 64 rails"},
      {file("Ring, Ring", "10000, 10000", "50, 50", "1, 1"), "10,000,000"},
      {"topology: Ring\nnpus_count: [ 4 ]\nbandwidth: [ 50 ]\nlatency: [ 1 ]\n", "line 1: topology: no list"},
      {"topology: [ ]\nnpus_count: [ ]\nbandwidth: [ ]\nlatency: [ ]\n", "no list"},
      {"topology: [ Ring ]\nnpus_count: [ 4 ]\nlatency: [ 1 ]\n", "bandwidth: missing"},
      {"- topology\n", "no keys"},
      {"", "empty"},
      {file(std::string(200, ','), "4", "50", "500"), "an empty item"},
  };
  for (const auto& [text, said] : cases) {
    const std::string message = refusal([&, t = text] { read(t); });
    EXPECT_TRUE(contains(message, said)) << message;
  }
  EXPECT_TRUE(contains(refusal([] { read_topology_file(fixture("astra-never-filled-in.yml")); }),
                       "line 4: bandwidth[0]: \"tbd\": GB/s: this file was never filled in"));
  EXPECT_TRUE(contains(refusal([] { read(std::string(2U << 20, '#')); }), "at most 1 MiB"));
  std::string many = "Ring";
  for (int i = 0; i < 40; ++i) many += ", Ring";
  EXPECT_TRUE(contains(refusal([&] { read(many, "2", "1", "1"); }), "41 dimensions"));
}

// As ASTRA-sim's later versions write it.
TEST(Astra, Json_IsTheSameNetwork) {
  const std::string text =
      "{\n  \"topology\": [\"Switch\", \"Ring\"],\n  \"npus_count\": [8, 4],\n  \"bandwidth\": [400.0, 50],\n"
      "  \"latency\": [936.25, 1000]\n}\n";
  Topology json = read_topology(text, "astra-switch-ring.json");
  const Topology yaml = read_topology_file(fixture("astra-switch-ring.yml"));
  EXPECT_EQ(fingerprint(json), fingerprint(yaml));
  EXPECT_EQ(json.fabric, yaml.fabric);
  EXPECT_TRUE(contains(refusal([&] { read(text.substr(0, 60)); }), "no JSON"));
  std::string tbd = text;
  tbd.replace(tbd.find("400.0"), 5, "\"tbd\"");
  EXPECT_TRUE(contains(refusal([&] { read(tbd); }), "bandwidth[0]: \"tbd\": GB/s: this file was never filled in"));
  tbd.replace(tbd.find("\"tbd\""), 5, "[1]");
  refusal([&] { read(tbd); });
  survives_cuts_and_spoilt_bytes(text, "{}[],:\"0x", [](const std::string& some) { read(some); });
}

TEST(Astra, UnknownKey_IsLeftOutAndSaid) {
  const Topology topology = read(file("Ring", "4", "50", "500") + "faulty_links: [ 1 ]\n");
  EXPECT_TRUE(warns(topology, "key \"faulty_links\" is not known here and was left out"));
}

TEST(Astra, LogicalDimensions_AreCalledByTheirName) {
  const std::string message = refusal([] { read_topology("{ \"logical-dims\": [\"8\",\"2\"] }", "l.json"); });
  EXPECT_TRUE(contains(message, "ASTRA-sim's logical dimensions")) << message;
}

TEST(Astra, CutOffOrSpoiltAtEachByte_IsReadOrRefused) {
  survives_cuts_and_spoilt_bytes(text_of(fixture("astra-switch-ring.yml")), ":,[]x\n#-9\"",
                                 [](const std::string& text) { EXPECT_GT(read(text).gpu_count(), 1); });
}

// ---------------------------------------------------------------- written

void same_dimensions(const AstraNetwork& a, const AstraNetwork& b) {
  ASSERT_EQ(a.dimensions.size(), b.dimensions.size());
  for (std::size_t i = 0; i < a.dimensions.size(); ++i) {
    EXPECT_EQ(a.dimensions[i].kind, b.dimensions[i].kind);
    EXPECT_EQ(a.dimensions[i].npus, b.dimensions[i].npus);
    EXPECT_NEAR(a.dimensions[i].GBps, b.dimensions[i].GBps, 1e-8 * b.dimensions[i].GBps);
    EXPECT_NEAR(a.dimensions[i].latency_ns, b.dimensions[i].latency_ns, 1e-6);
  }
}

TEST(AstraWritten, ReadAndWritten_SaysTheSameDimensions) {
  const std::string files[] = {
      file("Ring", "16", "50", "500"),
      file("Switch", "8", "400", "936.25"),
      file("Switch", "1024", "400", "936.25"),
      file("FullyConnected", "64", "50.5", "500"),
      file("Ring, Ring", "4, 8", "80, 80", "1000, 1000"),
      file("Ring, Ring, Ring", "2, 3, 4", "80, 80, 80", "1, 1, 1"),
      file("Switch, Ring", "8, 2", "400, 33.3", "936.25, 1000"),
      file("FullyConnected, Ring, Ring", "3, 2, 4", "10, 5, 5", "1, 7, 7"),
      file("Ring, Switch", "4, 16", "100, 25", "50, 500"),
      file("Switch, Switch", "72, 9", "900, 50", "300, 1000"),
  };
  for (const std::string& text : files) {
    SCOPED_TRACE(text);
    const std::string written = write_astra(read(text));
    same_dimensions(parse_astra_network(written, "written"), parse_astra_network(text, "given"));
    EXPECT_EQ(fingerprint(read(written)), fingerprint(read(text)));
    EXPECT_FALSE(contains(written, "Not said")) << written;
  }
}

// 450 GB/s of NVLink and 50 GB/s of NIC to a GPU; leaves and spines are named as what is lost.
TEST(AstraWritten, Cluster_SaysWhatIsLost) {
  const std::string written = write_astra(cluster("h100-1024x8"));
  EXPECT_TRUE(contains(written, "topology: [ Switch, Switch ]\nnpus_count: [ 8, 1024 ]\nbandwidth: [ 450, 50 ]"))
      << written;
  EXPECT_TRUE(contains(written, "# Not said: rail-optimised: which of 256 leaves a NIC is on."));
  EXPECT_TRUE(contains(written, "# Not said: oversubscription of the leaves, 2:1."));
  EXPECT_EQ(read(written).gpu_count(), 8192);
  EXPECT_TRUE(contains(write_astra(cluster("gb200-nvl72")), "npus_count: [ 72 ]"));
}

TEST(AstraWritten, IrregularClusters_AreRefusedWithTheReason) {
  const auto said = [](const Topology& topology) { return refusal([&] { write_astra(topology); }); };
  Topology uneven = small_cluster(4);
  HostShape wider = small_shape();
  wider.nvlink.GBps_per_direction = 200;
  uneven.templates.push_back(build_host(wider, {}, "other"));
  uneven.groups = {{0, 2}, {1, 2}};
  EXPECT_TRUE(contains(said(uneven), "\"small-host\" and others that differ"));
  Topology broken = small_cluster(4);
  broken.fabric->exceptions = {{"leaf0->spine", 0.5}};
  EXPECT_TRUE(contains(said(broken), "fabric.exceptions: \"leaf0->spine\""));
  HostShape pcie = small_shape();
  pcie.kind = "pcie";
  EXPECT_TRUE(contains(said(small_cluster(2, pcie)), "paths over PCIe"));
  Topology apart = small_cluster(2);
  apart.fabric.reset();
  EXPECT_TRUE(contains(said(apart), "nothing joins the hosts"));
  EXPECT_TRUE(contains(said(read_topology_file(fixture("slurm-uneven-tree.conf"))), "without GPUs"));
  Topology lonely = read("Ring", "2", "1", "1");
  lonely.groups = {{0, 1}};
  lonely.fabric.reset();
  EXPECT_TRUE(contains(said(lonely), "GPUs: 1"));
}

// Any regular cluster that is written is read again with as many GPUs and nodes.
TEST(AstraWritten, RegularClusters_ReadBack) {
  int written = 0;
  for (unsigned seed = 0; seed < 60; ++seed) {
    const Topology topology = random_alike_cluster(seed, 4);
    SCOPED_TRACE(seed);
    if (topology.fabric->kind == FabricKind::torus && topology.hosts_per_domain > 1) continue;
    if (!topology.uniform() || !topology.fabric->exceptions.empty()) continue;
    const Topology again = read(write_astra(topology));
    EXPECT_EQ(again.gpu_count(), topology.gpu_count());
    EXPECT_EQ(again.node_count(), topology.node_count());
    ++written;
  }
  EXPECT_GT(written, 20);
}

// The files that others wrote: GPUs, hosts, and written as they were.
TEST(Astra, OthersFiles_ReadAndSayTheSameAgain) {
  const std::string folder = data_path("topologies/simulators/");
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not there; set TOPOMOE_DATA_DIR";
  const std::tuple<const char*, int, int> files[] = {
      {"astra-analytical/Ring.yml", 16, 16},       {"astra-analytical/Switch.yml", 16, 1},
      {"astra-sim/ex-Ring_4npus.yml", 4, 4},       {"astra-sim/ex-Ring_8npus.yml", 8, 8},
      {"astra-sim/hgx_h100_16gpu.yml", 16, 2},     {"astra-sim/hgx_h100_32gpu.yml", 32, 4},
      {"astra-sim/tpu_v3_32_2dtorus.yml", 32, 32},
  };
  for (const auto& [name, gpus, hosts] : files) {
    SCOPED_TRACE(name);
    const Topology topology = read_topology_file(folder + name);
    EXPECT_EQ(topology.gpu_count(), gpus);
    EXPECT_EQ(topology.host_count(), hosts);
    same_dimensions(parse_astra_network(write_astra(topology), "written"),
                    parse_astra_network(text_of(folder + name), name));
    const std::string json = write_cluster_json(topology);
    EXPECT_EQ(write_cluster_json(read_cluster_json(json, "again")), json);
    EXPECT_FALSE(show_text(topology).empty());
  }
}

}  // namespace
}  // namespace topomoe::test
