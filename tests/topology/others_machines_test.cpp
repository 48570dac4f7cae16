// Files that others wrote of single machines: hwloc's XML, nvidia-smi's matrix.
#include <nlohmann/json.hpp>
#include <sstream>

#include "support.hpp"

namespace topomoe::test {
namespace {

using Json = nlohmann::json;

class OthersMachines : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(data_path("topologies/hwloc-xml")))
      GTEST_SKIP() << data_path("topologies")
                   << " is not there; set TOPOMOE_DATA_DIR to the folder that has topologies/";
  }
  static Json facts_of(const std::string& file) {
    return Json::parse(facts_json(read_topology_file(data_path("topologies/" + file))));
  }
};

TEST_F(OthersMachines, EachHwlocXml_ReadsRoutesAndRoundTrips) {
  int read = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(data_path("topologies/hwloc-xml"))) {
    if (entry.path().extension() != ".xml") continue;
    SCOPED_TRACE(entry.path().filename());
    const Topology topology = read_topology_file(entry.path().string());
    const Router router(topology);
    for (int a = 0; a < topology.gpu_count(); ++a)
      for (int b = 0; b < topology.gpu_count(); ++b) EXPECT_NE(router.route(a, b).path_class, PathClass::DIS);
    const std::string written = write_cluster_json(topology);
    EXPECT_EQ(write_cluster_json(read_cluster_json(written, "again")), written);
    ++read;
  }
  EXPECT_GE(read, 15);
}

// By hand from the files: PCIDev of NVIDIA, AMD and Intel that compute, NUMANode with CPUs, names of network devices.
TEST_F(OthersMachines, HwlocCounts_AreThoseOfTheFile) {
  struct Expected {
    const char* file;
    int numas, gpus, nets;
  };
  for (const Expected& wanted : {Expected{"16intel64-manyVFs.xml", 2, 0, 6},
                                 {"32em64t-2n8c2t-pci-wholeio.xml", 2, 4, 3},
                                 {"96em64t-4n4d3ca2co-pci.xml", 4, 0, 8},
                                 {"fakeheterodistances.xml", 8, 0, 0},
                                 {"nvidiaDGX2.xml", 2, 16, 0},
                                 {"pmix-2XeonE5300.xml", 1, 0, 2},
                                 {"pmix-intel-4gpu.xml", 2, 4, 0},
                                 {"pmix-summit.h17n08.lstopo-2.2.0.xml", 2, 6, 6},
                                 {"v2/power8gpudistances.xml", 2, 4, 0}}) {
    SCOPED_TRACE(wanted.file);
    const Json facts = facts_of(std::string("hwloc-xml/") + wanted.file);
    EXPECT_EQ(facts["n_numa"], wanted.numas);
    EXPECT_EQ(facts["n_gpu"], wanted.gpus);
    EXPECT_EQ(facts["n_net"], wanted.nets);
  }
}

// 6 x 25,000 MB/s of each V100 go to the six switches of its board; P100 of POWER8: 2 x 20,000 to its sibling, 2 to the
// CPU.
TEST_F(OthersMachines, HwlocNvlinks_AreCounted) {
  const Json dgx2 = facts_of("hwloc-xml/nvidiaDGX2.xml");
  EXPECT_EQ(dgx2["nvswitch"], true);
  EXPECT_EQ(dgx2["links_to_switch"].size(), 16U);
  for (const Json& links : dgx2["links_to_switch"]) EXPECT_EQ(links, 6);
  const Json power8 = facts_of("hwloc-xml/v2/power8gpudistances.xml");
  EXPECT_EQ(power8["gpu_pair_links"].size(), 4U);
  for (const Json& links : power8["gpu_pair_links"]) EXPECT_EQ(links, 2);
  for (const Json& links : power8["links_per_gpu"]) EXPECT_EQ(links, 4);
}

const char* const kMatrices[] = {"4gpu-4nic-pcie-comment-prefixed.txt",
                                 "a40-4gpu-2nic-pcie.txt",
                                 "dgx-h100-8gpu-12nic-truncated-at-nic5.txt",
                                 "dgx1v-8gpu-1nic.txt",
                                 "h100-8gpu-kvm-nonic.txt",
                                 "h100-8gpu-trimmed-hami.txt",
                                 "rtx4090-8gpu-2nic.txt",
                                 "rtxpro4000-4gpu-2nic-noaffinity.txt",
                                 "stas-2gpu-nv2.txt",
                                 "stas-2gpu-phb.txt",
                                 "stas-a100-8gpu.txt",
                                 "stas-h100-8gpu-affinity.txt"};

// Each cell of the rows of GPUs, as the reader kept it, against the class that the graph gives the pair.
TEST_F(OthersMachines, PathsOfNvidiaSmi_AreThoseOfEachCell) {
  for (const char* file : kMatrices) {
    SCOPED_TRACE(file);
    const Topology topology = read_topology_file(data_path(std::string("topologies/nvidia-smi/") + file));
    const HostTemplate& host = topology.templates.at(0);
    const Router router(topology);
    const Json facts = Json::parse(facts_json(topology));
    const int gpus = topology.gpu_count();
    for (int gpu = 0; gpu < gpus; ++gpu) {
      const HostDevice& device = host.devices[static_cast<std::size_t>(host.gpus[static_cast<std::size_t>(gpu)])];
      std::istringstream cells{std::string(attribute(device.attributes, "topo"))};
      PathClass closest = PathClass::DIS;
      for (int other = 0; other < gpus + static_cast<int>(host.nics.size()); ++other) {
        std::string cell;
        ASSERT_TRUE(cells >> cell);
        const PathClass wanted = cell == "X"      ? PathClass::LOC
                                 : cell == "PIX"  ? PathClass::PIX
                                 : cell == "PXB"  ? PathClass::PXB
                                 : cell == "SYS"  ? PathClass::SYS
                                 : cell[1] == 'V' ? PathClass::NVL
                                                  : PathClass::PHB;  // NODE too: one CPU
        if (other >= gpus) {
          closest = std::min(closest, wanted);
          EXPECT_EQ(router.route_to_nic(gpu, other - gpus).path_class, wanted) << gpu << " " << other;
        } else if (wanted != PathClass::SYS || router.route(gpu, other).path_class != PathClass::NVB) {
          EXPECT_EQ(router.route(gpu, other).path_class, wanted) << gpu << " " << other;
        }
      }
      const Json& own = facts["closest_nic"][device.name];
      EXPECT_EQ(own.is_null() ? "DIS" : own["type"].get<std::string>(), name(closest)) << gpu;
    }
  }
}

TEST_F(OthersMachines, CountsOfNvidiaSmi_AreThoseOfTheFile) {
  const int counts[][3] = {{4, 4, 0}, {4, 2, 0}, {8, 12, 18}, {8, 1, 6}, {8, 0, 18}, {8, 0, 18},  // GPUs, NICs, links
                           {8, 2, 0}, {4, 2, 0}, {2, 0, 2},   {2, 0, 0}, {8, 0, 12}, {8, 0, 18}};
  for (std::size_t i = 0; i < std::size(kMatrices); ++i) {
    SCOPED_TRACE(kMatrices[i]);
    const Json facts = facts_of(std::string("nvidia-smi/") + kMatrices[i]);
    EXPECT_EQ(facts["n_gpu"], counts[i][0]);
    EXPECT_EQ(facts["n_net"], counts[i][1]);
    EXPECT_EQ(facts["links_per_gpu"].value("gpu0", 0), counts[i][2]);
  }
  // Row GPU3 of the DGX-1: NV2 NV1 NV2 X SYS SYS SYS NV1.
  const Json pairs = facts_of("nvidia-smi/dgx1v-8gpu-1nic.txt")["gpu_pair_links"];
  EXPECT_EQ(pairs["gpu3->gpu0"], 2);
  EXPECT_EQ(pairs["gpu3->gpu7"], 1);
  EXPECT_FALSE(pairs.contains("gpu3->gpu4"));
}

TEST_F(OthersMachines, AmdsTables_HaveALinkForEachPair) {
  // All of four, and all of eight: n (n - 1) / 2 pairs.
  for (const auto& [file, gpus] :
       {std::pair("rocm-smi-showtopo-4gpu-mi300a", 4), {"amd-smi-topology-mi300-changelog", 8}}) {
    const Topology topology = read_topology_file(data_path(std::string("topologies/nvidia-smi/") + file + ".txt"));
    EXPECT_EQ(topology.gpu_count(), gpus);
    int links = 0;
    for (const Link& link : topology.templates.at(0).links) links += link.kind == LinkKind::xgmi ? 1 : 0;
    EXPECT_EQ(links, gpus * (gpus - 1) / 2) << file;
  }
}

TEST_F(OthersMachines, MatricesThatCannotBe_AreRefusedWithTheirRealProblem) {
  const auto message = [](const std::string& file) {
    return refusal([&] { read_topology_file(data_path("topologies/" + file)); });
  };
  EXPECT_TRUE(
      contains(message("malformed/nvidia-smi-merged-cell.txt"), "row GPU5, column NIC7: \"PIXNODE\": two cells"));
  EXPECT_TRUE(contains(message("nvidia-smi/oci-h100-4gpu-4nic.txt"), "GPU0-NIC0 PXB, yet GPU3-NIC0 NODE"));
  for (const char* file : {"azure-nc48v4-graph.xml", "azure-ncv4-graph.xml", "yccl-graph.xml"})
    EXPECT_TRUE(contains(message(std::string("nccl-graph/") + file), "NCCL graph XML"));
}

}  // namespace
}  // namespace topomoe::test
