// What rocm-smi and amd-smi say of the links between GPUs.
#include "topology/read/amd_smi.hpp"
#include "spoiled.hpp"
#include "support.hpp"
#include "topology/read/readers.hpp"

namespace topomoe::test {
namespace {

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}
std::string ring() { return text_of(fixture("rocm-smi-ring.txt")); }
std::string pair() { return text_of(fixture("amd-smi-pair.txt")); }
std::string said(const std::string& text) {
  return refusal([&] { read_amd_smi(text, "t.txt"); });
}

TEST(AmdSmi, Ring_HasALinkForEachSingleHop) {
  const Topology topology = read_topology_file(fixture("rocm-smi-ring.txt"));
  const HostTemplate& host = topology.templates.at(0);
  EXPECT_EQ(host.nvlink, Presence::present);
  EXPECT_EQ(
      std::count_if(host.links.begin(), host.links.end(), [](const Link& own) { return own.kind == LinkKind::xgmi; }),
      4);
  EXPECT_EQ(route(topology, 0, 1).path_class, PathClass::NVL);
  EXPECT_EQ(route(topology, 0, 2).path_class, PathClass::NVB);  // two hops, over GPU 1 or 3
  EXPECT_TRUE(warns(topology, "XGMI of several hops"));
  // NUMA nodes 1 and 3 are the host's first and second.
  EXPECT_EQ(host.devices.at(1).attributes, (std::vector<Attribute>{{"numaid", "3"}}));
  EXPECT_EQ(host.devices.at(static_cast<std::size_t>(host.gpus[2])).numa, 1);
}

TEST(AmdSmi, BandwidthTable_GivesRates) {
  const Topology topology = read_topology_file(fixture("amd-smi-pair.txt"));
  const HostTemplate& host = topology.templates.at(0);
  EXPECT_EQ(topology.bus_id(1), "0000:22:00.0");
  const auto xgmi =
      std::find_if(host.links.begin(), host.links.end(), [](const Link& own) { return own.kind == LinkKind::xgmi; });
  ASSERT_NE(xgmi, host.links.end());
  EXPECT_EQ(xgmi->GBps_per_direction, 64);  // the greater, 64,000 MB/s
  EXPECT_EQ(xgmi->source, Source::assumed);
  EXPECT_EQ(route(topology, 0, 2).path_class, PathClass::PHB);
  EXPECT_TRUE(warns(topology, "NUMA node of some GPUs is not said"));
}

TEST(AmdSmi, AllPcie_IsNoXgmiAndNotApplicableIsUnknown) {
  const std::string none =
      replaced(replaced(pair(), "SELF         XGMI", "SELF         PCIE"), "0000:22:00.0 XGMI", "0000:22:00.0 PCIE");
  EXPECT_EQ(read_amd_smi(none, "t").templates.at(0).nvlink, Presence::absent);
  const std::string unknown =
      replaced(replaced(pair(), "SELF         XGMI", "SELF         N/A "), "0000:22:00.0 XGMI", "0000:22:00.0 N/A ");
  EXPECT_EQ(read_amd_smi(unknown, "t").templates.at(0).nvlink, Presence::unknown);
}

TEST(AmdSmi, WhatDoesNotFit_IsRefusedByLine) {
  EXPECT_TRUE(contains(said(replaced(pair(), "SELF         XGMI", "SELF         WIFI")), "line 15: \"WIFI\""));
  EXPECT_TRUE(contains(said(replaced(pair(), "SELF         XGMI", "SELF         PCIE")), "one way and not the other"));
  EXPECT_TRUE(contains(said(replaced(pair(), "XGMI         SELF         PCIE", "XGMI         SELF")), "2 cells"));
  EXPECT_TRUE(contains(said(replaced(pair(), "50000-64000", "64000-50000")), "least and most"));
  EXPECT_TRUE(contains(said(replaced(pair(), "50000-64000", "nan")), "least and most"));
  EXPECT_TRUE(contains(said(replaced(ring(), "GPU[3]", "GPU[4]")), "the tables have 4 GPUs"));
  EXPECT_TRUE(contains(said(replaced(ring(), "Link Type between two GPUs", "Nothing between two GPUs")),
                       "no table of link types"));
  const std::size_t row = ring().find("GPU2   XGMI");
  EXPECT_TRUE(contains(said(ring().substr(0, row)), "no row for GPU2"));
}

TEST(AmdSmi, TextAroundTheTables_IsPassedOver) {
  const Topology alone = read_amd_smi(pair(), "t.txt");
  EXPECT_EQ(read_topology("- Fixed:\n```shell\n$ amd-smi topology\n" + pair() + "```\n### Fixes\n", "t.txt"), alone);
}

TEST(AmdSmi, CutOffOrDamagedAnywhere_NeverCrashes) {
  for (const std::string& text : {ring(), pair()})
    survives_cuts_and_spoilt_bytes(text, "\"[0-9\n\x01", [](const std::string& some) { read_amd_smi(some, "t.txt"); });
}

}  // namespace
}  // namespace topomoe::test
