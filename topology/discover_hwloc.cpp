#include <fmt/format.h>
#include <hwloc.h>

#include <algorithm>
#include <fstream>
#include <memory>

#include "topology/discover.hpp"
#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using PciAttributes = hwloc_obj_attr_u::hwloc_pcidev_attr_s;
using Hwloc = std::unique_ptr<hwloc_topology, void (*)(hwloc_topology_t)>;

Hwloc load() {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) throw MissingEnvironment("hwloc: cannot be started on this machine");
  Hwloc topology(raw, hwloc_topology_destroy);
  hwloc_topology_set_io_types_filter(raw, HWLOC_TYPE_FILTER_KEEP_ALL);
  if (hwloc_topology_load(raw) != 0) throw MissingEnvironment("hwloc: cannot read this machine's topology");
  return topology;
}

bool is_gpu(const PciAttributes& pci) {
  const int base = pci.class_id >> 8;
  const bool maker = pci.vendor_id == 0x10de || pci.vendor_id == 0x1002;  // a server's VGA chip is no GPU to us
  return maker && (base == 0x03 || base == 0x12);
}
bool is_nic(const PciAttributes& pci) { return pci.class_id >> 8 == 0x02; }

std::string bus_id(const PciAttributes& pci) {
  return fmt::format("{:04x}:{:02x}:{:02x}.{:x}", pci.domain, pci.bus, pci.dev, pci.func);
}

double first_number_in(const std::string& file) {
  std::ifstream in(file);
  double value = 0;
  return in >> value ? value : 0;
}

// Gb/s of a network or InfiniBand device, from sysfs; 0 where it does not say.
double port_Gbps(const std::string& os_name) {
  if (const double Mbps = first_number_in("/sys/class/net/" + os_name + "/speed"); Mbps > 0) return Mbps / 1000;
  return first_number_in("/sys/class/infiniband/" + os_name + "/ports/1/rate");
}

class Walk {
 public:
  Walk(hwloc_topology_t topology, std::vector<std::string>& warnings) : topology_(topology), warnings_(warnings) {}

  HostTemplate run() {
    host_.name = "this-host";
    const int numas = std::max(1, hwloc_get_nbobjs_by_type(topology_, HWLOC_OBJ_NUMANODE));
    for (int i = 0; i < numas; ++i) add(DeviceKind::numa, fmt::format("numa{}", i), "", i);
    hwloc_obj_t bridge = nullptr;
    while ((bridge = hwloc_get_next_bridge(topology_, bridge)) != nullptr)
      if (bridge->attr->bridge.upstream_type == HWLOC_OBJ_BRIDGE_HOST) below(bridge, -1, numa_of(bridge));
    for (int a = 0; a < numas; ++a)
      for (int b = a + 1; b < numas; ++b)
        host_.links.push_back(
            {a, b, LinkKind::cpu_interconnect, 40, 0.3, Source::assumed, "hwloc does not measure it", true});
    if (host_.gpus.empty()) {
      warnings_.push_back("no NVIDIA or AMD GPU on this machine's PCI bus");
      host_.nvlink = Presence::absent;
    } else {
      host_.gpu.name = "GPU, figures not known";
      host_.gpu.source_note = "hwloc does not know them; give \"gpu\" in a cluster JSON";
    }
    return std::move(host_);
  }

 private:
  int add(DeviceKind kind, const std::string& name, const std::string& bus, int numa) {
    host_.devices.push_back({kind, name, bus, numa});
    return static_cast<int>(host_.devices.size()) - 1;
  }

  int numa_of(hwloc_obj_t object) const {
    const hwloc_obj_t parent = hwloc_get_non_io_ancestor_obj(topology_, object);
    if (parent == nullptr || parent->nodeset == nullptr) return 0;
    const int first = hwloc_bitmap_first(parent->nodeset);
    for (int i = 0; i < hwloc_get_nbobjs_by_type(topology_, HWLOC_OBJ_NUMANODE); ++i) {
      const hwloc_obj_t numa = hwloc_get_obj_by_type(topology_, HWLOC_OBJ_NUMANODE, static_cast<unsigned>(i));
      if (numa != nullptr && static_cast<int>(numa->os_index) == first) return i;
    }
    return 0;
  }

  static bool leads_to_device(hwloc_obj_t object) {
    for (hwloc_obj_t child = object->io_first_child; child != nullptr; child = child->next_sibling) {
      if (child->type == HWLOC_OBJ_PCI_DEVICE && (is_gpu(child->attr->pcidev) || is_nic(child->attr->pcidev)))
        return true;
      if (child->type == HWLOC_OBJ_BRIDGE && leads_to_device(child)) return true;
    }
    return false;
  }

  // parent: the device above, -1: the CPU.
  void below(hwloc_obj_t object, int parent, int numa) {
    const int above = parent >= 0 ? parent : numa;
    for (hwloc_obj_t child = object->io_first_child; child != nullptr; child = child->next_sibling) {
      if (child->type == HWLOC_OBJ_BRIDGE && leads_to_device(child)) {
        // A root port is part of the CPU; only bridges below it are switches.
        const bool root_port = object->attr->bridge.upstream_type == HWLOC_OBJ_BRIDGE_HOST;
        int next = parent;
        if (!root_port) {
          const auto& pci = child->attr->bridge.upstream.pci;
          next = add(DeviceKind::pci_switch, fmt::format("pci_switch{}", switches_++), bus_id(pci), numa);
          join(next, above, pci.linkspeed);
        }
        below(child, next, numa);
      } else if (child->type == HWLOC_OBJ_PCI_DEVICE) {
        const auto& pci = child->attr->pcidev;
        if (is_gpu(pci)) {
          const int gpu = add(DeviceKind::gpu, fmt::format("gpu{}", host_.gpus.size()), bus_id(pci), numa);
          host_.gpus.push_back(gpu);
          join(gpu, above, pci.linkspeed);
        } else if (is_nic(pci)) {
          add_nic(child, above, numa);
        }
      }
    }
  }

  void add_nic(hwloc_obj_t object, int above, int numa) {
    const auto& pci = object->attr->pcidev;
    const int nic = add(DeviceKind::nic, fmt::format("nic{}", nics_++), bus_id(pci), numa);
    const double pcie_GBps = join(nic, above, pci.linkspeed);
    std::string name;
    double Gbps = 0;
    for (hwloc_obj_t os = object->io_first_child; os != nullptr; os = os->next_sibling) {
      if (os->type != HWLOC_OBJ_OS_DEVICE || os->name == nullptr) continue;
      const double own = port_Gbps(os->name);
      if (own > Gbps || name.empty()) name = os->name;
      Gbps = std::max(Gbps, own);
    }
    Rate port{Gbps / 8, 1, Source::datasheet, fmt::format("port speed {} Gb/s in sysfs", Gbps)};
    if (!(Gbps > 0)) port = {pcie_GBps, 1, Source::unknown, "no port speed in sysfs; the PCIe rate taken"};
    host_.nics.push_back({nic, static_cast<int>(host_.nics.size()), name, port});
  }

  // hwloc gives GB/s, and 0 where the kernel does not say. Returns the rate used.
  double join(int device, int above, float linkspeed) {
    Rate rate{static_cast<double>(linkspeed), 0.5, Source::datasheet, "PCIe link speed as hwloc reads it"};
    if (!(linkspeed > 0)) rate = {16, 0.5, Source::assumed, "PCIe Gen3 x16; hwloc reads no link speed"};
    host_.links.push_back(
        {device, above, LinkKind::pcie, rate.GBps_per_direction, rate.latency_us, rate.source, rate.source_note, true});
    return rate.GBps_per_direction;
  }

  hwloc_topology_t topology_;
  std::vector<std::string>& warnings_;
  HostTemplate host_;
  int switches_ = 0, nics_ = 0;
};

}  // namespace

HostTemplate discover_with_hwloc(std::vector<std::string>& warnings) {
  const Hwloc topology = load();
  return Walk(topology.get(), warnings).run();
}

Topology discover_live() {
  std::vector<std::string> warnings;
  if (std::optional<Topology> found = discover_with_nccl(warnings)) {
    for (const std::string& line : warnings) add_warning(*found, line);
    return std::move(*found);
  }
  Topology topology;
  topology.name = "this-host";
  topology.source = "hwloc on this machine";
  topology.templates.push_back(discover_with_hwloc(warnings));
  topology.groups.push_back({0, 1});
  for (const std::string& line : warnings) add_warning(topology, line);
  require_valid(topology, "this machine");
  for (const std::string& line : warnings_from_sources(topology)) add_warning(topology, line);
  return topology;
}

}  // namespace topomoe
