// NCCL's rings and trees: read, and laid over a machine.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "spoiled.hpp"
#include "topomoe/nccl_graph.hpp"

namespace topomoe::test {
namespace {

NcclGraph read(const std::string& text) { return read_nccl_graph(text, "g.xml"); }
NcclGraph four_gpus() { return read(text_of(fixture("nccl-graph-four-gpus.xml"))); }
// Four GPUs with 100 GB/s to one plane, GPU i below switch i / 2 with NICs i of 25 GB/s.
Topology machine() {
  Topology topology = small_cluster(1);
  topology.fabric.reset();
  return topology;
}
std::vector<NcclSearchUse> over(const NcclGraph& graph, const Topology& topology) {
  return use_of_nccl_graph(graph, topology, "g.xml");
}

std::string graph(const std::string& attributes, const std::string& channels) {
  return "<graphs version=\"1\"><graph " + attributes + ">" + channels + "</graph></graphs>";
}
std::string ring(const std::string& devices, const std::string& intra = "20", const std::string& type = "NVL") {
  return graph(fmt::format("id=\"0\" pattern=\"4\" crossnic=\"0\" nchannels=\"1\" speedintra=\"{}\" speedinter=\"{}\" "
                           "typeintra=\"{}\" typeinter=\"PIX\" samechannels=\"1\"",
                           intra, intra, type),
               "<channel>" + devices + "</channel>");
}
std::string gpus(std::initializer_list<const char*> devs) {
  std::string out;
  for (const char* dev : devs) out += fmt::format("<gpu dev=\"{}\"/>", dev);
  return out;
}

TEST(NcclGraph, Searches_AreReadAsNcclWroteThem) {
  const NcclGraph own = four_gpus();
  ASSERT_EQ(own.searches.size(), 4U);
  EXPECT_TRUE(own.warnings.empty());
  EXPECT_EQ(name(own.searches[0]), "ring");
  EXPECT_EQ(name(own.searches[1]), "tree");
  EXPECT_EQ(name(own.searches[2]), "CollNet chain");
  EXPECT_EQ(name(own.searches[3]), "NVLS");
  const NcclGraph::Search& search = own.searches[0];
  EXPECT_EQ(search.intra_GBps, 20);
  EXPECT_EQ(search.intra, PathClass::NVL);
  EXPECT_EQ(search.inter, PathClass::PIX);
  EXPECT_FALSE(search.same_channels);
  ASSERT_EQ(search.channels.size(), 2U);
  ASSERT_EQ(search.channels[1].size(), 6U);
  EXPECT_TRUE(search.channels[1][0].net);
  EXPECT_EQ(search.channels[1][0].dev, 3);
  EXPECT_EQ(search.channels[1][2].dev, 1);
}

// Ring 0: net0 gpu0 gpu1 gpu2 gpu3 net3; ring 1: net3 gpu3 gpu1 gpu2 gpu0 net0. Both go gpu1 -> gpu2: 2 x 20 of 100
// GB/s. By PCIe one comes in to gpu0 and the other leaves from there: 20 of 32 in each direction.
TEST(NcclGraph, RingOverLinks_CountsChannelsOnEach) {
  const Topology topology = machine();
  const NcclSearchUse use = over(four_gpus(), topology)[0];
  const auto channels_on = [&](const std::string& link) {
    for (const auto& own : use.links)
      if (own.name == link) return own.channels;
    return 0;
  };
  EXPECT_EQ(channels_on("host0.gpu1->nvswitch"), 2);
  EXPECT_EQ(channels_on("host0.nvswitch->gpu0"), 1);
  EXPECT_EQ(channels_on("host0.gpu0->pci_switch0"), 1);
  EXPECT_EQ(channels_on("host0.pci_switch0->gpu0"), 1);
  EXPECT_EQ(use.bottleneck.channels, 1);
  EXPECT_EQ(use.bottleneck.asked_GBps, 20);
  EXPECT_EQ(use.bottleneck.GBps_per_direction, 32);
  EXPECT_EQ(use.intra, PathClass::NVL);
  EXPECT_EQ(use.inter, PathClass::PIX);
  EXPECT_TRUE(use.notes.empty());
  EXPECT_TRUE(contains(over(read(ring(gpus({"0", "1"}), "120")), topology)[0].notes.at(0),
                       "is asked for 120 GB/s and carries 100"));
}

// A chain in both directions, and no closing link.
TEST(NcclGraph, Tree_IsAChainUpAndDown) {
  const NcclSearchUse use = over(four_gpus(), machine())[1];
  std::vector<std::string> links;
  for (const auto& own : use.links) links.push_back(own.name);
  std::sort(links.begin(), links.end());
  EXPECT_EQ(links, (std::vector<std::string>{"host0.gpu0->nvswitch", "host0.gpu0->pci_switch0", "host0.gpu1->nvswitch",
                                             "host0.nic0->pci_switch0", "host0.nvswitch->gpu0", "host0.nvswitch->gpu1",
                                             "host0.pci_switch0->gpu0", "host0.pci_switch0->nic0"}));
  EXPECT_TRUE(use.notes.empty());
}

TEST(NcclGraph, NvlsAndNoChannels_LoadNoLink) {
  const std::vector<NcclSearchUse> uses = over(four_gpus(), machine());
  EXPECT_TRUE(uses[2].links.empty());
  EXPECT_TRUE(uses[3].links.empty());
  EXPECT_EQ(uses[3].bottleneck.channels, 0);
}

// Without nets the ring closes: gpu3 -> gpu0.
TEST(NcclGraph, RingOfOneNode_Closes) {
  const NcclSearchUse use = over(read(ring(gpus({"0", "1", "2", "3"}))), machine())[0];
  ASSERT_EQ(use.links.size(), 8U);  // each GPU out once and in once
  for (const auto& own : use.links) EXPECT_EQ(own.channels, 1) << own.name;
}

TEST(NcclGraph, ClaimedPath_IsComparedWithOurs) {
  const Topology topology = machine();
  const NcclSearchUse use = over(read(ring(gpus({"0", "1"}), "20", "SYS")), topology)[0];
  ASSERT_EQ(use.notes.size(), 1U);
  EXPECT_EQ(use.notes[0], "typeintra says SYS, the routes here are at worst NVL (host0.gpu0 to host0.gpu1)");
  EXPECT_TRUE(over(read(ring(gpus({"0", "1"}))), topology)[0].notes.empty());
}

TEST(NcclGraph, DeviceThatIsNotThere_IsRefusedByName) {
  const Topology topology = machine();
  const auto said = [&](const std::string& devices) { return refusal([&] { over(read(ring(devices)), topology); }); };
  EXPECT_TRUE(contains(said(gpus({"0", "7"})), "g.xml: ring: gpu dev: 7: the topology has 0, 1, 2, 3"));
  EXPECT_TRUE(contains(said("<net dev=\"9\"/>" + gpus({"0"}) + "<net dev=\"9\"/>"),
                       "g.xml: ring: net dev: 9: the topology has 0, 1, 2, 3"));
  EXPECT_TRUE(contains(said(gpus({"0x100000000000001"})), "a device of host 1: the topology has 1 hosts"));
  const Topology none = read_topology_file(fixture("slurm-uneven-tree.conf"));
  EXPECT_TRUE(contains(refusal([&] { over(read(ring(gpus({"0"}))), none); }), "the topology has no gpu"));
}

// Two trays of a domain: NCCL puts the host into the highest byte.
TEST(NcclGraph, DevicesOfADomain_AreOfTheirHost) {
  const Topology topology = read_topology_file(fixture("nccl-two-trays-one-domain.xml"));
  ASSERT_EQ(topology.host_count(), 2);
  const NcclSearchUse use = over(read(ring(gpus({"0", "0x1", "0x100000000000000", "0x100000000000001"}))), topology)[0];
  EXPECT_EQ(use.intra, PathClass::NVL);
  EXPECT_TRUE(std::any_of(use.links.begin(), use.links.end(),
                          [](const auto& link) { return link.name.starts_with("host1."); }));
}

// The dump's own numbers count, not the order of GPUs.
TEST(NcclGraph, NumbersOfTheDump_AreTheDevices) {
  Topology topology = machine();
  for (const int gpu : topology.templates[0].gpus) {
    const int number = static_cast<int>(gpu - topology.templates[0].gpus[0]);
    topology.templates[0].devices[static_cast<std::size_t>(gpu)].attributes = {
        {"gpu.dev", std::to_string(10 + number)}};
  }
  topology.templates[0].shape.reset();
  EXPECT_EQ(over(read(ring(gpus({"10", "0xb"}))), topology)[0].intra, PathClass::NVL);
  EXPECT_TRUE(contains(refusal([&] { over(read(ring(gpus({"0"}))), topology); }), "the topology has 10, 11, 12, 13"));
}

TEST(NcclGraph, Shown_AsTextAndJson) {
  const Topology topology = machine();
  const std::string text = nccl_graph_text(four_gpus(), topology, "g.xml");
  for (const char* part :
       {"ring: 2 channels, in the node 2 x 20 = 40 GB/s by NVL, between nodes 2 x 20 = 40 GB/s by PIX",
        "    net0 gpu0 gpu1 gpu2 gpu3 net3\n", "1 of the channels cross it, 20 of 32 GB/s",
        "tree: 1 channel, all alike", "CollNet chain: no channels\n", "NVLS: 1 channel,"})
    EXPECT_TRUE(contains(text, part)) << part << text;
  const auto json = nlohmann::json::parse(with_nccl_graph_json(show_json(topology), four_gpus(), topology, "g.xml"));
  EXPECT_EQ(json.at("gpus"), 4);
  ASSERT_EQ(json.at("nccl_graph").size(), 4U);
  EXPECT_EQ(json.at("nccl_graph")[0].at("bottleneck").at("asked_GBps"), 20);
  EXPECT_EQ(json.at("nccl_graph")[0].at("orders").size(), 2U);
  EXPECT_TRUE(json.at("nccl_graph")[2].at("bottleneck").is_null());
}

TEST(NcclGraph, OtherNumberOfChannelsThanSaid_IsTakenAndSaid) {
  std::string text = ring(gpus({"0", "1"}));
  text.replace(text.find("nchannels=\"1\""), 13, "nchannels=\"2\"");
  ASSERT_EQ(read(text).warnings.size(), 1U);
  EXPECT_TRUE(contains(read(text).warnings[0], "nchannels says 2, and there are 1"));
}

TEST(NcclGraph, WhatNcclWouldNotWrite_IsRefused) {
  const auto with = [](const char* what, const char* by) {
    std::string text = ring(gpus({"0", "1"}));
    text.replace(text.find(what), std::string(what).size(), by);
    return text;
  };
  const std::pair<std::string, const char*> cases[] = {
      {"", "not XML"},
      {"<system version=\"1\"/>", "NCCL_TOPO_DUMP_FILE"},
      {"<graph/>", "<graphs>"},
      {"<graphs version=\"1\"/>", "no <graph>"},
      {with("pattern=\"4\"", "pattern=\"7\""), "<graph> pattern"},
      {with("pattern=\"4\"", ""), "missing"},
      {with("id=\"0\"", "id=\"-1\""), "<graph> id"},
      {with("speedintra=\"20\"", "speedintra=\"fast\""), "\"fast\": GB/s of a channel"},
      {with("speedintra=\"20\"", "speedintra=\"nan\""), "GB/s of a channel"},
      {with("speedintra=\"20\"", "speedintra=\"-1\""), "GB/s of a channel"},
      {with("typeintra=\"NVL\"", "typeintra=\"NVS\""), "\"NVS\": one of LOC NVL NVB"},
      {with("nchannels=\"1\"", "nchannels=\"many\""), "a whole number"},
      {with("samechannels=\"1\"", "samechannels=\"2\""), "0 to 1"},
      {with("dev=\"0\"", "dev=\"zero\""), "<gpu> dev"},
      {with("dev=\"0\"", "dev=\"-1\""), "\"-1\": NCCL's number"},
      {with("dev=\"0\"", "dev=\"0xffffffffffffffff\""), "NCCL's number"},
      {with("dev=\"0\"", "dev=\"99999999999999999999999\""), "NCCL's number"},
      {ring(""), "no <gpu>"},
      {ring("<net dev=\"0\"/>"), "no <gpu>"},
      {ring(gpus({"0"}) + "<net dev=\"0\"/>" + gpus({"1"})), "a <net> between GPUs"},
      {std::string(17U << 20, ' '), "at most 16 MiB"},
  };
  for (const auto& [text, said] : cases) {
    const std::string message = refusal([&, t = text] { read(t); });
    EXPECT_TRUE(contains(message, said)) << message;
  }
  std::string many;
  for (int i = 0; i < 200'001; ++i) many += "<a/>";
  EXPECT_TRUE(contains(refusal([&] { read("<graphs>" + many + "</graphs>"); }), "more than 200000 elements"));
}

TEST(NcclGraph, CutOffOrSpoiltAtEachByte_IsReadOrRefused) {
  const Topology topology = machine();
  survives_cuts_and_spoilt_bytes(text_of(fixture("nccl-graph-four-gpus.xml")), "<>\"/ 0x9a&",
                                 [&](const std::string& text) { (void)nccl_graph_text(read(text), topology, "g"); });
}

// The graphs that others dumped, over their machine where it is there.
TEST(NcclGraph, OthersFiles_ReadAndLieOverTheirMachine) {
  const std::string folder = data_path("topologies/");
  if (!std::filesystem::exists(folder + "nccl-graph")) GTEST_SKIP() << folder << " is not there; set TOPOMOE_DATA_DIR";
  const std::tuple<const char*, std::size_t, const char*> files[] = {
      {"azure-nc48v4-graph.xml", 3, "azure-nc48v4.xml"},
      {"azure-ncv4-graph.xml", 3, nullptr},
      {"yccl-graph.xml", 5, "yccl-topo.xml"},
  };
  for (const auto& [file, searches, machine_file] : files) {
    SCOPED_TRACE(file);
    const NcclGraph own = read(text_of(folder + "nccl-graph/" + file));
    EXPECT_EQ(own.searches.size(), searches);
    EXPECT_TRUE(own.warnings.empty());
    if (machine_file == nullptr) continue;
    const Topology topology = read_topology_file(folder + "nccl-xml/" + machine_file);
    EXPECT_TRUE(contains(nccl_graph_text(own, topology, file), "ring: "));
  }
  // Four GPUs' graph is not of the machine with two.
  const NcclGraph four = read(text_of(folder + "nccl-graph/azure-ncv4-graph.xml"));
  const Topology two = read_topology_file(folder + "nccl-xml/azure-nc48v4.xml");
  EXPECT_TRUE(contains(refusal([&] { over(four, two); }), "gpu dev: 2: the topology has 0, 1"));
}

}  // namespace
}  // namespace topomoe::test
