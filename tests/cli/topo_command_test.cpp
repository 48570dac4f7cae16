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

// Four GPUs on 4 x 450 GB/s of NVLink; the sample of nccl-tests is too small to judge, a row more is not.
TEST_F(TopoCommand, Doctor_HoldsMeasurementsAgainstTheDescription) {
  const std::string sample = read(TOPOMOE_SOURCE_DIR "/tests/data/measured/nccl_tests_alltoall.txt");
  const auto with_row = [&](const std::string& busbw) {
    write("out.txt",
          sample + "1073741824 16777216 float none -1 9999 99.9 " + busbw + " 0 9999 99.9 " + busbw + " N/A\n");
    return topomoe("topo doctor " + kClean +
                   " --measured out.txt --measured '" TOPOMOE_SOURCE_DIR
                   "/tests/data/measured/nvbandwidth.json' --format json");
  };
  const Said healthy = with_row("320.0"), sick = with_row("90.0");
  EXPECT_EQ(healthy.code, 1);  // of nvbandwidth's testcase that failed
  EXPECT_EQ(sick.code, 1);
  const auto severe = [](const Said& said) {
    int count = 0;
    for (const auto& finding : nlohmann::json::parse(said.out)) count += finding.at("severity") == "severe";
    return count;
  };
  EXPECT_EQ(severe(healthy), 1) << healthy.out;
  EXPECT_EQ(severe(sick), 2) << sick.out;
  expect_one_line(sick.err, {"2 severe findings"});
  const Said alone = topomoe("topo doctor " + kClean +
                             " --measured '" TOPOMOE_SOURCE_DIR "/tests/data/measured/nccl_tests_alltoall.txt'");
  EXPECT_EQ(alone.code, 0) << alone.err;
  EXPECT_NE(alone.out.find("not judged"), std::string::npos) << alone.out;
}

TEST_F(TopoCommand, Doctor_SaysWhatItCannotHold) {
  write("bare.txt", "# algbw\n 1024 16 float none -1 1.0 0.1 0.1 0 1.0 0.1 0.1 0\n");
  const auto refused = [&](const std::string& arguments, const std::vector<std::string>& words) {
    const Said said = topomoe("topo doctor " + arguments);
    EXPECT_EQ(said.code, 2) << arguments;
    expect_one_line(said.err, words);
  };
  refused(kClean + " --measured bare.txt", {"bare.txt: operation", "--op"});
  refused(kClean + " --measured bare.txt --op alltoall", {"bare.txt: ranks", "Rank"});
  refused(kClean + " --measured bare.txt --op alltoone", {"--op: alltoone", "reduce_scatter"});
  refused(kClean + " --op alltoall", {"--op", "--measured"});
  refused(kClean + " " + kBroken + " --measured bare.txt", {"--measured: 2 descriptions"});
  refused(kClean + " --measured " + kBroken, {"neither nccl-tests nor nvbandwidth"});
  refused(kClean + " --measured none.txt", {"none.txt"});
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
