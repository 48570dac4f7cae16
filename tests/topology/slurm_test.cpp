// Slurm's topology.conf: what it says becomes a fabric of named switches over named hosts, and what it leaves out is
// unknown.
#include <map>

#include "spoiled.hpp"
#include "support.hpp"
#include "topology/read/host_list.hpp"
#include "topology/read/readers.hpp"

namespace topomoe::test {
namespace {

std::vector<std::string> expanded(const std::string& list, std::size_t most = 100) {
  std::vector<std::string> names;
  add_host_list(list, "list", most, names);
  return names;
}

TEST(HostList, Ranges_KeepTheirZeros) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(expanded("n[1-3,7],m[001-002]"), (Names{"n1", "n2", "n3", "n7", "m001", "m002"}));
  EXPECT_EQ(expanded("r[1-2]n[8-9].x"), (Names{"r1n8.x", "r1n9.x", "r2n8.x", "r2n9.x"}));
  EXPECT_EQ(expanded("[09-11]"), (Names{"09", "10", "11"}));
  EXPECT_EQ(expanded("switch.1.10"), (Names{"switch.1.10"}));
}

TEST(HostList, WhatIsNoList_IsRefused) {
  for (const char* list : {"", "a,", ",a", "a[", "a]", "a[]", "a[1-]", "a[-3]", "a[3-1]", "a[1-x]", "a[[1]]", "a[1,]",
                           "a[1-99999999999999999999]", "a[1-101]", "a[1-11]b[1-11]", "a[1-60],b[1-60]"})
    EXPECT_TRUE(contains(refusal([&] { expanded(list); }), "list")) << list;
  EXPECT_EQ(expanded("a[1-10]b[1-10]").size(), 100U);
  refusal([] { expanded("a[0-18446744073709551615]", 1'000'000); });
}

// core over row1 (leaves of 3 and 2 hosts), row2 (a leaf of 4) and leaf-4 (of 1) itself.
TEST(SlurmConf, UnevenTree_KeepsSizesAndNames) {
  const Topology topology = read_topology_file(fixture("slurm-uneven-tree.conf"));
  const Fabric& fabric = *topology.fabric;
  EXPECT_EQ(topology.host_count(), 10);
  EXPECT_EQ(topology.gpu_count(), 0);
  EXPECT_EQ(fabric.leaf_hosts, (std::vector<int>{3, 2, 4, 1}));
  EXPECT_EQ(fabric.pod_leaves, (std::vector<int>{2, 1, 1}));
  EXPECT_EQ(fabric.leaf_names, (std::vector<std::string>{"leaf-1", "leaf-2", "leaf-3", "leaf-4"}));
  EXPECT_EQ(fabric.pod_names, (std::vector<std::string>{"row1", "row2", ""}));
  EXPECT_EQ(topology.host_names, (std::vector<std::string>{"gpu01", "gpu02", "login", "gpu03", "gpu05", "rack1.n8",
                                                           "rack1.n9", "rack2.n8", "rack2.n9", "gpu06"}));
  EXPECT_EQ(fabric.uplink.source, Source::unknown);
  EXPECT_TRUE(warns(topology, "uplinks of a leaf: rate unknown: topology.conf names no rates; its LinkSpeed"));
  EXPECT_TRUE(warns(topology, "1 leaves hang directly on the core (\"leaf-4\" first)"));
  EXPECT_TRUE(contains(show_text(topology), "leaf1 leaf-2: gpu03 to gpu05, 2 hosts, under row1"));
}

// 45 trays in racks of 18: two full domains and a half.
TEST(SlurmConf, Blocks_AreDomains) {
  const Topology topology = read_topology_file(fixture("slurm-blocks.conf"));
  EXPECT_EQ(topology.hosts_per_domain, 18);
  EXPECT_EQ(topology.host_count(), 45);
  EXPECT_EQ(topology.node_count(), 3);
  EXPECT_EQ(topology.host_name(44), "tray209");
  EXPECT_FALSE(topology.fabric);
  EXPECT_TRUE(warns(topology, "the network above them is not described"));
}

Topology read(const std::string& text) { return read_slurm_conf(text, "t.conf"); }

TEST(SlurmConf, BlocksBelowLeaves_MustFollowEachOther) {
  const std::string tree = "SwitchName=s Switches=a,b\nSwitchName=a Nodes=n[1-4]\nSwitchName=b Nodes=n[5-6]\n";
  const Topology both = read(tree + "BlockName=x Nodes=n[2,1]\nBlockName=y Nodes=n[3-4]\nBlockName=z Nodes=n[5-6]\n");
  EXPECT_EQ(both.hosts_per_domain, 2);
  EXPECT_EQ(both.leaf_count(), 2);
  const auto said = [&](const std::string& blocks) { return refusal([&] { read(tree + blocks); }); };
  EXPECT_TRUE(contains(said("BlockName=x Nodes=n[1,3]\nBlockName=y Nodes=n[2,4]\nBlockName=z Nodes=n[5-6]\n"),
                       "t.conf: line 4: \"x\": its hosts do not follow each other"));
  EXPECT_TRUE(contains(said("BlockName=x Nodes=n[1-2]\n"), "2 hosts of 6 are in blocks"));
  EXPECT_TRUE(contains(said("BlockName=x Nodes=n[1-2]\nBlockName=y Nodes=n[3-6]\n"), "different sizes"));
  EXPECT_TRUE(contains(said("BlockName=x Nodes=n[1-2]\nBlockName=y Nodes=n[2-3]\n"), "is in two blocks"));
  EXPECT_TRUE(contains(said("BlockName=x Nodes=m1\n"), "is below no switch"));
}

TEST(SlurmConf, Forests_AreNotJoined) {
  const Topology leaves = read("SwitchName=a Nodes=n[1-2]\nSwitchName=b Nodes=n3\n");
  EXPECT_EQ(leaves.fabric->spine_count, 0);
  const Topology pods =
      read("SwitchName=p Switches=a\nSwitchName=q Switches=b\nSwitchName=a Nodes=n[1-2]\nSwitchName=b Nodes=n3\n");
  EXPECT_EQ(pods.fabric->core_count, 0);
  EXPECT_EQ(pods.fabric->hosts_per_pod, 2);
  EXPECT_TRUE(warns(pods, "2 trees of switches without a common root"));
  EXPECT_TRUE(contains(refusal([] {
                         read(
                             "SwitchName=r Switches=p\nSwitchName=p Switches=a\nSwitchName=a Nodes=n1\n"
                             "SwitchName=q Switches=b\nSwitchName=b Nodes=n2\n");
                       }),
                       "2 trees without a common root, of up to 3 tiers"));
}

TEST(SlurmConf, FourTiers_CountAsThreeAndSaySo) {
  const Topology topology = read(
      "SwitchName=root Switches=mid\nSwitchName=mid Switches=p\nSwitchName=p Switches=a\nSwitchName=a Nodes=n[1-2]\n");
  EXPECT_EQ(topology.fabric->core_count, 1);
  EXPECT_TRUE(warns(topology, "4 tiers of switches: those above the pods (\"mid\" below \"root\") count as one core"));
}

TEST(SlurmConf, Mistakes_AreRefusedByLineAndName) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "no switch and no block"},
      {"SwitchName=a\n", "line 1: \"a\": a switch has switches or hosts"},
      {"SwitchName=a Nodes=n1 Switches=b\n", "part it in two"},
      {"SwitchName=a Nodes=n1\nSwitchName=a Nodes=n2\n", "line 2: \"a\": a switch of this name"},
      {"SwitchName=a Switches=b\n", "\"b\": is below \"a\" and has no line of its own"},
      {"SwitchName=a Switches=b\nSwitchName=c Switches=b\nSwitchName=b Nodes=n1\n", "below both \"a\" and \"c\""},
      {"SwitchName=a Switches=b\nSwitchName=b Switches=a\n", "above itself"},
      {"SwitchName=a Switches=a\n", "above itself"},
      {"SwitchName=a Nodes=n1\nSwitchName=b Nodes=n1\n", "line 2: \"n1\": is below two leaves"},
      {"SwitchName=a Nodes=n[1-\n", "a '[' without its ']'"},
      {"SwitchName=a Nodes=n[1-99999999]\n", "names in all"},
      {"SwitchName=a Nodez=n1\n", "\"nodez\": known: SwitchName="},
      {"Nodes=n1\n", "begins with SwitchName="},
      {"SwitchName=a Nodes=n1 Nodes=n2\n", "given twice"},
      {"SwitchName = a Nodes=n1\n", "Key=value"},
      {"SwitchName=\"a Nodes=n1\n", "does not end"},
      {"SwitchName=DEFAULT LinkSpeed=4\n", "DEFAULT"},
      {"Include other.conf\n", "Key=value"},
      {"BlockName=a Nodes=n[1-2]\nBlockSizes=2,x\n", "BlockSizes: whole numbers"},
  };
  for (const auto& [text, said] : cases) EXPECT_TRUE(contains(refusal([&, t = text] { read(t); }), said)) << text;
}

TEST(SlurmConf, CutOffOrSpoiltAtEachByte_IsReadOrRefused) {
  for (const char* file : {"slurm-uneven-tree.conf", "slurm-blocks.conf"})
    survives_cuts_and_spoilt_bytes(text_of(fixture(file)), std::string("[]\\=,\n9\0", 8), read);
}

TEST(SlurmConf, ManyHosts_AreReadOnceAndQuickly) {
  std::string text = "SwitchName=root Switches=leaf[0-1999]\n";
  for (int leaf = 0; leaf < 2000; ++leaf)
    text += "SwitchName=leaf" + std::to_string(leaf) + " Nodes=n" + std::to_string(leaf) + "-[001-040]\n";
  const Topology topology = read(text);
  EXPECT_EQ(topology.host_count(), 80'000);
  EXPECT_TRUE(topology.fabric->leaf_hosts.empty());  // all alike
  EXPECT_EQ(topology.fabric->hosts_per_leaf, 40);
}

Topology read_yaml(const std::string& text) { return read_slurm_yaml(text, "t.yaml"); }

// Leaves of 4 and 2 hosts, in blocks of 2.
TEST(SlurmYaml, TreeAndBlocks_AreReadTogether) {
  const Topology topology = read_topology_file(fixture("slurm-topology.yaml"));
  EXPECT_EQ(topology.host_names, (std::vector<std::string>{"n1", "n2", "n3", "n4", "n5", "n6"}));
  EXPECT_EQ(topology.fabric->leaf_hosts, std::vector<int>());
  EXPECT_EQ(topology.fabric->hosts_per_leaf, 4);
  EXPECT_EQ(topology.fabric->pod_names, std::vector<std::string>{"top"});
  EXPECT_EQ(topology.hosts_per_domain, 2);
}

TEST(SlurmYaml, Mistakes_AreRefusedByLineAndName) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "empty"},
      {"- topology: a\n  flat: true\n", "no switch and no block"},
      {"- topology: a\n  ring: x\n", "line 2: \"ring\": known here: topology"},
      {"topology: a\n", "a map: a list of"},
      {"- tree:\n    switches:\n      - switch: s\n        nodes: n1\n", "\"topology: name\""},
      {"- topology: a\n  tree: [s]\n", "a list: \"key: value\" lines"},
      {"- topology: a\n  tree:\n    switches:\n      - switch: s\n        nodes: n[1\n", "t.yaml: line 5"},
      {"- topology: a\n  tree: &x\n", "anchors"},
      {"- topology: {a: b}\n", "maps in one line"},
      {"- topology: a\n\ttree: b\n", "tabs"},
      {"- topology: a\n topology: b\n", "indentation"},
      {"- topology: a\n  topology: b\n", "each once"},
  };
  for (const auto& [text, said] : cases) EXPECT_TRUE(contains(refusal([&, t = text] { read_yaml(t); }), said)) << text;
}

TEST(SlurmYaml, CutOffOrSpoiltAtEachByte_IsReadOrRefused) {
  survives_cuts_and_spoilt_bytes(text_of(fixture("slurm-topology.yaml")), ":-[]'\n# ", read_yaml);
  refusal([] { read_yaml(std::string(100'000, '-')); });
  std::string deep;
  for (int i = 0; i < 1000; ++i) deep += "- ";
  EXPECT_TRUE(contains(refusal([&] { read_yaml(deep + "a"); }), "32 levels"));
}

// The files that others wrote: read, drawn, and written as JSON and back.
TEST(SlurmConf, OthersFiles_ReadAndRoundTrip) {
  const std::string folder = data_path("topologies/slurm");
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not there; set TOPOMOE_DATA_DIR";
  const std::map<std::string, std::pair<int, int>> hosts_and_leaves = {
      {"schedmd-backfill.conf", {32, 0}},          {"schedmd-check.conf", {32, 0}},
      {"schedmd-test133_1-case3.conf", {400, 20}}, {"schedmd-test133_1-case4.conf", {400, 20}},
      {"topograph-oci-tree.conf", {96, 12}},
  };
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    SCOPED_TRACE(entry.path());
    const Topology topology = read_topology_file(entry.path());
    const auto known = hosts_and_leaves.find(entry.path().filename());
    if (known != hosts_and_leaves.end()) {
      EXPECT_EQ(topology.host_count(), known->second.first);
      EXPECT_EQ(topology.leaf_count(), known->second.second);
    }
    reads_draws_and_round_trips(entry.path());
    ++files;
  }
  EXPECT_GT(files, 5);
}

// 70 bytes may name a million hosts.
TEST(Slurm, MoreHostsThanAnyCluster_AreRefused) {
  EXPECT_TRUE(contains(refusal([] { read_topology("SwitchName=leaf Nodes=n[1-9][1-9][1-9999]", "x"); }),
                       "at most 250000 names"));
}

}  // namespace
}  // namespace topomoe::test
