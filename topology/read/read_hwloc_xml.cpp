// hwloc's XML -> a host: NUMA nodes, PCIe switches, GPUs, NICs, and NVLink where hwloc was built to ask for it.
//
// Below a root port, bridges come in twos: a switch's end towards the CPU, then its ends towards devices. As in NCCL,
// the pair is one switch. hwloc knows neither port speeds nor what joins CPUs.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "topology/known_rates.hpp"
#include "topology/read/hwloc_host.hpp"
#include "topology/read/hwloc_xml.hpp"
#include "topology/read/readers.hpp"
#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr int kNvidia = 0x10de, kAmd = 0x1002, kIntel = 0x8086;

// A server's VGA chip is no GPU to us: ES1000, Rage XL and RV100, by PCI device id, from memory.
bool is_server_vga(const HwlocPci& pci) {
  constexpr std::array kChips{0x515e, 0x4752, 0x5159};
  return pci.vendor == kAmd && std::find(kChips.begin(), kChips.end(), pci.device) != kChips.end();
}
bool is_gpu(const HwlocPci& pci) {
  const int base = pci.klass >> 8;
  if (pci.bridge || is_server_vga(pci)) return false;
  if (pci.vendor == kNvidia || pci.vendor == kAmd) return base == 0x03 || base == 0x12;
  return pci.vendor == kIntel && (pci.klass == 0x0380 || base == 0x12);  // graphics inside a CPU are 0x0300
}
bool is_nic(const HwlocPci& pci) { return !pci.bridge && pci.klass >> 8 == 0x02; }

// MB/s that hwloc counts for one NVLink, by PCI device id: GP100, then GV100, GA100 and GH100, then GB100; 0: not
// known.
double one_nvlink_MBps(const HwlocPci& gpu) {
  const int family = gpu.device & 0xfff0;
  if (gpu.vendor != kNvidia) return 0;
  if (family == 0x15f0) return 20'000;
  if (family == 0x1db0 || (gpu.device >= 0x20b0 && gpu.device < 0x2100) || gpu.device >> 8 == 0x23) return 25'000;
  return gpu.device >> 8 == 0x29 ? 50'000 : 0;
}

class HostReader {
 public:
  HostReader(const HwlocXml& xml, const PortsOf& ports_of, std::vector<std::string>& warnings)
      : xml_(xml), ports_of_(ports_of), warnings_(warnings) {}

  HostTemplate run(const std::string& name) {
    host_.name = name;
    add_numas();
    add_pci();
    add_nvlink();
    add_cpu_links();
    describe_gpus();
    return std::move(host_);
  }

 private:
  static std::size_t at(int index) { return static_cast<std::size_t>(index); }

  int add(DeviceKind kind, const std::string& name, const std::string& bus_id, int numa) {
    host_.devices.push_back({kind, name, bus_id, numa, {}});
    return static_cast<int>(host_.devices.size()) - 1;
  }
  void join(int src, int dst, LinkKind kind, const Rate& rate, bool both_ways = true, int count = 0) {
    host_.links.push_back(
        {src, dst, kind, rate.GBps_per_direction, rate.latency_us, rate.source, rate.source_note, both_ways, count});
  }
  void warn(const std::string& line) { warnings_.push_back(host_.name + ": " + line); }

  void add_numas() {
    int left_out = 0;
    for (const HwlocNuma& numa : xml_.numas) {
      if (!numa.has_cpus) {
        ++left_out;
        continue;
      }
      const int index = static_cast<int>(numa_of_.size());
      numa_of_.emplace(numa.os_index, index);
      const int device = add(DeviceKind::numa, fmt::format("numa{}", index), "", index);
      host_.devices[at(device)].attributes = {{"numaid", std::to_string(numa.os_index)}};
    }
    if (left_out > 0) warn(fmt::format("{} NUMA nodes have no CPU (memory of devices); left out", left_out));
    if (host_.devices.empty()) add(DeviceKind::numa, "numa0", "", 0);  // hwloc 1 on a machine with one
  }

  int numa_of(const HwlocPci& pci) {
    const auto found = numa_of_.find(pci.node);
    if (numa_of_.size() > 1 && (pci.near_several || found == numa_of_.end())) nowhere_.push_back(pci.bus_id);
    return found == numa_of_.end() ? 0 : found->second;
  }

  void add_pci() {
    std::vector<bool> leads(xml_.pci.size());
    for (std::size_t i = xml_.pci.size(); i-- > 0;) {
      const HwlocPci& own = xml_.pci[i];
      if (is_gpu(own) || is_nic(own)) leads[i] = true;
      if (leads[i] && own.parent >= 0) leads[at(own.parent)] = true;
    }
    std::vector<int> level(xml_.pci.size());  // bridges from the root port to this one
    above_.assign(xml_.pci.size(), -1);
    device_.assign(xml_.pci.size(), -1);
    for (std::size_t i = 0; i < xml_.pci.size(); ++i) {
      const HwlocPci& own = xml_.pci[i];
      if (own.parent >= 0) {
        above_[i] = above_[at(own.parent)];
        level[i] = level[at(own.parent)];
      }
      if (own.bridge && !own.host_bridge && ++level[i] % 2 == 0 && leads[i]) {
        device_[i] = join_pci(i, DeviceKind::pci_switch, fmt::format("pci_switch{}", switches_++));
        above_[i] = device_[i];
      } else if (is_gpu(own)) {
        device_[i] = join_pci(i, DeviceKind::gpu, fmt::format("gpu{}", host_.gpus.size()));
        host_.gpus.push_back(device_[i]);
        if (!own.gpu_model.empty()) host_.devices[at(device_[i])].attributes.push_back({"gpu.model", own.gpu_model});
      } else if (is_nic(own)) {
        device_[i] = join_pci(i, DeviceKind::nic, fmt::format("nic{}", nics_++));
        add_ports(own, device_[i]);
      }
    }
    if (nameless_ > 0)
      warn(fmt::format("{} network functions have no device of the system (virtual functions, or no driver)",
                       nameless_));
    if (!shared_.empty())
      warn(fmt::format(
          "{} NICs (first: {}) are virtual functions, which share the ports of a physical one here; left out",
          shared_.size(), shared_.front()));
    if (rdma_ports_ > 0 && !plain_ports_.empty())
      warn(fmt::format(
          "{} ports (first: {}) have no RDMA device, {} have: NCCL would use these alone, here all are rails",
          plain_ports_.size(), plain_ports_.front(), rdma_ports_));
    if (!nowhere_.empty())
      warn(fmt::format("{} PCI devices (first: {}) are near no one NUMA node; the first is taken", nowhere_.size(),
                       nowhere_.front()));
  }

  // hwloc gives GB/s, and 0 where it could not see.
  int join_pci(std::size_t index, DeviceKind kind, const std::string& name) {
    const HwlocPci& own = xml_.pci[index];
    const int numa = numa_of(own);
    const int device = add(kind, name, own.bus_id, numa);
    host_.devices[at(device)].attributes = {{"class", fmt::format("0x{:04x}", own.klass)},
                                            {"vendor", fmt::format("0x{:04x}", own.vendor)},
                                            {"device", fmt::format("0x{:04x}", own.device)}};
    Rate rate{own.GBps, 0.5, Source::datasheet, "PCIe link speed as hwloc reads it"};
    if (!(own.GBps > 0)) rate = {16, 0.5, Source::assumed, "PCIe Gen3 x16; hwloc reads no link speed"};
    join(device, above_[index] >= 0 ? above_[index] : numa, LinkKind::pcie, rate);
    return device;
  }

  void add_ports(const HwlocPci& own, int device) {
    NicPorts found;
    if (ports_of_) found = ports_of_(own.bus_id, own.rdma_names, own.net_names);
    std::vector<Attribute>& attributes = host_.devices[at(device)].attributes;
    if (found.is_virtual_function) {
      attributes.push_back({"virtual_function", "yes"});
      shared_.push_back(own.bus_id);
      return;
    }
    // NCCL goes by the RDMA device where there is one.
    if (found.ports.empty())
      found.ports = {{!own.rdma_names.empty()  ? own.rdma_names.front()
                      : !own.net_names.empty() ? own.net_names.front()
                                               : "",
                      0,
                      false,
                      {}}};
    const double slot_GBps = host_.links.back().GBps_per_direction;
    std::string down;
    for (const NicPort& port : found.ports) {
      if (port.is_down) {
        down += (down.empty() ? "" : " ") + port.name;
        warn(fmt::format("port {} ({}) is down: no traffic is planned over it", port.name, own.bus_id));
        continue;
      }
      Rate rate{port.Gbps / 8, 1, Source::datasheet, fmt::format("port speed {} Gb/s in sysfs", port.Gbps)};
      if (!(port.Gbps > 0))
        rate = {slot_GBps, 1, Source::unknown,
                ports_of_ && !port.name.empty()
                    ? fmt::format("sysfs has no speed of {} (virtual NICs have none); the NIC's PCIe rate taken, which "
                                  "it cannot exceed",
                                  port.name)
                    : "no port speed known to hwloc; the NIC's PCIe rate taken, which it cannot exceed"};
      if (port.name.empty())
        ++nameless_;
      else if (!own.rdma_names.empty())
        ++rdma_ports_;
      else
        plain_ports_.push_back(port.name);
      host_.nics.push_back({device, static_cast<int>(host_.nics.size()), port.name, rate, port.attributes});
    }
    if (!down.empty()) attributes.push_back({"down", down});
  }

  // The device that an object of the matrix is; all NVSwitches are one plane. -1: none.
  struct End {
    int device = -1;
    bool plane = false;
    const HwlocPci* gpu = nullptr;
  };
  std::map<std::string, End> nvlink_ends() const {
    std::map<std::string, End> ends;
    for (std::size_t i = 0; i < xml_.pci.size(); ++i) {
      const HwlocPci& own = xml_.pci[i];
      if (own.nvswitch) ends[own.id] = {-1, true, nullptr};
      if (!is_gpu(own)) continue;
      ends[own.id] = {device_[i], false, &own};
      for (const std::string& id : own.os_ids) ends[id] = {device_[i], false, &own};
    }
    for (const HwlocPackage& package : xml_.packages)
      if (const auto numa = numa_of_.find(package.node); numa != numa_of_.end())
        ends[package.id] = {numa->second, false, nullptr};
    ends.erase("");
    return ends;
  }

  void add_nvlink() {
    for (const HwlocPci& own : xml_.pci)
      if (own.nvswitch) plane();
    const std::map<std::string, End> ends = nvlink_ends();
    for (const HwlocNvlink& matrix : xml_.nvlink) {
      const std::size_t size = matrix.objects.size();
      std::vector<End> objects;
      for (std::size_t i = 0; i < size; ++i) {
        const auto found = ends.find(matrix.objects[i]);
        if (found == ends.end())
          warn("NVLinkBandwidth names " + matrix.objects[i].substr(0, 40) + ", which is no GPU here; left out");
        objects.push_back(found == ends.end() ? End{} : found->second);
      }
      for (std::size_t i = 0; i < size; ++i) {
        if (objects[i].gpu == nullptr) continue;
        double up_MBps = 0, down_MBps = 0;
        for (std::size_t j = 0; j < size; ++j) {
          const double out = matrix.MBps[i * size + j], back = matrix.MBps[j * size + i];
          if (objects[j].plane) {
            up_MBps += out;
            down_MBps += back;
          } else if (objects[j].device >= 0 && objects[j].device != objects[i].device &&
                     (objects[j].gpu == nullptr || i < j)) {
            join_nvlink(objects[i], objects[j].device, out, back);
          }
        }
        if (up_MBps > 0 || down_MBps > 0) join_nvlink(objects[i], plane(), up_MBps, down_MBps);
      }
    }
    if (host_.gpus.empty() && !xml_.pci.empty())
      host_.nvlink = Presence::absent;
    else if (any_nvlink_)
      host_.nvlink = Presence::present;
  }

  int plane() {
    if (plane_ < 0) plane_ = add(DeviceKind::nvswitch, "nvswitch", "", -1);
    return plane_;
  }

  void join_nvlink(const End& gpu, int other, double out_MBps, double back_MBps) {
    const auto way = [&](int src, int dst, double MBps, bool both) {
      if (!(MBps > 0)) return;
      any_nvlink_ = true;
      const double each = one_nvlink_MBps(*gpu.gpu);
      const double links = each > 0 ? MBps / each : 0;
      const int count = links == std::floor(links) && links < 1000 ? static_cast<int>(links) : 0;
      join(src, dst, LinkKind::nvlink,
           {MBps / 1000, 0.3, Source::datasheet, fmt::format("NVLinkBandwidth of hwloc, {} MB/s", MBps)}, both, count);
    };
    way(gpu.device, other, out_MBps, out_MBps == back_MBps);
    if (out_MBps == back_MBps) return;
    way(other, gpu.device, back_MBps, false);
    warn(fmt::format("NVLink of {} to {}: {} MB/s out, but {} back: one direction of a link cannot be faster",
                     host_.devices[at(gpu.device)].bus_id, host_.devices[at(other)].name, out_MBps, back_MBps));
  }

  void add_cpu_links() {
    XmlCpu cpu;
    cpu.vendor = xml_.cpu_vendor;
    cpu.model = xml_.cpu_model;
    cpu.arch = xml_.architecture.starts_with("ppc64")                                               ? "ppc64"
               : xml_.architecture.starts_with("aarch64") || xml_.architecture.starts_with("arm64") ? "arm64"
                                                                                                    : "x86_64";
    const int numas = std::max(1, static_cast<int>(numa_of_.size()));
    for (int a = 0; a < numas; ++a)
      for (int b = a + 1; b < numas; ++b) join(a, b, LinkKind::cpu_interconnect, cpu_interconnect_rate(cpu));
  }

  void describe_gpus() {
    if (host_.gpus.empty()) {
      warn(xml_.pci.empty()
               ? "no PCI device in the file (written without I/O?): GPUs and NICs are not known; lstopo --whole-io"
               : "no GPU on the PCI bus");
      return;
    }
    const HwlocPci* first = nullptr;
    for (const HwlocPci& own : xml_.pci) {
      if (!is_gpu(own)) continue;
      if (first == nullptr) first = &own;
      if (own.vendor == first->vendor && own.device == first->device) continue;
      warn(
          fmt::format("GPUs differ ({} and {}); the figures of the first are used for all", first->bus_id, own.bus_id));
      break;
    }
    XmlPci board;
    board.vendor = fmt::format("0x{:04x}", first->vendor);
    board.device = fmt::format("0x{:04x}", first->device);
    host_.gpu = known_gpu(board);
    if (!first->gpu_model.empty() && host_.gpu.source == Source::unknown) host_.gpu.name = first->gpu_model;
  }

  const HwlocXml& xml_;
  const PortsOf& ports_of_;
  std::vector<std::string>& warnings_;
  HostTemplate host_;
  std::map<int, int> numa_of_;                 // OS index -> device
  std::vector<int> above_, device_;            // of PCI entries; -1: the CPU, none
  std::vector<std::string> nowhere_, shared_;  // bus ids
  std::vector<std::string> plain_ports_;       // names
  int rdma_ports_ = 0;
  int switches_ = 0, nics_ = 0, nameless_ = 0, plane_ = -1;
  bool any_nvlink_ = false;
};

}  // namespace

HostTemplate read_hwloc_host(std::string_view xml, const std::string& where, const std::string& host_name,
                             const PortsOf& ports_of, std::vector<std::string>& warnings) {
  const HwlocXml parsed = parse_hwloc_xml(xml, where);
  return HostReader(parsed, ports_of, warnings).run(host_name);
}

void warn_of_idle_nvswitch(const HostTemplate& host, std::vector<std::string>& warnings) {
  const auto is_plane = [&](int index) {
    return host.devices[static_cast<std::size_t>(index)].kind == DeviceKind::nvswitch;
  };
  bool any = false, joined = false;
  for (int i = 0; i < static_cast<int>(host.devices.size()); ++i) any = any || is_plane(i);
  for (const Link& link : host.links) joined = joined || is_plane(link.src) || is_plane(link.dst);
  if (any && !joined) warnings.push_back(host.name + ": NVSwitches are on the PCI bus, but no links to them are known");
}

Topology read_hwloc_xml(std::string_view text, const std::string& where) {
  Topology topology;
  topology.name = stem_of_file(where);
  topology.source = where;
  std::vector<std::string> warnings;
  topology.templates.push_back(read_hwloc_host(text, where, topology.name, {}, warnings));
  warn_of_idle_nvswitch(topology.templates[0], warnings);
  topology.groups.push_back({0, 1});
  for (const std::string& line : warnings) add_warning(topology, line);
  require_valid(topology, where);
  for (const std::string& line : warnings_from_sources(topology)) add_warning(topology, line);
  return topology;
}

}  // namespace topomoe
