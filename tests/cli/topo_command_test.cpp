// topo facts, export, diff, doctor as users call them.
#include <nlohmann/json.hpp>

#include "tests/cli/command.hpp"

namespace topomoe::testing {
namespace {

using TopoCommand = Command;
const std::string kClean = "$clusters/dgx-h100.json",
                  kBroken = "'" TOPOMOE_SOURCE_DIR "/tests/data/topology/nccl-gpu-lost-its-links.xml'";

TEST_F(TopoCommand, Export_AsNcclXml_HasTheSameFacts) {
  const Said before = topomoe("topo facts " + kBroken);
  ASSERT_EQ(before.code, 0) << before.err;
  ASSERT_EQ(topomoe("topo export " + kBroken + " --as nccl-xml -o again.xml").code, 0);
  const auto was = nlohmann::json::parse(before.out), is = nlohmann::json::parse(topomoe("topo facts again.xml").out);
  for (const char* key : {"n_gpu", "n_numa", "n_net", "links_per_gpu", "links_to_switch", "closest_nic"})
    EXPECT_EQ(was.at(key), is.at(key)) << key;
  EXPECT_EQ(topomoe("topo diff again.xml " + kBroken).out, "no difference\n");
}

TEST_F(TopoCommand, ClusterFile_IsExportedForNccl) {
  const Said said = topomoe("topo export " + kClean + " --as nccl-xml -o h100.xml");
  ASSERT_EQ(said.code, 0) << said.err;
  const auto facts = nlohmann::json::parse(topomoe("topo facts h100.xml").out);
  EXPECT_EQ(facts.at("n_gpu"), 8);
  for (const auto& [gpu, links] : facts.at("links_per_gpu").items()) EXPECT_EQ(links, 18) << gpu;
}

TEST_F(TopoCommand, Doctor_SaysWhatIsSevereByItsExitStatus) {
  EXPECT_EQ(topomoe("topo doctor " + kClean).code, 0);
  const Said said = topomoe("topo doctor " + kBroken);
  EXPECT_EQ(said.code, 1);
  EXPECT_NE(said.out.find("severe: "), std::string::npos) << said.out;
  EXPECT_NE(said.err.find("severe finding"), std::string::npos) << said.err;
}

TEST_F(TopoCommand, BadInput_LeavesNoOutput) {
  write("cut.xml", "<system version=\"1\"><cpu numaid=\"0\">");
  for (const char* command : {"topo export cut.xml --as svg -o out.svg", "topo facts cut.xml", "topo doctor cut.xml",
                              "topo export cut.xml --as lstopo -o out"})
    EXPECT_NE(topomoe(command).code, 0) << command;
  EXPECT_EQ(files(), std::vector<std::string>{"cut.xml"});
}

TEST_F(TopoCommand, Compose_MakesOneClusterThatOtherCommandsTake) {
  for (const char* host : {"n1", "n2", "n10"})
    ASSERT_EQ(topomoe("topo export " + kClean + " --as json -o " + host + ".json").code, 0);
  write("topology.conf", "SwitchName=a Nodes=n[1-2]\nSwitchName=b Nodes=n10\nSwitchName=top Switches=a,b\n");
  const Said said = topomoe("topo compose n1.json n10.json n2.json --fabric topology.conf --name mine -o mine.json");
  ASSERT_EQ(said.code, 0) << said.err;
  EXPECT_NE(said.err.find("1:1, as the network's file has no rates"), std::string::npos) << said.err;
  const auto facts = nlohmann::json::parse(topomoe("topo facts mine.json").out);
  EXPECT_EQ(facts.at("n_hosts"), 3);
  EXPECT_EQ(facts.at("n_gpu"), 24);
  EXPECT_EQ(topomoe("topo doctor mine.json").code, 0);
}

TEST_F(TopoCommand, ComposeThatIsRefused_LeavesNoOutput) {
  ASSERT_EQ(topomoe("topo export " + kClean + " --as json -o n1.json").code, 0);
  write("topology.conf", "SwitchName=a Nodes=other\n");
  const Said said = topomoe("topo compose n1.json --fabric topology.conf -o mine.json");
  EXPECT_EQ(said.code, 2);
  expect_one_line(said.err, {"n1", "not in the network", "other"});
  expect_one_line(topomoe("topo compose n1.json --fabric torus:dims=4,GBps=50 -o mine.json").err, {"fabric.dims", "4"});
  expect_one_line(topomoe("topo compose n1.json -o n1.json").err, {"n1.json"});
  EXPECT_EQ(files(), (std::vector<std::string>{"n1.json", "topology.conf"}));
}

}  // namespace
}  // namespace topomoe::testing
