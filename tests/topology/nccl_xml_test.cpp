#include <algorithm>

#include "support.hpp"

namespace topomoe::test {
namespace {

Topology from_text(const std::string& cpu_content) {
  return read_nccl_xml("<system version=\"1\"><cpu numaid=\"0\">" + cpu_content + "</cpu></system>", "t.xml");
}

TEST(NcclXml, Template_WithoutGpuElements_HasUnknownNvlink) {
  const Topology topology = read_topology_file(fixture("nccl-template-without-gpus.xml"));
  const HostTemplate& host = topology.templates[0];
  EXPECT_EQ(topology.gpu_count(), 2);
  EXPECT_EQ(host.nvlink, Presence::unknown);
  EXPECT_TRUE(warns(topology, "not \"no NVLink\""));
  EXPECT_TRUE(warns(topology, "0003:00:00.0"));  // no class: could be anything
  ASSERT_EQ(host.nics.size(), 2U);
  EXPECT_EQ(host.nics[0].port.source, Source::unknown);
  EXPECT_EQ(host.nics[0].port.GBps_per_direction, 32);  // the PCIe rate: the NIC cannot be faster
  const Router router(topology);
  EXPECT_EQ(router.route(0, 1).path_class, PathClass::PHB);
  EXPECT_EQ(router.route(0, 1).bottleneck_GBps, 16);  // the switch without a speed is taken as Gen3 x16
  EXPECT_EQ(router.nearest_nic(1), 1);
}

TEST(NcclXml, GpuThatLostItsLinks_IsALoudWarning) {
  const Topology topology = read_topology_file(fixture("nccl-gpu-lost-its-links.xml"));
  EXPECT_TRUE(warns(topology, "GPU 0000:43:00.0 lists no NVLink while others do"));
  EXPECT_TRUE(warns(topology, "gives no link speed and width"));
  EXPECT_TRUE(warns(topology, "gives no port speed, NCCL's fallback of 10,000 Mb/s"));
  EXPECT_EQ(topology.bus_id(0), "0000:43:00.0");  // by dev, not by place in the file
  const Router router(topology);
  EXPECT_EQ(router.route(1, 2).path_class, PathClass::NVL);
  EXPECT_EQ(router.route(1, 2).bottleneck_GBps, 450);  // 18 x 25, raw
  EXPECT_EQ(router.route(0, 1).path_class, PathClass::PHB);
}

TEST(NcclXml, SeveralHosts_AreKeyedByHashAndShareOnePlane) {
  const Topology topology = read_topology_file(fixture("nccl-two-trays-one-domain.xml"));
  EXPECT_EQ(topology.templates.size(), 1U);  // equal trays, bus ids repeat
  EXPECT_EQ(topology.host_count(), 2);
  EXPECT_EQ(topology.hosts_per_domain, 2);
  EXPECT_EQ(topology.gpus_per_node(), 4);
  EXPECT_EQ(topology.templates[0].nics[0].rail, 3);
  const Router router(topology);
  EXPECT_EQ(router.route(0, 3).path_class, PathClass::NVL);
  EXPECT_EQ(router.route(0, 3).bottleneck_GBps, 900);               // 18 x 50
  EXPECT_EQ(router.route_to_nic(0, 0).path_class, PathClass::P2C);  // as short and as wide as PCIe alone, and preferred
}

TEST(NcclXml, JoinedSwitchesAndTwoPorts) {
  const Topology topology = read_topology_file(fixture("nccl-joined-switches-two-ports.xml"));
  const HostTemplate& host = topology.templates[0];
  ASSERT_EQ(host.nics.size(), 2U);
  EXPECT_EQ(host.nics[0].device, host.nics[1].device);
  EXPECT_EQ(host.nics[0].name, "mlx5_0+mlx5_1");
  EXPECT_DOUBLE_EQ(host.nics[0].port.GBps_per_direction, 22.5);
  EXPECT_DOUBLE_EQ(host.nics[0].port.latency_us, 2.5);
  EXPECT_EQ(host.nvlink, Presence::absent);  // <gpu> without <nvlink> says so
  const Router router(topology);
  EXPECT_EQ(router.route(0, 1).path_class, PathClass::PXB);  // over the link between the switches, not over the CPU
  EXPECT_EQ(router.route(0, 1).links.size(), 3U);
  EXPECT_EQ(router.route(0, 1).bottleneck_GBps, 16);  // 8 lanes of Gen4
}

TEST(NcclXml, Rccl_XgmiAndEdgesOfOneDirection) {
  const Topology topology = read_topology_file(fixture("rccl-mesh-one-way-edge.xml"));
  EXPECT_TRUE(warns(topology, "has 1 links to 0000:2b:00.0, but 0 back"));
  EXPECT_TRUE(warns(topology, "2 links to 0000:99:00.0, which is not in the file"));
  const Router router(topology);
  EXPECT_EQ(router.route(0, 1).bottleneck_GBps, 64);
  EXPECT_EQ(router.link(router.route(1, 0).links[0]).klass, "xgmi");
  EXPECT_EQ(router.route(0, 2).path_class, PathClass::NVL);
  EXPECT_EQ(router.route(2, 0).path_class, PathClass::PHB);
}

TEST(NcclXml, RawNvlinkRates_ByGeneration) {
  const auto rate_of = [](const std::string& sm) {
    const Topology topology =
        from_text("<pci busid=\"0000:01:00.0\" class=\"0x030200\"><gpu dev=\"0\" sm=\"" + sm +
                  "\"><nvlink target=\"0000:f0:00.0\" count=\"4\" tclass=\"0x068000\"/></gpu></pci>");
    double GBps = 0;
    for (const Link& link : topology.templates[0].links)
      if (link.kind == LinkKind::nvlink) GBps = link.GBps_per_direction;
    return GBps;
  };
  EXPECT_EQ(rate_of("60"), 4 * 20);
  EXPECT_EQ(rate_of("70"), 4 * 25);
  EXPECT_EQ(rate_of("80"), 4 * 25);
  EXPECT_EQ(rate_of("86"), 4 * 14.0625);
  EXPECT_EQ(rate_of("90"), 4 * 25);
  EXPECT_EQ(rate_of("100"), 4 * 50);
}

TEST(NcclXml, WhatNcclNeverWrites_IsRefusedSayingWhere) {
  const std::string gpu = "<pci busid=\"0000:01:00.0\" class=\"0x030200\"><gpu dev=\"0\" sm=\"90\">";
  EXPECT_TRUE(contains(refusal([] { read_nccl_xml("", "t.xml"); }), "t.xml: not XML"));
  EXPECT_TRUE(contains(refusal([] { read_nccl_xml("<system", "t.xml"); }), "t.xml: not XML at byte"));
  EXPECT_TRUE(contains(refusal([] { read_nccl_xml("<system/>", "t.xml"); }), "no <cpu>"));
  EXPECT_TRUE(contains(refusal([] { read_nccl_xml("<graphs version=\"1\"/>", "t.xml"); }), "NCCL_GRAPH_DUMP_FILE"));
  EXPECT_TRUE(contains(refusal([] { read_nccl_xml("<topology version=\"2.0\"/>", "t.xml"); }), "hwloc"));
  EXPECT_TRUE(contains(refusal([] { read_nccl_xml("<system><gpu/></system>", "t.xml"); }), "<gpu> in it"));
  EXPECT_TRUE(contains(refusal([] { from_text("<pci/>"); }), "<pci> busid"));
  EXPECT_TRUE(contains(refusal([] { from_text("<pci busid=\"a\"><gpu/></pci><pci busid=\"a\"><gpu/></pci>"); }),
                       "appears twice"));
  EXPECT_TRUE(
      warns(from_text("<pci busid=\"a\" class=\"0x0604\"/><pci busid=\"a\" class=\"0x0604\"/>"), "appears twice"));
  EXPECT_TRUE(
      contains(refusal([&] { from_text(gpu + "<nvlink target=\"x\" count=\"-3\"/></gpu></pci>"); }), "<nvlink> count"));
  EXPECT_TRUE(contains(refusal([&] { from_text(gpu + "<nvlink count=\"3\"/></gpu></pci>"); }), "<nvlink> target"));
  EXPECT_TRUE(contains(refusal([&] { from_text(gpu + "<c2c bw=\"fast\"/></gpu></pci>"); }), "<c2c> bw"));
  EXPECT_TRUE(contains(refusal([] { from_text("<nic><net name=\"e\" speed=\"4e99\"/></nic>"); }), "<net> speed"));
  EXPECT_TRUE(contains(refusal([] { from_text("<pci busid=\"a\" link_width=\"1000\"/>"); }), "link_width"));
  EXPECT_TRUE(contains(refusal([] { from_text("<nic><net name=\"e\" speed=\"-400000\"/></nic>"); }), "<net> speed"));
  EXPECT_TRUE(contains(refusal([] { from_text("<nic><net name=\"e\" latency=\"-5\"/></nic>"); }), "<net> latency"));
  EXPECT_TRUE(
      contains(refusal([] { from_text("<pci busid=\"a\" link_speed=\"-32.0 GT/s PCIe\"/>"); }), "<pci> link_speed"));
  EXPECT_TRUE(contains(refusal([&] { from_text(gpu + "<c2c bw=\"-1\"/></gpu></pci>"); }), "<c2c> bw"));
  // A port whose speed NCCL could not read.
  for (const char* speed : {"0", "-1", ""})
    EXPECT_TRUE(warns(from_text("<nic><net name=\"e\" speed=\"" + std::string(speed) + "\"/></nic>"), "port speed"));
  std::string deep;
  for (int i = 0; i < 5000; ++i) deep += "<pci busid=\"" + std::to_string(i) + "\">";
  for (int i = 0; i < 5000; ++i) deep += "</pci>";
  EXPECT_TRUE(contains(refusal([&] { from_text(deep); }), "nested deeper"));
  std::string wide;
  for (int i = 0; i < 5000; ++i) wide += "<pci busid=\"" + std::to_string(i) + "\"/>";
  EXPECT_TRUE(contains(refusal([&] { from_text(wide); }), "more than 4096"));
}

// Of our own files those that NCCL might have written.
std::vector<std::string> nccl_texts() {
  std::vector<std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator(fixture("")))
    if (const std::string text = text_of(entry.path().string()); text.find("</system>") != std::string::npos)
      out.push_back(text);
  EXPECT_GT(out.size(), 3U);
  return out;
}

TEST(NcclXml, AttributesThatAreNoWords_AreLeftOutAloud) {
  const Topology topology = read_nccl_xml(
      R"(<system><cpu numaid="0"><pci busid="0:0" class="0x0200" xml:lang="en" x1="y"/></cpu></system>)", "x");
  EXPECT_TRUE(warns(topology, "attribute xml:lang of <pci>"));
  EXPECT_EQ(attribute(topology.templates[0].devices[1].attributes, "x1"), "y");
  EXPECT_EQ(read_cluster_json(write_cluster_json(topology), "x").templates, topology.templates);
}

TEST(NcclXml, AsManyAttributesAsAreRead_ComeBackFromJson) {
  std::string many;  // of each of the two elements
  for (int i = 0; i < 64; ++i) many += " a" + std::to_string(i) + "=\"1\"";
  const Topology topology =
      read_nccl_xml("<system><cpu numaid=\"0\"><pci busid=\"0:0\"" + many.substr(0, many.rfind(" a")) +
                        " class=\"0x0300\"><gpu" + many + "/></pci></cpu></system>",
                    "x");
  EXPECT_EQ(topology.templates[0].devices[1].attributes.size(), 128U);
  EXPECT_EQ(read_cluster_json(write_cluster_json(topology), "x").templates, topology.templates);
}

TEST(NcclXml, BridgeThatIsThereThreeTimes_IsSaidOnce) {
  std::string text = "<system><cpu>";
  for (int i = 0; i < 3; ++i) text += "<pci busid=\"0:1\" class=\"0x0604\"/>";
  const Topology topology = read_nccl_xml(text + "</cpu></system>", "x");
  EXPECT_EQ(std::count(topology.warnings.begin(), topology.warnings.end(),
                       "<pci> 0:1 appears twice in one host; taken as two"),
            1);
}

// Each two CPUs of a host are joined: thousands of them are millions of links.
TEST(NcclXml, CpusWithoutNumber_AreRefused) {
  std::string text = "<system>";
  for (int i = 0; i < 3000; ++i) text += "<cpu numaid=\"" + std::to_string(i) + "\"/>";
  EXPECT_TRUE(contains(refusal([&] { read_nccl_xml(text + "</system>", "x"); }), "more than 256 in a host"));
}

TEST(NcclXml, SwitchesJoinedWithoutNumber_AreRefused) {
  std::string text = "<system><cpu><pci busid=\"0:0\" class=\"0x0604\">";
  for (int i = 0; i < 3000; ++i) text += "<pcilink busid=\"0:1\"/>";
  EXPECT_TRUE(contains(refusal([&] { read_nccl_xml(text + "</pci></cpu></system>", "x"); }), "at most 256"));
}

TEST(NcclXml, CutOffAnywhere_IsRefusedAndNeverCrashes) {
  for (const std::string& text : nccl_texts()) {
    const std::size_t end = text.find("</system>");
    for (std::size_t length = 0; length < end; length += 7)
      refusal([&] { read_nccl_xml(text.substr(0, length), "cut.xml"); });
  }
}

// Any byte may be wrong: the reader may accept or refuse, but only with an InvalidInput.
TEST(NcclXml, DamagedBytes_NeverCrash) {
  for (const std::string& text : nccl_texts()) {
    for (std::size_t at = 0; at < text.size(); at += 11) {
      std::string damaged = text;
      damaged[at] = "\"<>0-9\xff"[at % 7];
      try {
        Router router(read_nccl_xml(damaged, "damaged.xml"));
      } catch (const InvalidInput& error) {
        EXPECT_FALSE(std::string(error.what()).empty());
      }
    }
  }
}

// Whatever joins its GPUs to a CPU: PCIe either way round, C2C, a switch that stands for all that a CPU passes on.
TEST(WriteNcclXml, EveryShippedCluster_KeepsItsGpusAndNics) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(TOPOMOE_SOURCE_DIR "/configs/clusters")) {
    if (entry.path().extension() != ".json") continue;
    SCOPED_TRACE(entry.path());
    ++files;
    Topology before = read_topology_file(entry.path().string());
    for (HostGroup& group : before.groups) group.count = 1;  // hosts of a template are alike
    before.fabric.reset(), before.hosts_per_domain = 1;
    const Topology after = read_nccl_xml(write_nccl_xml(before), "again.xml");
    ASSERT_EQ(after.host_count(), before.host_count());
    EXPECT_EQ(after.gpu_count(), before.gpu_count());
    for (int host = 0; host < before.host_count(); ++host) {
      const HostTemplate &was = before.host_template(host), &is = after.host_template(host);
      ASSERT_EQ(is.nics.size(), was.nics.size());
      for (std::size_t nic = 0; nic < was.nics.size(); ++nic)
        EXPECT_NEAR(is.nics[nic].port.GBps_per_direction, was.nics[nic].port.GBps_per_direction, 0.01);
    }
  }
  EXPECT_GT(files, 5);
}

// Read back they would be one NVLink domain: 450 GB/s where there are NICs of 50.
TEST(WriteNcclXml, HostsOnANetwork_AreRefused) {
  EXPECT_TRUE(contains(refusal([] { (void)write_nccl_xml(cluster("h100-2x8")); }), "hosts: 2, in NVLink domains of 1"));
}

TEST(WriteNcclXml, ADeviceWithoutAWayToACpu_IsRefusedByName) {
  Topology topology = read_topology_file(source_path("configs/clusters/dgx-h100.json"));
  topology.templates[0].shape.reset();
  std::erase_if(topology.templates[0].links, [](const Link& link) { return link.kind == LinkKind::pcie; });
  try {
    (void)write_nccl_xml(topology);
    FAIL() << "not refused";
  } catch (const InvalidInput& error) {
    EXPECT_NE(error.field.find("gpu0"), std::string::npos) << error.field;
  }
}

}  // namespace
}  // namespace topomoe::test
