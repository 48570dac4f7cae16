// hwloc's XML of versions 1 to 3, and what of it is refused.
#include <nlohmann/json.hpp>

#include "support.hpp"

namespace topomoe::test {
namespace {

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  EXPECT_TRUE(contains(text, from)) << from;
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

std::string two_packages() { return text_of(fixture("hwloc-two-packages.xml")); }
Topology read(const std::string& text) { return read_topology(text, "two.xml"); }

TEST(HwlocXml, SwitchesGpusAndNics_HangWhereTheBusHasThem) {
  const Topology topology = read(two_packages());
  const HostTemplate& host = topology.templates.at(0);
  EXPECT_EQ(topology.gpu_count(), 3);
  EXPECT_EQ(topology.bus_id(2), "0000:86:00.0");
  ASSERT_EQ(host.nics.size(), 1U);
  EXPECT_EQ(host.nics[0].name, "mlx5_0");  // not ib0: NCCL goes by the RDMA device
  EXPECT_EQ(host.nics[0].port.source, Source::unknown);
  EXPECT_EQ(host.gpu.name, "V100 SXM2 16GB");
  const Router router(topology);
  // Both ends of one switch are one bridge, a root port is none.
  EXPECT_EQ(router.route_to_nic(0, 0).path_class, PathClass::PIX);
  EXPECT_EQ(router.route_to_nic(2, 0).path_class, PathClass::SYS);
}

TEST(HwlocXml, PciSpeeds_AreHwlocsAndZeroIsAssumed) {
  const HostTemplate host = read(two_packages()).templates.at(0);
  for (const Link& link : host.links) {
    if (link.kind != LinkKind::pcie) continue;
    const HostDevice& device = host.devices[static_cast<std::size_t>(link.src)];
    EXPECT_EQ(link.source, device.kind == DeviceKind::nic ? Source::assumed : Source::datasheet) << device.name;
    if (device.bus_id == "0000:86:00.0") {
      EXPECT_DOUBLE_EQ(link.GBps_per_direction, 7.876923);
    }
  }
}

// V100: 25,000 MB/s a link, so 50,000 are 2, 25,000 are 1 and 75,000 to the CPU are 3.
TEST(HwlocXml, NvlinkBandwidth_BecomesLinksAndTheirCounts) {
  const Topology topology = read(two_packages());
  const auto facts = nlohmann::json::parse(facts_json(topology));
  EXPECT_EQ(facts["n_numa"], 2);  // node 254 has no CPU
  EXPECT_EQ(facts["gpu_pair_links"]["0000:1a:00.0->0000:1b:00.0"], 2);
  EXPECT_EQ(facts["gpu_pair_links"]["0000:86:00.0->0000:1a:00.0"], 1);
  EXPECT_EQ(facts["links_per_gpu"]["0000:1a:00.0"], 3);
  EXPECT_EQ(facts["links_per_gpu"]["0000:86:00.0"], 4);
  EXPECT_EQ(facts["links_to_switch"], nlohmann::json::object());
  EXPECT_EQ(topology.templates[0].nvlink, Presence::present);
  EXPECT_TRUE(warns(topology, "1 NUMA nodes have no CPU"));
  EXPECT_EQ(Router(topology).route(0, 1).path_class, PathClass::NVL);
}

TEST(HwlocXml, NvlinkThatDiffersByDirection_IsKeptAndSaid) {
  const Topology topology = read(replaced(two_packages(), ">50000 1000000", ">25000 1000000"));
  EXPECT_TRUE(warns(topology, "0000:1a:00.0 to gpu1: 50000 MB/s out, but 25000 back"));
  const auto facts = nlohmann::json::parse(facts_json(topology));
  EXPECT_EQ(facts["gpu_pair_links"]["0000:1a:00.0->0000:1b:00.0"], 2);
  EXPECT_EQ(facts["gpu_pair_links"]["0000:1b:00.0->0000:1a:00.0"], 1);
}

TEST(HwlocXml, NvswitchesOnTheBus_AreOnePlane) {
  std::string text = replaced(two_packages(), "Package:4 ", "PCIDev:22 ");
  text = replaced(text, "0207 [15b3:1019]", "0680 [10de:1ac2]");
  const auto facts = nlohmann::json::parse(facts_json(read(text)));
  EXPECT_EQ(facts["nvswitch"], true);
  EXPECT_EQ(facts["links_to_switch"]["0000:86:00.0"], 3);
}

TEST(HwlocXml, NicWithoutRdmaBesideOneThatHas_IsARailAndSaid) {
  EXPECT_FALSE(warns(read(two_packages()), "have no RDMA device"));
  const std::string gpu = "<object type=\"PCIDev\" gp_index=\"23\"";
  const Topology topology = read(replaced(
      two_packages(), gpu,
      "<object type=\"PCIDev\" gp_index=\"60\" pci_busid=\"0000:87:00.0\" pci_type=\"0200 [8086:1572] [0000:0000] 01\" "
      "pci_link_speed=\"7.876923\"><object type=\"OSDev\" gp_index=\"61\" name=\"eno1\" osdev_type=\"2\"/></object>" +
          gpu));
  EXPECT_EQ(topology.templates[0].nics.size(), 2U);
  EXPECT_TRUE(warns(topology, "1 ports (first: eno1) have no RDMA device, 1 have"));
}

TEST(HwlocXml, WithoutTheMatrix_NvlinkIsUnknown) {
  const Topology topology = read(replaced(two_packages(), "NVLinkBandwidth", "Bandwidth"));
  EXPECT_EQ(topology.templates[0].nvlink, Presence::unknown);
  EXPECT_TRUE(warns(topology, "NVLink unknown"));
}

// Version 3 writes a set of types (16 network, 32 RDMA) and one number more in pci_type; before 2 there is no version.
TEST(HwlocXml, VersionsOneToThree_SayTheSame) {
  const Topology second = read(two_packages());
  std::string third = replaced(two_packages(), "version=\"2.0\"", "version=\"3.0\"");
  third = replaced(replaced(third, "osdev_type=\"3\"", "osdev_type=\"32\""), "osdev_type=\"2\"", "osdev_type=\"16\"");
  third = replaced(replaced(third, " a1\"", " a1 00\""), " b0\"", " b0 00\"");
  EXPECT_EQ(read(third), second);
  EXPECT_EQ(read(replaced(two_packages(), " version=\"2.0\"", "")), second);
}

TEST(HwlocXml, VersionOfTheFuture_NamesTheWayOut) {
  const std::string message = refusal([] { read(replaced(two_packages(), "version=\"2.0\"", "version=\"4.0\"")); });
  EXPECT_TRUE(contains(message, "\"4.0\"") && contains(message, "--export-xml-flags v2")) << message;
}

TEST(HwlocXml, DamagedFields_AreNamed) {
  const auto message = [](const std::string& from, const std::string& to) {
    return refusal([&] { read(replaced(two_packages(), from, to)); });
  };
  EXPECT_TRUE(contains(message("0302 [10de:1db1]", "0302 10de:1db1"), "pci_type"));
  EXPECT_TRUE(contains(message("pci_busid=\"0000:1a:00.0\"", ""), "pci_busid"));
  EXPECT_TRUE(contains(message("7.876923", "nan"), "pci_link_speed"));
  EXPECT_TRUE(contains(message("nodeset=\"0x00000002\"", "nodeset=\"two\""), "nodeset"));
  EXPECT_TRUE(contains(message("os_index=\"254\"", "os_index=\"1\""), "os_index"));
  EXPECT_TRUE(contains(message("nbobjs=\"4\"", "nbobjs=\"5\""), "<indexes>"));
  EXPECT_TRUE(contains(message("nbobjs=\"4\"", "nbobjs=\"400000\""), "nbobjs"));
  EXPECT_TRUE(contains(message(" 75000 1000000 <", " 75000 <"), "15 entries"));
  EXPECT_TRUE(contains(message(">25000 0 ", ">-25000 0 "), "u64values"));
  EXPECT_TRUE(contains(refusal([] { read("<topology></topology>"); }), "no <object>"));
}

TEST(HwlocXml, DeepNesting_IsRefused) {
  std::string text = "<topology>";
  for (int i = 0; i < 200; ++i) text += "<object type=\"Group\">";
  for (int i = 0; i < 200; ++i) text += "</object>";
  EXPECT_TRUE(contains(refusal([&] { read(text + "</topology>"); }), "deeper than 64"));
}

TEST(HwlocXml, CutOffAnywhere_IsRefused) {
  const std::string text = two_packages();
  for (std::size_t length = 0; length < text.find("</topology>"); length += 7)
    EXPECT_FALSE(refusal([&] { read(text.substr(0, length)); }).empty());
}

// Every third byte of the file changed: a topology or a refusal, nothing else.
TEST(HwlocXml, AnyByteChanged_IsReadOrRefused) {
  const std::string text = two_packages();
  for (std::size_t at = 0; at < text.size(); at += 3) {
    std::string changed = text;
    changed[at] = "0\"<\xff"[at % 4];
    try {
      const Router router(read(changed));
    } catch (const InvalidInput&) {
    }
  }
}

}  // namespace
}  // namespace topomoe::test
