// Twenty ways to break a clean host, each found; clean ones, and those of others, without anything severe.
#include "topomoe/doctor.hpp"

#include <functional>

#include "support.hpp"
#include "topology/show/diff.hpp"

namespace topomoe::test {
namespace {

// A host as NCCL would write it: two CPUs, under each four PCIe switches with a GPU and a NIC.
struct Slot {
  int cpu = 0;
  std::string speed = "32.0 GT/s PCIe";
  int width = 16, switch_width = 16;
  int nvlinks = 18;
  std::string peer_links;  // <nvlink> of a mesh instead
  bool gpu = true, nic = true;
  int nic_cpu = -1;  // directly under this CPU instead
  std::string nic_speed = "32.0 GT/s PCIe";
  int nic_width = 16;
  int port_Mbps = 400000;
  std::string name;
};
struct Host {
  std::string name = "node";
  std::vector<Slot> slots = std::vector<Slot>(8);
  bool nvswitch = true;

  Host() {
    for (std::size_t i = 0; i < slots.size(); ++i) {
      slots[i].cpu = static_cast<int>(i) / 4;
      slots[i].name = "mlx5_" + std::to_string(i);
    }
  }
  std::string nic(std::size_t i) const {
    const Slot& s = slots[i];
    return fmt_pci(0x40 + i, "0x020000", "0x15b3", "0x1021", s.nic_speed, s.nic_width) + "<nic><net name=\"" + s.name +
           "\" dev=\"" + std::to_string(i) + "\" speed=\"" + std::to_string(s.port_Mbps) +
           "\" port=\"1\"/></nic></pci>";
  }
  std::string xml() const {
    std::string out = "<system version=\"1\">";
    for (int cpu = 0; cpu < 2; ++cpu) {
      out += "<cpu numaid=\"" + std::to_string(cpu) +
             "\" affinity=\"ff\" arch=\"x86_64\" vendor=\"GenuineIntel\" familyid=\"6\" modelid=\"143\">";
      for (std::size_t i = 0; i < slots.size(); ++i) {
        const Slot& s = slots[i];
        if (s.nic && s.nic_cpu == cpu) out += nic(i);
        if (s.cpu != cpu) continue;
        out += fmt_pci(0x10 + i, "0x060400", "0x1000", "0xc030", "32.0 GT/s PCIe", s.switch_width);
        if (s.gpu) {
          out += fmt_pci(0x20 + i, "0x030200", "0x10de", "0x2330", s.speed, s.width) + "<gpu dev=\"" +
                 std::to_string(i) + "\" sm=\"90\" rank=\"0\" gdr=\"1\">" + s.peer_links;
          if (nvswitch && s.nvlinks > 0)
            out += "<nvlink target=\"0000:f0:00.0\" count=\"" + std::to_string(s.nvlinks) + "\" tclass=\"0x068000\"/>";
          out += "</gpu></pci>";
        }
        if (s.nic && s.nic_cpu < 0) out += nic(i);
        out += "</pci>";
      }
      out += "</cpu>";
    }
    return out + "</system>";
  }
  Topology topology() const { return read_nccl_xml(xml(), name + ".xml"); }

 private:
  static std::string fmt_pci(std::size_t bus, const char* klass, const char* vendor, const char* device,
                             const std::string& speed, int width) {
    char id[16];
    std::snprintf(id, sizeof id, "0000:%02zx:00.0", bus);
    return std::string("<pci busid=\"") + id + "\" class=\"" + klass + "\" vendor=\"" + vendor + "\" device=\"" +
           device + "\" link_speed=\"" + speed + "\" link_width=\"" + std::to_string(width) + "\">";
  }
};

// Four GPUs, each joined to the other three by four links.
Host mesh() {
  Host out;
  out.nvswitch = false;
  out.slots.resize(4);
  for (std::size_t i = 0; i < 4; ++i)
    for (std::size_t j = 0; j < 4; ++j)
      if (i != j)
        out.slots[i].peer_links +=
            "<nvlink target=\"0000:2" + std::to_string(j) + ":00.0\" count=\"4\" tclass=\"0x030200\"/>";
  return out;
}
// "0000:20+j" is written in hex by Host: bus 0x20 + j.

std::vector<Finding> severe(std::vector<Topology> hosts) {
  std::vector<Finding> out = diagnose(hosts);
  std::erase_if(out, [](const Finding& own) { return own.severity != Severity::severe; });
  return out;
}

struct Mutation {
  const char* name;
  std::function<void(Host&)> apply;
  const char* element;  // that the finding must name
  bool beside_a_sibling = false;
  bool of_mesh = false;
};

void replace(std::string& text, const std::string& what, const std::string& with) {
  const std::size_t at = text.find(what);
  ASSERT_NE(at, std::string::npos);
  text.replace(at, what.size(), with);
}

const Mutation kMutations[] = {
    {"one NVLink gone", [](Host& h) { h.slots[3].nvlinks = 17; }, "gpu3 (0000:23:00.0)"},
    {"half the NVLinks gone", [](Host& h) { h.slots[0].nvlinks = 9; }, "gpu0"},
    {"no NVLink", [](Host& h) { h.slots[7].nvlinks = 0; }, "gpu7"},
    {"two GPUs without NVLink", [](Host& h) { h.slots[1].nvlinks = h.slots[6].nvlinks = 0; }, "gpu1"},
    {"GPU at x8", [](Host& h) { h.slots[2].width = 8; }, "gpu2"},
    {"GPU at x1", [](Host& h) { h.slots[5].width = 1; }, "gpu5"},
    {"GPU at Gen4", [](Host& h) { h.slots[4].speed = "16.0 GT/s PCIe"; }, "gpu4"},
    {"GPU at Gen1", [](Host& h) { h.slots[4].speed = "2.5 GT/s PCIe"; }, "gpu4"},
    {"switch at x8", [](Host& h) { h.slots[6].switch_width = 8; }, "pci_switch6"},
    {"NIC at x8", [](Host& h) { h.slots[1].nic_width = 8; }, "nic1"},
    {"NIC at Gen3", [](Host& h) { h.slots[3].nic_speed = "8.0 GT/s PCIe"; }, "nic3"},
    {"port at half its rate", [](Host& h) { h.slots[2].port_Mbps = 200000; }, "mlx5_2"},
    {"port at 10 Gb/s", [](Host& h) { h.slots[0].port_Mbps = 10000; }, "mlx5_0"},
    {"NIC under the other CPU", [](Host& h) { h.slots[0].nic_cpu = 1; }, "gpu0"},
    {"NIC under its CPU, not its switch", [](Host& h) { h.slots[5].nic_cpu = 1; }, "gpu5"},
    {"NIC gone", [](Host& h) { h.slots[4].nic = false; }, "NICs"},
    {"a CPU's GPUs gone",
     [](Host& h) {
       for (int i = 4; i < 8; ++i) h.slots[static_cast<std::size_t>(i)].gpu = false;
     },
     "broken.gpu4", true},
    {"one GPU gone", [](Host& h) { h.slots[2].gpu = false; }, "gpu2", true},
    {"one pair of a mesh without links",
     [](Host& h) {
       replace(h.slots[1].peer_links, "<nvlink target=\"0000:20:00.0\" count=\"4\" tclass=\"0x030200\"/>", "");
     },
     "gpu1", false, true},
    {"a pair of a mesh with fewer links one way",
     [](Host& h) { replace(h.slots[2].peer_links, "count=\"4\"", "count=\"2\""); }, "gpu2", false, true},
};

TEST(Doctor, CleanHosts_HaveNothingSevere) {
  EXPECT_EQ(severe({Host().topology()}), std::vector<Finding>{});
  EXPECT_EQ(severe({mesh().topology()}), std::vector<Finding>{});
  EXPECT_EQ(severe({Host().topology(), Host().topology(), Host().topology()}), std::vector<Finding>{});
}

TEST(Doctor, TwentyMutations_AreFound) {
  static_assert(std::size(kMutations) == 20);
  for (const Mutation& mutation : kMutations) {
    SCOPED_TRACE(mutation.name);
    Host broken = mutation.of_mesh ? mesh() : Host();
    broken.name = "broken";
    mutation.apply(broken);
    std::vector<Topology> hosts;
    if (mutation.beside_a_sibling) hosts = {Host().topology(), Host().topology()};
    hosts.push_back(broken.topology());
    const std::vector<Finding> found = severe(hosts);
    const bool named = std::any_of(found.begin(), found.end(), [&](const Finding& own) {
      return own.element.find(mutation.element) != std::string::npos;
    });
    EXPECT_TRUE(named) << findings_text(found);
    EXPECT_LE(found.size(), 4U) << findings_text(found);
  }
}

// 8 GPUs of 18 links of 25 GB/s; the one of 9 sends to 7 at 225 GB/s.
TEST(Doctor, Cost_IsTheBoundOfAnAllToAll) {
  Host broken;
  broken.slots[0].nvlinks = 9;
  const std::vector<Finding> found = severe({broken.topology()});
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].cost, "all-to-all inside this host: at most 225 of 450 GB/s a GPU");
}

// H100 SXM (0x2330) is never sold without; a L40S (0x26b9) always is.
TEST(Doctor, BoardsOfNvlinkWithoutAny_AreSevere) {
  Host broken;
  for (Slot& slot : broken.slots) slot.nvlinks = 0;
  Topology own = broken.topology();
  own.templates[0].nvlink = Presence::absent;
  const std::vector<Finding> found = severe({own});
  ASSERT_EQ(found.size(), 1U) << findings_text(found);
  EXPECT_EQ(found[0].seen, "no NVLink between 8 GPUs; H100 SXM 80GB is sold with NVLink only");
  EXPECT_NE(found[0].check.find("fabric manager"), std::string::npos);
  for (const int gpu : own.templates[0].gpus)
    for (Attribute& attribute : own.templates[0].devices[static_cast<std::size_t>(gpu)].attributes)
      if (attribute.name == "device") attribute.value = "0x26b9";
  EXPECT_EQ(severe({own}), std::vector<Finding>{});
}

TEST(Doctor, SlowPort_IsToldOnce) {
  Host broken;
  broken.slots[2].port_Mbps = 200000;
  const std::vector<Finding> alone = severe({broken.topology()});
  ASSERT_EQ(alone.size(), 1U) << findings_text(alone);
  EXPECT_EQ(alone[0].element, "mlx5_2");
}

// Beside siblings each fault is one severe finding, and no warning says it again.
TEST(Doctor, FaultsBesideSiblings_AreToldOnce) {
  const std::function<void(Host&)> faults[] = {
      [](Host& h) { h.slots[3].nvlinks = 17; },
      [](Host& h) { h.slots[2].width = 8; },
      [](Host& h) { h.slots[4].speed = "16.0 GT/s PCIe"; },
      [](Host& h) { h.slots[1].nic_width = 8; },
      [](Host& h) { h.slots[2].port_Mbps = 200000; },
      [](Host& h) { h.slots[6].switch_width = 8; },
  };
  for (const auto& fault : faults) {
    Host broken;
    broken.name = "broken";
    fault(broken);
    const std::vector<Topology> hosts{Host().topology(), Host().topology(), broken.topology()};
    std::vector<Finding> found = diagnose(hosts);
    std::erase_if(found, [](const Finding& own) { return own.severity == Severity::note; });
    ASSERT_EQ(found.size(), 1U) << &fault - faults << "\n" << findings_text(found);
    EXPECT_EQ(found[0].severity, Severity::severe);
  }
}

// All GPUs of a host at x8 are no fault beside each other: a warning each, without the width that it was read out of.
TEST(Doctor, RatesAndWhatTheyWereReadFrom_AreOneWarning) {
  Host narrow;
  narrow.name = "narrow";
  for (Slot& slot : narrow.slots) slot.width = 8;
  std::vector<Finding> found = diagnose(std::vector<Topology>{Host().topology(), Host().topology(), narrow.topology()});
  std::erase_if(found, [](const Finding& own) { return own.severity == Severity::note; });
  EXPECT_EQ(found.size(), 8U) << findings_text(found);
}

TEST(Doctor, AnotherKindOfHost_IsOneFinding) {
  Host other = mesh();
  other.name = "other";
  for (std::size_t i = 0; i < 4; ++i) other.slots[i].name = "eth" + std::to_string(i);
  Topology own = other.topology();
  for (HostDevice& device : own.templates[0].devices)
    if (!device.bus_id.empty()) device.bus_id[5] = 'e';
  const std::vector<Topology> hosts{Host().topology(), Host().topology(), own};
  std::vector<Finding> found = diagnose(hosts);
  std::erase_if(found, [](const Finding& one) { return one.severity == Severity::note; });
  ASSERT_EQ(found.size(), 1U) << findings_text(found);
  EXPECT_EQ(found[0].element, "other");
  EXPECT_EQ(found[0].seen, "another kind of host: 4 x H100 SXM 80GB, 4 NICs");
}

// As many GPUs of one model, on buses of their own below CPUs of another.
TEST(Doctor, HostWithOtherCpus_IsAnotherKind) {
  Topology other = Host().topology();
  other.name = "other";
  for (HostDevice& device : other.templates[0].devices) {
    if (!device.bus_id.empty()) device.bus_id[0] = '1';
    for (Attribute& attribute : device.attributes)
      if (attribute.name == "modelid") attribute.value = "85";
  }
  const std::vector<Topology> hosts{Host().topology(), Host().topology(), other};
  std::vector<Finding> found = diagnose(hosts);
  std::erase_if(found, [](const Finding& one) { return one.severity == Severity::note; });
  ASSERT_EQ(found.size(), 1U) << findings_text(found);
  EXPECT_TRUE(found[0].seen.starts_with("another kind of host"));
}

TEST(Doctor, OthersFiles_HaveSevereFindingsOnlyWhereEdited) {
  const std::string root = data_path("topologies/nccl-xml");
  if (!std::filesystem::exists(root)) GTEST_SKIP() << root << " is not there; set TOPOMOE_DATA_DIR";
  int files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (entry.path().extension() != ".xml") continue;
    ++files;
    const std::vector<Finding> found = severe({read_topology_file(entry.path().string())});
    EXPECT_EQ(!found.empty(), entry.path().filename() == "timez-topo_fail.xml") << entry.path() << "\n"
                                                                                << findings_text(found);
  }
  EXPECT_GT(files, 0);
}

TEST(Diff, ACpuAndWhatHangsOnIt_IsOneLine) {
  std::string half = Host().xml();
  half.erase(half.find("<cpu numaid=\"1\""));
  const Topology before = Host().topology(), after = read_nccl_xml(half + "</system>", "node.xml");
  std::vector<Difference> found = differences(before.templates[0], after.templates[0]);
  std::erase_if(found, [](const Difference& own) { return own.element.starts_with("net "); });
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].element, "numa1 and what hangs on it: 4 gpu, 4 nic, 4 pci_switch");
  EXPECT_EQ(found[0].after, "missing");
}

// One change of each kind, one line or more.
TEST(Diff, EachFigure_IsCompared) {
  const HostTemplate host = Host().topology().templates[0];
  EXPECT_TRUE(differences(host, host).empty());
  const std::function<void(HostTemplate&)> changes[] = {
      [](HostTemplate& h) { h.gpu.name = "H200"; },
      [](HostTemplate& h) { h.gpu.memory_GiB = 141; },
      [](HostTemplate& h) { h.gpu.hbm_GBps = 4800; },
      [](HostTemplate& h) { h.nvlink = Presence::unknown; },
      [](HostTemplate& h) { h.links[0].latency_us = 50; },
      [](HostTemplate& h) { h.links[0].GBps_per_direction /= 2; },
      [](HostTemplate& h) { h.links[0].both_ways = false; },
      [](HostTemplate& h) { h.nics[3].port.latency_us = 99; },
      [](HostTemplate& h) { h.nics[3].port.GBps_per_direction = 25; },
      [](HostTemplate& h) { h.nics[3].rail = 7; },
      [](HostTemplate& h) {
        h.devices[5].attributes.push_back({"slot", "3"});
      },
      [](HostTemplate& h) { h.devices[5].numa = 1 - h.devices[5].numa; },
  };
  for (const auto& change : changes) {
    HostTemplate other = host;
    change(other);
    EXPECT_FALSE(differences(host, other).empty()) << &change - changes;
  }
}

}  // namespace
}  // namespace topomoe::test
