// Files that others wrote of single machines: hwloc's XML.
#include <nlohmann/json.hpp>

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

}  // namespace
}  // namespace topomoe::test
