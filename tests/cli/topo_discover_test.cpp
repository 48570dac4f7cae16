// topo discover as users and job scripts call it: on the machine the tests run on, and on one with a fake NVML.
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/cli/command.hpp"

namespace topomoe::testing {
namespace {

// libpciaccess, which hwloc loads and unloads, leaks; LeakSanitizer cannot name what is unloaded.
class TopoDiscover : public Command {
 protected:
  void SetUp() override {
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
    Command::SetUp();
  }
  void TearDown() override {
    Command::TearDown();
    unsetenv("ASAN_OPTIONS");
  }
};
using Json = nlohmann::json;

std::string host() {
  std::array<char, 256> text{};
  gethostname(text.data(), text.size() - 1);
  const std::string name(text.data());
  return name.substr(0, name.find('.'));
}

int count_of(const Json& cluster, const std::string& kind) {
  int count = 0;
  for (const Json& device : cluster.at("templates").at(0).at("devices")) count += device.at("kind") == kind ? 1 : 0;
  return count;
}

TEST_F(TopoDiscover, FileOfThisHost_IsWhatStdoutSaysAndReadsBackTheSame) {
  const Said said = topomoe("topo discover -o %h.json");
  ASSERT_EQ(said.code, 0) << said.err;
  EXPECT_EQ(said.out, "");
  EXPECT_EQ(files(), std::vector<std::string>{host() + ".json"});
  const std::string text = read(host() + ".json");
  EXPECT_EQ(topomoe("topo discover").out, text);
  EXPECT_EQ(topomoe("topo export " + host() + ".json --as json").out, text);
  const Json cluster = Json::parse(text);
  EXPECT_EQ(cluster.at("name"), host());
  EXPECT_EQ(cluster.at("host_names"), Json{host()});
}

TEST_F(TopoDiscover, WithoutADriver_SaysSoInOneLine) {
  if (std::filesystem::exists("/proc/driver/nvidia") || std::filesystem::exists("/dev/dxg"))
    GTEST_SKIP() << "an NVIDIA driver is here";
  const Said said = topomoe("topo discover");
  EXPECT_EQ(said.code, 0);
  EXPECT_NE(said.err.find("topomoe: no NVIDIA driver"), std::string::npos) << said.err;
}

// NUMA nodes and NICs as the kernel counts them.
TEST_F(TopoDiscover, NumaNodesAndNics_AreAllThere) {
  const Said nics = shell("cat /sys/bus/pci/devices/*/class 2>/dev/null | grep -c ^0x02");
  const Said numas = shell("cat /sys/devices/system/node/node*/cpulist | grep -c .");
  const Json cluster = Json::parse(topomoe("topo discover").out);
  EXPECT_EQ(count_of(cluster, "nic"), std::stoi(nics.out));
  EXPECT_EQ(count_of(cluster, "numa"), std::stoi(numas.out));
  const Said shown = topomoe("topo show --live");
  EXPECT_EQ(shown.code, 0) << shown.err;
  EXPECT_NE(shown.out.find("numa0"), std::string::npos);
}

TEST_F(TopoDiscover, NamesOfFiles_KnowOnlyTheirTwoCodes) {
  EXPECT_EQ(topomoe("topo discover -o 100%%.json").code, 0);
  EXPECT_EQ(files(), std::vector<std::string>{"100%.json"});
  const Said said = topomoe("topo discover -o %n.json");
  EXPECT_EQ(said.code, 2);
  expect_one_line(said.err, {"-o", "%n", "%h"});
  EXPECT_EQ(topomoe("topo discover -o node%").code, 2);
  EXPECT_EQ(files().size(), 1U);
}

// Four H100s and the NVSwitches of the fake NVML, as hwloc describes them; the NIC is not in this machine's /sys.
std::string four_gpus() {
  std::string text =
      "<topology version=\"2.0\"><object type=\"Machine\" os_index=\"0\" cpuset=\"0x1\" complete_cpuset=\"0x1\" "
      "allowed_cpuset=\"0x1\" nodeset=\"0x1\" complete_nodeset=\"0x1\" allowed_nodeset=\"0x1\" gp_index=\"1\">"
      "<info name=\"Architecture\" value=\"x86_64\"/>"
      "<object type=\"NUMANode\" os_index=\"0\" cpuset=\"0x1\" complete_cpuset=\"0x1\" nodeset=\"0x1\" "
      "complete_nodeset=\"0x1\" gp_index=\"2\" local_memory=\"1\"/>"
      "<object type=\"PU\" os_index=\"0\" cpuset=\"0x1\" complete_cpuset=\"0x1\" nodeset=\"0x1\" "
      "complete_nodeset=\"0x1\" gp_index=\"3\"/>"
      "<object type=\"Bridge\" gp_index=\"4\" bridge_type=\"0-1\" depth=\"0\" bridge_pci=\"0000:[00-ff]\">";
  int index = 10;
  const auto add = [&](const std::string& bus, const std::string& type, const std::string& inside = "") {
    text += "<object type=\"PCIDev\" gp_index=\"" + std::to_string(index++) + "\" pci_busid=\"0000:" + bus +
            ":00.0\" pci_type=\"" + type + " [0000:0000] a1\" pci_link_speed=\"0.500000\">" + inside + "</object>";
  };
  for (const char* bus : {"10", "11", "12", "13"}) add(bus, "0302 [10de:2330]");
  add("50", "0207 [15b3:1021]", "<object type=\"OSDev\" gp_index=\"90\" name=\"mlx5_77\" osdev_type=\"3\"/>");
  for (const char* bus : {"c0", "c1", "c2", "c3"}) add(bus, "0680 [10de:22a3]");
  return text + "</object></object></topology>\n";
}

class FakeGpus : public TopoDiscover {
 protected:
  // `topo discover` where hwloc sees four_gpus() and the fake NVML is told this.
  Said discover(const std::string& nvml, const std::string& output,
                const std::string& variables = "LD_LIBRARY_PATH='" TOPOMOE_FAKE_NVML_FOLDER "'") {
    write("node.xml", four_gpus());
    return shell("HWLOC_XMLFILE=node.xml HWLOC_THISSYSTEM=1 FAKE_NVML='" + nvml + "' " + variables +
                 " '" TOPOMOE_BINARY "' topo discover" + (output.empty() ? "" : " -o " + output));
  }
  const std::string kNccl = "LD_LIBRARY_PATH='" TOPOMOE_FAKE_NVML_FOLDER ":" TOPOMOE_FAKE_NCCL_FOLDER "'";
};

TEST_F(FakeGpus, WithNvmlAlone_NvlinksAreThoseThatAreUp) {
  if (std::filesystem::exists("/proc/driver/nvidia")) GTEST_SKIP() << "NCCL would be asked for the GPUs that are here";
  const Said said = discover("gpus=4 down=2:5 narrow=1 clique=3", "node.json");
  ASSERT_EQ(said.code, 0) << said.err;
  const Json facts = Json::parse(topomoe("topo facts node.json").out);
  EXPECT_EQ(facts.at("n_gpu"), 4);
  EXPECT_EQ(facts.at("n_net"), 1);
  EXPECT_EQ(facts.at("nvswitch"), true);
  EXPECT_EQ(facts.at("links_to_switch").at("0000:12:00.0"), 17);
  EXPECT_EQ(facts.at("links_to_switch").at("0000:13:00.0"), 18);
  EXPECT_EQ(facts.at("nccl_nvlink_GBps").at("0000:13:00.0"), 18 * 20.6);
  for (const char* line : {"topomoe: no CUDA driver library (libcuda.so.1): NVLinks are those of NVML",
                           "GPU 0000:11:00.0 runs PCIe x8", "GPU 0000:12:00.0 has 17 of 18 NVLinks up (down: 5)"})
    EXPECT_NE(said.err.find(line), std::string::npos) << said.err;
  EXPECT_EQ(said.err.find("no links to them"), std::string::npos) << said.err;
  EXPECT_NE(read("node.json").find("\"fabric_clique\": \"3\""), std::string::npos);
  EXPECT_EQ(topomoe("topo export node.json --as json").out, read("node.json"));
  ASSERT_EQ(topomoe("topo export node.json --as nccl-xml -o nccl.xml").code, 0);
  const Json again = Json::parse(topomoe("topo facts nccl.xml").out);
  for (const char* key : {"n_gpu", "n_net", "links_to_switch", "nccl_nvlink_GBps", "closest_nic"})
    EXPECT_EQ(again.at(key), facts.at(key)) << key;
  // The doctor finds the GPU that lost a link, and the slot that runs at half.
  const Said doctor = topomoe("topo doctor node.json");
  EXPECT_EQ(doctor.code, 1);
  EXPECT_NE(doctor.out.find("0000:12:00.0"), std::string::npos) << doctor.out;
  EXPECT_NE(doctor.out.find("0000:11:00.0"), std::string::npos) << doctor.out;
}

// NCCL's dump is the host; NVML contradicts it; what NCCL prints is no part of the answer.
TEST_F(FakeGpus, WithNccl_ItsDumpIsTheHostAndNvmlChecksIt) {
  ASSERT_EQ(discover("gpus=4", "node.json").code, 0);
  ASSERT_EQ(topomoe("topo export node.json --as nccl-xml -o nccl.xml").code, 0);
  const Said said = discover("gpus=4 down=2:5 clique=3", "", "FAKE_NCCL_DUMP=nccl.xml " + kNccl);
  ASSERT_EQ(said.code, 0) << said.err;
  write("again.json", said.out);
  const Json cluster = Json::parse(said.out);
  EXPECT_EQ(cluster.at("source"), "NCCL on this machine");
  EXPECT_EQ(cluster.at("host_names"), Json{host()});
  EXPECT_NE(said.out.find("\"fabric_clique\": \"3\""), std::string::npos);
  EXPECT_NE(said.err.find("NCCL version"), std::string::npos);
  EXPECT_NE(said.err.find("GPU 0000:12:00.0 has 17 NVLinks up by NVML, but 18 are listed"), std::string::npos)
      << said.err;
  const Json facts = Json::parse(topomoe("topo facts again.json").out);
  EXPECT_EQ(facts.at("links_to_switch").at("0000:12:00.0"), 18);
  EXPECT_EQ(topomoe("topo export again.json --as json").out, said.out);
}

// Whatever becomes of NCCL, NVML's links are there, and one line says why.
TEST_F(FakeGpus, WithNcclThatFails_NvmlTellsAndTheReasonIsSaid) {
  for (const auto& [told, reason] :
       std::vector<std::pair<std::string, std::string>>{{"crash", "CUDA or NCCL: ended by signal 6"},
                                                        {"fail", "ncclResult_t 2"},
                                                        {"silent", "NCCL wrote no dump"}}) {
    const Said said = discover("gpus=4", "", "FAKE_NCCL=" + told + " " + kNccl);
    ASSERT_EQ(said.code, 0) << said.err;
    EXPECT_NE(said.err.find(reason), std::string::npos) << said.err;
    EXPECT_NE(said.err.find("NVLinks are those of NVML"), std::string::npos) << said.err;
    write("got.json", said.out);
    EXPECT_EQ(Json::parse(topomoe("topo facts got.json").out).at("links_to_switch").size(), 4U) << told;
  }
}

}  // namespace
}  // namespace topomoe::testing
