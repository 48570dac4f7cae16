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

TEST_F(TopoCommand, Export_AsSlurmAndSimgrid_IsReadAgain) {
  ASSERT_EQ(topomoe("topo export $clusters/h100-2x8.json --as slurm -o topology.conf").code, 0);
  EXPECT_NE(topomoe("topo show topology.conf").out.find("2 hosts"), std::string::npos);
  write("two.xml",
        "<platform version='4.1'><cluster id='c' prefix='n' suffix='' radical='0-3' speed='1f' bw='1GBps' "
        "lat='1us'/></platform>");
  ASSERT_EQ(topomoe("topo export two.xml --as simgrid -o again.xml").code, 0);
  const Said said = topomoe("topo show again.xml");
  EXPECT_NE(said.out.find("n0 to n3, 4 hosts"), std::string::npos) << said.out << said.err;
  const Said refused = topomoe("topo export topology.conf --as simgrid -o no.xml");
  EXPECT_EQ(refused.code, 2);
  EXPECT_EQ(files(), (std::vector<std::string>{"again.xml", "topology.conf", "two.xml"}));
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

}  // namespace
}  // namespace topomoe::testing
