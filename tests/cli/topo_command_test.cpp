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

TEST_F(TopoCommand, Show_LaysNcclsGraphOverTheMachine) {
  const std::string graph = "'" TOPOMOE_SOURCE_DIR "/tests/data/topology/nccl-graph-four-gpus.xml'";
  const Said said = topomoe("topo show " + kClean + " --nccl-graph " + graph);
  EXPECT_EQ(said.code, 0) << said.err;
  EXPECT_NE(said.out.find("ring: 2 channels"), std::string::npos) << said.out;
  const Said json = topomoe("topo show " + kClean + " --format json --nccl-graph " + graph);
  EXPECT_EQ(nlohmann::json::parse(json.out).at("nccl_graph").size(), 4U);
  write("two.xml",
        "<graphs version=\"1\"><graph id=\"0\" pattern=\"4\" nchannels=\"1\" speedintra=\"1\" speedinter=\"1\" "
        "typeintra=\"NVL\" typeinter=\"PIX\"><channel><gpu dev=\"12\"/></channel></graph></graphs>");
  const Said other = topomoe("topo show " + kClean + " --svg out.svg --nccl-graph two.xml");
  EXPECT_EQ(other.code, 2);
  EXPECT_NE(other.err.find("two.xml: ring: gpu dev: 12"), std::string::npos) << other.err;
  EXPECT_EQ(files(), std::vector<std::string>{"two.xml"});
}

TEST_F(TopoCommand, SimulatorForms_AreReadAgain) {
  for (const std::string form : {"astra", "simai"}) {
    ASSERT_EQ(topomoe("topo export $clusters/h100-2x8.json --as " + form + " -o " + form).code, 0);
    const Said said = topomoe("topo facts " + form);
    ASSERT_EQ(said.code, 0) << said.err;
    EXPECT_EQ(nlohmann::json::parse(said.out).at("n_gpu"), 16) << form;
  }
}

TEST_F(TopoCommand, BadInput_LeavesNoOutput) {
  write("cut.xml", "<system version=\"1\"><cpu numaid=\"0\">");
  for (const char* command : {"topo export cut.xml --as svg -o out.svg", "topo facts cut.xml", "topo doctor cut.xml",
                              "topo export cut.xml --as lstopo -o out"})
    EXPECT_NE(topomoe(command).code, 0) << command;
  EXPECT_EQ(files(), std::vector<std::string>{"cut.xml"});
}

}  // namespace
}  // namespace topomoe::testing
