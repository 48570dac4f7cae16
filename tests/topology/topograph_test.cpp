// topograph's models and graphs, and NetQ's: named switches over named hosts, accelerated domains, and no rates.
#include <map>

#include "spoiled.hpp"
#include "support.hpp"
#include "topology/read/readers.hpp"
#include "topology/read/yaml_subset.hpp"

namespace topomoe::test {
namespace {

using Names = std::vector<std::string>;

TEST(YamlSubset, ListsInOneLine_HoldQuotedNamesWithBracketsAndCommas) {
  const Yaml root = read_yaml_subset("a: [ \"n[1-2,5]\", 'b,c' ,d]\ne: {}\nf: { }\ng: []\n", "t");
  Names items;
  for (const Yaml& item : root.find("a")->list) items.push_back(item.text);
  EXPECT_EQ(items, (Names{"n[1-2,5]", "b,c", "d"}));
  EXPECT_EQ(root.find("e")->kind, Yaml::Kind::map);
  EXPECT_TRUE(root.find("f")->map.empty());
  EXPECT_TRUE(root.find("g")->list.empty());
  for (const char* text : {"a: [n[1-2]]", "a: [\"b]", "a: [\"b\"c]", "a: [,b]", "a: {b}", "a: [{}]"})
    EXPECT_TRUE(contains(refusal([&] { read_yaml_subset(text, "t"); }), "t: line 1")) << text;
}

Topology read(const std::string& text) { return read_topograph_model(text, "t.yaml"); }

TEST(TopographModel, BlocksBelowSwitches_AreLeavesAndDomains) {
  const Topology topology = read_topology_file(fixture("topograph-model.yaml"));
  EXPECT_EQ(topology.host_names, (Names{"n1", "n2", "n3", "n4", "n5", "n6"}));
  EXPECT_EQ(unit_of_hosts(topology), (std::vector<int>{4, 2}));
  EXPECT_EQ(topology.fabric->leaf_names, (Names{"tor1", "tor2"}));
  EXPECT_EQ(topology.fabric->pod_names, Names{"spine"});
  EXPECT_EQ(topology.hosts_per_domain, 2);
  EXPECT_EQ(topology.fabric->uplink.source, Source::unknown);
  EXPECT_TRUE(warns(topology, "sub-domains are not kept"));
}

TEST(TopographModel, NodesAndCapacityBlocks_AreReadInTheirEarlierForms) {
  const std::string switches = "switches:\n  core:\n    switches: [leaf]\n  leaf:\n    nodes: [\"n[1-2]\", n3, n4]\n";
  const std::string blocks =
      "capacity_blocks:\n  cb1:\n    nodes: [\"n[1-2]\"]\n    attributes:\n      nvlink: a\n"
      "  cb2:\n    nodes: [n3, n4]\n    attributes:\n      nvlink: b\n  cb3: {}\n";
  const Topology maps = read(switches + blocks);
  EXPECT_EQ(maps.hosts_per_domain, 2);
  EXPECT_EQ(maps.leaf_count(), 1);
  EXPECT_EQ(read(switches + "nodes:\n  n1: {}\n  n2:\n    type: x\n  n3: {}\n  n4: {}\n").hosts_per_domain, 1);
  const Topology lists = read(
      "switches:\n- name: core\n  switches: [leaf]\n- name: leaf\n  capacity_blocks: [cb1, cb2]\n"
      "capacity_blocks:\n- name: cb1\n  type: H100\n  nvlink: a\n  nodes: [n1, n2]\n"
      "- name: cb2\n  nvlink: b\n  nodes: [n3, n4]\n");
  EXPECT_EQ(lists.host_names, maps.host_names);
  EXPECT_EQ(lists.hosts_per_domain, 2);
}

TEST(TopographModel, DomainsThatDoNotFit_AreLeftOutAndSaySo) {
  const std::string one =
      "switches:\n  leaf: {}\nblocks:\n- switch: leaf\n  nodes: [a, b]\n  annotations:\n    x/domain: d\n";
  EXPECT_EQ(read(one).hosts_per_domain, 2);
  const Topology uneven = read(one + "- switch: leaf\n  nodes: [c, e, f]\n  annotations:\n    x/domain: g\n");
  EXPECT_EQ(uneven.hosts_per_domain, 1);
  EXPECT_TRUE(warns(uneven, "scale-up domains are not kept: block \"g\" of 3 hosts"));
  EXPECT_TRUE(warns(read(one + "- switch: leaf\n  nodes: [c, e]\n"), "2 hosts of 4 are in blocks"));
}

TEST(TopographModel, Mistakes_AreRefusedByLineAndName) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "empty"},
      {"switches:\n  a: {}\n", "no host"},
      {"- a\n", "a list"},
      {"switches:\n  a:\n    rate: 4\n", "\"rate\": no key of a topograph model here"},
      {"swiches:\n  a: {}\n", "\"swiches\""},
      {"switches:\n  a: {}\nblocks:\n- switch: b\n  nodes: [n]\n", "\"b\": no switch of this name"},
      {"switches:\n  a: {}\nblocks:\n- switch: a\n", "line 4: no node"},
      {"switches:\n  a: {}\nblocks:\n- nodes: [n]\n- switch: a\n  nodes: [m]\n", "\"n\": is below no switch"},
      {"switches:\n  a:\n    switches: [b]\n  b:\n    switches: [a]\nblocks:\n- switch: a\n  nodes: [n]\n",
       "t.yaml: line"},
      {"switches:\n  a:\n    nodes: [n]\n  b:\n    nodes: [n]\n", "two leaves"},
      {"switches:\n  a:\n    nodes: [n, m]\nnodes:\n  n: {}\n", "\"m\": is below a switch, and in no block"},
      {"capacity_blocks:\n  a:\n    nodes: [n]\n    nvlink: x\n  b:\n    nodes: [n]\n    nvlink: y\n",
       "in two domains"},
      {"switches:\n  a:\n    nodes: [\"n[1-\"]\n", "a '[' without its ']'"},
      {"switches:\n  a:\n    nodes: [\"n[1-9999999]\"]\n", "names in all"},
  };
  for (const auto& [text, said] : cases) {
    const std::string message = refusal([&, t = text] { read(t); });
    EXPECT_TRUE(contains(message, said)) << message;
  }
}

TEST(TopographModel, CutOffOrSpoiltAtEachByte_IsReadOrRefused) {
  survives_cuts_and_spoilt_bytes(text_of(fixture("topograph-model.yaml")), ":-[]'\n# ", read);
}

TEST(TopographGraph, Instances_StandBelowTheirLayers) {
  const Topology topology = read_topology_file(fixture("topograph-graph.json"));
  EXPECT_EQ(topology.host_names, (Names{"a1", "a2", "b1", "b2"}));
  EXPECT_EQ(topology.fabric->leaf_names, (Names{"leaf-a", "leaf-b"}));
  EXPECT_EQ(topology.fabric->pod_names, Names{"spine"});
  EXPECT_EQ(topology.hosts_per_domain, 2);
}

TEST(TopographGraph, Mistakes_AreRefusedByPath) {
  const std::pair<const char*, const char*> cases[] = {
      {"{\"instances\": []}", "no network_layers and no domain"},
      {"{\"instances\": 4}", "must be an array"},
      {"{\"instances\": [4]}", "instances[0]"},
      {"{\"instances\": [{\"id\": \"a\", \"network_layers\": [4]}]}", "names of switches"},
      {"{\"instances\": [{\"id\": \"a\", \"network_layers\": [\"l\", \"s\"]}, {\"id\": \"b\", \"network_layers\": "
       "[\"l\", \"t\"]}]}",
       "below both \"s\" and \"t\""},
      {"{\"instances\": [{\"id\": \"a\", \"network_layers\": [\"l\"]}, {\"id\": \"b\"}]}", "and others without"},
      {"{\"instances\": [{\"id\": \"a\", \"network_layers\": [\"l\", \"l\"]}]}", "both switches and hosts"},
      {"{\"instances\": [", "not JSON"},
  };
  for (const auto& [text, said] : cases) {
    const std::string message = refusal([&, t = text] { read_topology(t, "t.json"); });
    EXPECT_TRUE(contains(message, said)) << message;
  }
  const std::string deep = "{\"instances\": " + std::string(100'000, '[');
  EXPECT_TRUE(contains(refusal([&] { read_topology(deep, "t.json"); }), "nested deeper than 64"));
  EXPECT_TRUE(
      contains(refusal([] { read_topology("{\"schema\": \"topomoe.cluster/1\", \"instances\": []}", "t.json"); }),
               "hosts: missing"));
}

TEST(TopographGraph, CutOffOrSpoiltAtEachByte_IsReadOrRefused) {
  survives_cuts_and_spoilt_bytes(text_of(fixture("topograph-graph.json")), ",]}\"0{",
                                 [](const std::string& text) { return read_topograph_graph(text, "t.json"); });
}

// Two hosts on leaves 0 and 1, one on leaves 2 and 3; spine 0 is above leaves 0 and 1, spine 1 above 1, 2 and 3.
TEST(TopographNetq, LeavesOfRails_AreUnitsUnderOneLayerOfSpines) {
  const Topology topology = read_topology_file(fixture("netq-rails.json"));
  const Fabric& fabric = *topology.fabric;
  EXPECT_EQ(topology.host_names, (Names{"dgx-0", "dgx-1", "dgx-2"}));
  EXPECT_TRUE(fabric.rail_optimised);
  EXPECT_EQ(fabric.rails, 2);
  EXPECT_EQ(fabric.leaf_names, (Names{"leaf-0", "leaf-1", "leaf-2", "leaf-3"}));
  EXPECT_EQ(unit_of_hosts(topology), (std::vector<int>{2, 1}));
  EXPECT_EQ(fabric.spine_count, 2);
  EXPECT_EQ(fabric.hosts_per_pod, 0);
  EXPECT_TRUE(warns(topology, "1 management links (eth0)"));
  EXPECT_TRUE(warns(topology, "2 cables lead up from"));
}

TEST(TopographNetq, Mistakes_AreRefused) {
  const std::string text = text_of(fixture("netq-rails.json"));
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = text;
    changed.replace(changed.find(from), from.size(), to);
    return refusal([&] { read_topograph_netq(changed, "t.json"); });
  };
  EXPECT_TRUE(contains(with("h1-*-l1\"", "h1-*-l9\""), "two ids of devices"));
  EXPECT_TRUE(
      contains(with("\"h1-*-l1\"", "\"h1-*-s1\""), "\"leaf-1\" has some of the hosts of \"leaf-0\", and not all"));
  EXPECT_TRUE(contains(with("\"l1-*-s0\"", "\"l1-*-l0\""), "both of tier 1, are joined"));
  EXPECT_TRUE(contains(with("\"id\": \"l3\"", "\"id\": \"l2\""), "another device has this id"));
  EXPECT_TRUE(
      contains(with("\"h2-*-l3\"", "\"h2-*-m\""), "\"dgx-2\" is below \"leaf-2\" and \"mgmt\", switches of two tiers"));
  EXPECT_TRUE(contains(refusal([] { read_topograph_netq("[]", "t"); }), "a list with one graph"));
  EXPECT_TRUE(contains(refusal([] { read_topograph_netq("[{\"nodes\": [], \"links\": []}]", "t"); }), "no host"));
  EXPECT_TRUE(contains(refusal([] { read_topograph_netq(std::string(100'000, '['), "t"); }), "nested deeper"));
}

TEST(TopographNetq, CutOffOrSpoiltAtEachByte_IsReadOrRefused) {
  survives_cuts_and_spoilt_bytes(text_of(fixture("netq-rails.json")), ",]}\"0-{",
                                 [](const std::string& text) { return read_topograph_netq(text, "t.json"); });
}

TEST(Topograph, OthersFiles_ReadDrawAndRoundTrip) {
  const std::string folder = data_path("topologies/simulators/topograph"),
                    netq = data_path("topologies/ib/topograph-netq-topologyGraph.json");
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not there; set TOPOMOE_DATA_DIR";
  struct Known {
    int hosts, leaves, hosts_per_domain;
  };
  const std::map<std::string, Known> known = {{"dual-xclr-regular.yaml", {96, 12, 48}},
                                              {"large.yaml", {96, 12, 8}},
                                              {"medium.yaml", {8, 4, 2}},
                                              {"nvl72.yaml", {72, 4, 18}}};
  read_or_refused(folder, known);
  for (const auto& [file, wanted] : known) {
    SCOPED_TRACE(file);
    const Topology topology = read_topology_file(folder + "/" + file);
    EXPECT_EQ(topology.host_count(), wanted.hosts);
    EXPECT_EQ(topology.leaf_count(), wanted.leaves);
    EXPECT_EQ(topology.hosts_per_domain, wanted.hosts_per_domain);
  }
  reads_draws_and_round_trips(netq);
  const Topology topology = read_topology_file(netq);
  EXPECT_EQ(unit_of_hosts(topology), (std::vector<int>{4, 4}));
  EXPECT_EQ(topology.fabric->leaf_names, (Names{"net-unit-l1", "net-unit-l2"}));
  EXPECT_TRUE(warns(topology, "28 cables lead up from \"net-unit-l1\" and 19 from \"net-unit-l2\""));
}

}  // namespace
}  // namespace topomoe::test
