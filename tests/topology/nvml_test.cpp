// NVML: the library over a fake of it, and what its report does to a host.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "support.hpp"
#include "topology/discover/nvml.hpp"

namespace topomoe::test {
namespace {

// A machine with so many GPUs, NVSwitches c0 to c3 on its bus.
std::string pci_class(const std::string& bus_id) { return bus_id.starts_with("0000:c") ? "0x068000" : ""; }

NvmlReport report(const std::string& fake, const char* library = TOPOMOE_FAKE_NVML) {
  setenv("FAKE_NVML", fake.c_str(), 1);
  NvmlReport out = read_nvml(library, pci_class);
  unsetenv("FAKE_NVML");
  return out;
}

std::string all(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

// As hwloc sees such a machine: GPUs at 10.0, 11.0, ... at half their PCIe rate, no NVLink known.
HostTemplate host_of(int gpus) {
  HostTemplate host;
  host.name = "node";
  host.devices = {{DeviceKind::numa, "numa0", "", 0, {}}};
  for (int i = 0; i < gpus; ++i) {
    host.gpus.push_back(static_cast<int>(host.devices.size()));
    host.devices.push_back({DeviceKind::gpu,
                            "gpu" + std::to_string(i),
                            "0000:1" + std::to_string(i) + ":00.0",
                            0,
                            {{"vendor", "0x10de"}, {"device", "0x2330"}}});
    host.links.push_back({host.gpus.back(), 0, LinkKind::pcie, 4, 0.5, Source::datasheet, "idle", true, 0});
  }
  host.gpu.memory_GiB = 80;
  host.gpu.source = Source::assumed;
  return host;
}

struct Added {
  Topology topology;
  std::string warnings;
  nlohmann::json facts;
};
Added add(HostTemplate host, const NvmlReport& from) {
  std::vector<std::string> lines = from.warnings;
  add_nvml(host, from, lines);
  Topology topology;
  topology.templates = {host};
  topology.groups = {{0, 1}};
  require_valid(topology, "test");
  return {topology, all(lines), nlohmann::json::parse(facts_json(topology))};
}
Added added(int gpus, const std::string& fake, const char* library = TOPOMOE_FAKE_NVML) {
  return add(host_of(gpus), report("gpus=" + std::to_string(gpus) + " " + fake, library));
}

TEST(NvmlLibrary, EightGpusOnSwitches_AreRead) {
  const NvmlReport got = report("gpus=8");
  EXPECT_TRUE(got.has_library);
  EXPECT_EQ(all(got.warnings), "");
  EXPECT_EQ(got.driver, "550.54.15");
  ASSERT_EQ(got.gpus.size(), 8U);
  const NvmlGpu& last = got.gpus[7];
  EXPECT_EQ(last.bus_id, "0000:17:00.0");
  EXPECT_EQ(last.name, "NVIDIA H100 80GB HBM3");
  EXPECT_EQ(last.sm, 90);
  EXPECT_EQ(last.memory_GiB, 80);
  EXPECT_EQ(last.pcie_max_generation, 5);
  EXPECT_EQ(last.pcie_width, 16);
  EXPECT_EQ(last.pcie_max_width, 16);
  ASSERT_EQ(last.links.size(), 18U);
  EXPECT_TRUE(last.links_known && last.links[17].active);
  EXPECT_EQ(last.links[17].remote, NvmlLink::Remote::nvswitch);
  EXPECT_EQ(last.links[17].remote_bus_id, "0000:c1:00.0");  // 17 mod 4
  EXPECT_EQ(last.fabric.state, -1);
}

TEST(NvmlLibrary, NoLibrary_IsNoError) {
  const NvmlReport got = report("", "libnvidia-ml-that-is-not-there.so.1");
  EXPECT_FALSE(got.has_library);
  EXPECT_TRUE(got.gpus.empty() && got.warnings.empty());
}

TEST(NvmlLibrary, DriverWithoutGpus_SaysSo) {
  const NvmlReport got = report("gpus=0");
  EXPECT_TRUE(got.has_library && got.gpus.empty());
  EXPECT_EQ(all(got.warnings), "NVML: the driver is there, but no GPU\n");
}

TEST(NvmlLibrary, DriverNotLoaded_IsNamed) {
  EXPECT_TRUE(contains(all(report("error=nvmlInit_v2:9").warnings), "the NVIDIA driver is not loaded"));
}

// Each function that fails costs what it alone would have said.
TEST(NvmlLibrary, ErrorOfAnyFunction_IsNamedAndTheRestIsKept) {
  for (const char* name :
       {"nvmlSystemGetDriverVersion", "nvmlDeviceGetName", "nvmlDeviceGetCudaComputeCapability",
        "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMaxPcieLinkGeneration", "nvmlDeviceGetMaxPcieLinkWidth",
        "nvmlDeviceGetCurrPcieLinkWidth", "nvmlDeviceGetNvLinkState", "nvmlDeviceGetNvLinkRemotePciInfo_v2",
        "nvmlDeviceGetNvLinkRemoteDeviceType", "nvmlDeviceGetGpuFabricInfoV"}) {
    const NvmlReport got = report("gpus=2 error=" + std::string(name) + ":15");
    EXPECT_EQ(got.gpus.size(), 2U) << name;
    EXPECT_TRUE(contains(all(got.warnings), std::string(name) + ": GPU is lost (nvmlReturn_t 15)")) << name;
    const bool links = std::string(name) != "nvmlDeviceGetNvLinkState";
    EXPECT_EQ(got.gpus[1].links_known, links) << name;
    EXPECT_EQ(got.gpus[1].links.size(), links ? 18U : 0U) << name;
    add(host_of(2), got);
  }
  for (const char* name : {"nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetPciInfo_v3"}) {
    const NvmlReport got = report("gpus=2 error=" + std::string(name) + ":15");
    EXPECT_TRUE(got.gpus.empty() && contains(all(got.warnings), std::string(name) + ": GPU is lost")) << name;
  }
}

// What is at the other end then follows from the class on the PCI bus.
TEST(NvmlLibrary, OldDriver_LacksFunctionsAndSaysWhich) {
  const NvmlReport got = report("gpus=8", TOPOMOE_FAKE_NVML_OLD);
  EXPECT_EQ(all(got.warnings),
            "NVML: driver 550.54.15 has no nvmlDeviceGetNvLinkRemoteDeviceType\n"
            "NVML: driver 550.54.15 has no nvmlDeviceGetGpuFabricInfo\n");
  ASSERT_EQ(got.gpus.size(), 8U);
  EXPECT_EQ(got.gpus[0].links[0].remote, NvmlLink::Remote::nvswitch);
}

TEST(NvmlLibrary, Fabric_IsReadWithItsClique) {
  const NvmlFabric fabric = report("gpus=1 clique=7 degraded").gpus.at(0).fabric;
  EXPECT_EQ(fabric.state, 3);
  EXPECT_EQ(fabric.clique, 7U);
  EXPECT_EQ(fabric.cluster, "abababab-abab-abab-abab-abababababab");
  EXPECT_TRUE(fabric.is_degraded);
  EXPECT_EQ(report("gpus=1 fabric=3").gpus.at(0).fabric.cluster, "");  // of this host alone
}

// 18 links x 25 GB/s of an H100; PCIe Gen5 x16: 32 x 16 / 8 = 64 GB/s.
TEST(AddNvml, SwitchPlane_GetsEachGpusLinks) {
  const Added got = added(8, "");
  EXPECT_EQ(got.warnings, "");
  EXPECT_EQ(got.topology.templates[0].nvlink, Presence::present);
  EXPECT_EQ(got.facts["nvswitch"], true);
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(got.facts["links_to_switch"]["0000:1" + std::to_string(i) + ":00.0"], 18);
  }
  const Router router(got.topology);
  EXPECT_EQ(router.route(0, 7).path_class, PathClass::NVL);
  EXPECT_DOUBLE_EQ(router.route(0, 7).bottleneck_GBps, 450);
  EXPECT_DOUBLE_EQ(got.topology.templates[0].links[0].GBps_per_direction, 64);
}

TEST(AddNvml, OneLinkDown_CountsOneLessAndNamesTheGpu) {
  const Added got = added(8, "down=3:17");
  EXPECT_EQ(got.facts["links_to_switch"]["0000:13:00.0"], 17);
  EXPECT_EQ(got.facts["links_to_switch"]["0000:14:00.0"], 18);
  EXPECT_TRUE(contains(got.warnings, "GPU 0000:13:00.0 has 17 of 18 NVLinks up (down: 17), GPUs beside it 18"))
      << got.warnings;
}

TEST(AddNvml, OneGpuAlone_IsNamedForItsOwnLinks) {
  EXPECT_EQ(added(1, "down=0:4").warnings, "node: GPU 0000:10:00.0 has 17 of 18 NVLinks up (down: 4)\n");
}

TEST(AddNvml, AnotherBoardsMemory_IsSaid) {
  HostTemplate host = host_of(1);
  host.gpu.memory_GiB = 141;
  EXPECT_TRUE(contains(add(host, report("gpus=1")).warnings, "GPUs have 80 GiB by NVML; 141 are taken"));
}

TEST(AddNvml, NarrowSlot_IsNamedAndCountsAsItRuns) {
  const Added got = added(4, "narrow=2");
  EXPECT_TRUE(contains(got.warnings, "GPU 0000:12:00.0 runs PCIe x8, but it and its slot can do x16")) << got.warnings;
  EXPECT_DOUBLE_EQ(got.topology.templates[0].links[2].GBps_per_direction, 32);  // 32 x 8 / 8
}

// Bridges: 12 links up of 18 on every GPU is no fault of one of them.
TEST(AddNvml, BridgedPairs_AreJoinedAndWhatIsDownIsSaidOnce) {
  const Added got = added(4, "pairs");
  EXPECT_EQ(got.facts["gpu_pair_links"]["0000:10:00.0->0000:11:00.0"], 12);
  EXPECT_EQ(got.facts["gpu_pair_links"]["0000:13:00.0->0000:12:00.0"], 12);
  EXPECT_EQ(got.facts["gpu_pair_links"].size(), 4U);
  EXPECT_EQ(got.facts["nvswitch"], false);
  EXPECT_EQ(got.warnings,
            "node: 4 GPUs have 12 of 18 NVLinks up: by design where boards are joined by bridges, else a "
            "fault\n");
}

// 12 - 1 = 11 links there, 12 back: the far end of a dead link may still call it up.
TEST(AddNvml, PairThatDiffersByDirection_IsTwoLinksAndSaid) {
  const Added got = added(2, "pairs down=0:5");
  EXPECT_EQ(got.facts["gpu_pair_links"]["0000:10:00.0->0000:11:00.0"], 11);
  EXPECT_EQ(got.facts["gpu_pair_links"]["0000:11:00.0->0000:10:00.0"], 12);
  EXPECT_TRUE(contains(got.warnings, "0000:10:00.0 has 11 NVLinks up to 0000:11:00.0, but 12 back")) << got.warnings;
}

TEST(AddNvml, LinksNotKnown_StayUnknown) {
  const Added got = added(4, "error=nvmlDeviceGetNvLinkState:999");
  EXPECT_EQ(got.topology.templates[0].nvlink, Presence::unknown);
  EXPECT_TRUE(got.facts["links_per_gpu"].empty());
}

TEST(AddNvml, BoardsWithoutLinks_HaveNone) {
  HostTemplate host = host_of(4);
  for (const int gpu : host.gpus) host.devices[static_cast<std::size_t>(gpu)].attributes[1].value = "0x26b9";  // L40S
  const NvmlReport no_links = report("gpus=4 error=nvmlDeviceGetNvLinkState:3");
  EXPECT_EQ(add(host, no_links).topology.templates[0].nvlink, Presence::absent);
  // An H100 SXM is sold with NVLink alone: hidden, not absent.
  const Added hidden = add(host_of(4), no_links);
  EXPECT_EQ(hidden.topology.templates[0].nvlink, Presence::unknown);
  EXPECT_TRUE(contains(hidden.warnings, "GPU 0000:12:00.0 is a board with NVLink, but NVML knows no link of it"));
}

TEST(AddNvml, GpuThatNvmlDoesNotList_IsNamed) {
  const Added got = add(host_of(4), report("gpus=3"));
  EXPECT_TRUE(contains(got.warnings, "1 GPUs are on the PCI bus, but NVML does not list them (first: 0000:13:00.0)"));
  EXPECT_EQ(got.facts["links_to_switch"].size(), 3U);
  const Added hidden = add(host_of(2), report("gpus=3"));
  EXPECT_TRUE(contains(hidden.warnings, "NVML lists 1 GPUs that are not here (first: 0000:12:00.0)"));
}

TEST(AddNvml, Clique_GoesToTheGpus) {
  const HostTemplate host = added(2, "clique=7").topology.templates[0];
  for (const int gpu : host.gpus) {
    const std::vector<Attribute>& own = host.devices[static_cast<std::size_t>(gpu)].attributes;
    EXPECT_EQ(attribute(own, "fabric_cluster"), "abababab-abab-abab-abab-abababababab");
    EXPECT_EQ(attribute(own, "fabric_clique"), "7");
    EXPECT_EQ(attribute(own, "gpu.sm"), "90");
  }
  EXPECT_TRUE(contains(added(2, "fabric=2").warnings, "GPU 0000:10:00.0 is not registered with its NVLink fabric"));
}

TEST(AddNvml, UnknownBoard_GetsNameAndMemory) {
  HostTemplate host = host_of(2);
  host.gpu = {};
  const GpuSpec spec = add(host, report("gpus=2")).topology.templates[0].gpu;
  EXPECT_EQ(spec.name, "NVIDIA H100 80GB HBM3");
  EXPECT_EQ(spec.memory_GiB, 80);
  EXPECT_EQ(spec.source, Source::unknown);
}

// A host that knows its links (NCCL's dump) keeps them; what NVML says against them is said.
TEST(AddNvml, NcclsDump_IsKeptAndContradicted) {
  HostTemplate dump = added(8, "").topology.templates[0];
  HostTemplate checked = dump;
  std::vector<std::string> lines;
  add_nvml(checked, report("gpus=8"), lines);
  EXPECT_EQ(all(lines), "");
  EXPECT_EQ(checked, dump);
  add_nvml(checked, report("gpus=8 down=3:0 narrow=1"), lines);
  EXPECT_EQ(checked, dump);
  EXPECT_EQ(lines.size(), 3U);
  EXPECT_TRUE(contains(all(lines), "GPU 0000:11:00.0 runs PCIe x8"));
  EXPECT_TRUE(contains(all(lines), "GPU 0000:13:00.0 has 17 of 18 NVLinks up (down: 0)"));
  EXPECT_TRUE(contains(all(lines), "GPU 0000:13:00.0 has 17 NVLinks up by NVML, but 18 are listed")) << all(lines);
}

TEST(AddNvml, EmptyReport_ChangesNothing) {
  HostTemplate host = host_of(3);
  const HostTemplate before = host;
  std::vector<std::string> lines;
  add_nvml(host, {}, lines);
  EXPECT_EQ(host, before);
  EXPECT_TRUE(lines.empty());
}

}  // namespace
}  // namespace topomoe::test
