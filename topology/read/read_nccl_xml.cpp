// NCCL's topology XML -> host templates. What each trap of these files means is decided here; form is checked before.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <unordered_map>

#include "topology/host_tree.hpp"
#include "topology/known_rates.hpp"
#include "topology/names.hpp"
#include "topology/read/nccl_xml.hpp"
#include "topology/read/readers.hpp"
#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

enum class PciKind { gpu, nic, nvswitch, bridge, unknown };

// By element where there is one, else by PCI class prefix, as NCCL does.
PciKind kind_of(const XmlPci& pci) {
  if (pci.has_gpu) return PciKind::gpu;
  if (pci.has_nic) return PciKind::nic;
  if (pci.has_children || !pci.pci_links.empty()) return PciKind::bridge;
  const std::string& c = pci.pci_class;
  if (c.starts_with("0x03") || c.starts_with("0x12")) return PciKind::gpu;
  if (c.starts_with("0x02")) return PciKind::nic;
  if (c.starts_with("0x0680")) return PciKind::nvswitch;
  if (c.empty()) return PciKind::unknown;
  return PciKind::bridge;
}

class HostReader {
 public:
  HostReader(const XmlHost& xml, std::string name, std::vector<std::string>& warnings)
      : xml_(xml), warnings_(warnings) {
    host_.name = std::move(name);
    for (std::size_t i = 0; i < xml_.pci.size(); ++i) by_bus_id_.emplace(xml_.pci[i].bus_id, static_cast<int>(i));
  }

  HostTemplate run() {
    for (std::size_t i = 0; i < xml_.cpus.size(); ++i)
      device(add(DeviceKind::numa, fmt::format("numa{}", i), "", static_cast<int>(i))).attributes =
          xml_.cpus[i].attributes;
    place_.assign(xml_.pci.size(), -1);
    add_bridges();
    add_gpus();
    add_nics();
    add_pci_links();
    add_gpu_links();
    add_cpu_links();
    return std::move(host_);
  }

 private:
  void warn(const std::string& line) {
    if (said_.insert(line).second) warnings_.push_back(host_.name + ": " + line);
  }
  int add(DeviceKind kind, std::string name, const std::string& bus_id, int numa) {
    host_.devices.push_back({kind, std::move(name), bus_id, numa});
    return static_cast<int>(host_.devices.size()) - 1;
  }
  HostDevice& device(int index) { return host_.devices[static_cast<std::size_t>(index)]; }
  int add_pci(DeviceKind kind, std::string name, int index) {
    const int own = add(kind, std::move(name), pci(index).bus_id, pci(index).cpu);
    device(own).attributes = pci(index).attributes;
    return own;
  }
  void join(int src, int dst, LinkKind kind, const Rate& rate, bool both_ways = true, int count = 0) {
    host_.links.push_back(
        {src, dst, kind, rate.GBps_per_direction, rate.latency_us, rate.source, rate.source_note, both_ways, count});
  }
  const XmlPci& pci(int index) const { return xml_.pci[static_cast<std::size_t>(index)]; }
  int& place(int index) { return place_[static_cast<std::size_t>(index)]; }

  std::vector<int> all_of(PciKind kind) const {
    std::vector<int> found;
    for (std::size_t i = 0; i < xml_.pci.size(); ++i)
      if (kind_of(xml_.pci[i]) == kind) found.push_back(static_cast<int>(i));
    return found;
  }

  void add_bridges() {
    int number = 0;
    for (const int i : all_of(PciKind::bridge))
      place(i) = add_pci(DeviceKind::pci_switch, fmt::format("pci_switch{}", number++), i);
    const std::vector<int> unknown = all_of(PciKind::unknown);
    if (!unknown.empty())
      warn(fmt::format("{} <pci> without a class (first: {}) may be GPUs, NICs or anything; left out", unknown.size(),
                       pci(unknown.front()).bus_id));
  }

  void add_gpus() {
    gpus_ = all_of(PciKind::gpu);
    // By CUDA device number where each GPU has one of its own, else in the order of the file.
    std::set<int> numbers;
    for (const int i : gpus_) numbers.insert(pci(i).gpu_dev);
    if (numbers.size() == gpus_.size() && !numbers.count(-1))
      std::sort(gpus_.begin(), gpus_.end(), [&](int a, int b) { return pci(a).gpu_dev < pci(b).gpu_dev; });
    for (std::size_t i = 0; i < gpus_.size(); ++i) {
      place(gpus_[i]) = add_pci(DeviceKind::gpu, fmt::format("gpu{}", i), gpus_[i]);
      for (const Attribute& own : pci(gpus_[i]).gpu_attributes)
        device(place(gpus_[i])).attributes.push_back({"gpu." + own.name, own.value});
      host_.gpus.push_back(place(gpus_[i]));
    }
    if (gpus_.empty()) {
      warn("no GPU in the file");
      return;
    }
    host_.gpu = known_gpu(pci(gpus_.front()));
    for (const int i : gpus_)
      if (pci(i).device != pci(gpus_.front()).device || pci(i).sm != pci(gpus_.front()).sm)
        warn(fmt::format("GPUs differ ({} and {}); the figures of the first are used for all",
                         pci(gpus_.front()).bus_id, pci(i).bus_id));
  }

  void add_nics() {
    struct Port {
      int device;
      const XmlNet* net;
      Rate rate;
    };
    static const XmlNet no_net;
    std::vector<Port> ports;
    int number = 0;
    bool any_net = false;
    for (const XmlPci& own : xml_.pci) any_net = any_net || !own.nets.empty();
    for (const XmlCpu& own : xml_.cpus) any_net = any_net || !own.nets.empty();
    for (const int i : all_of(PciKind::nic)) {
      place(i) = add_pci(DeviceKind::nic, fmt::format("nic{}", number++), i);
      for (const XmlNet& net : pci(i).nets) ports.push_back({place(i), &net, net_rate(net)});
      if (any_net) continue;
      Rate rate = pcie_rate(pci(i).link_speed, pci(i).link_width);
      rate.source = Source::unknown;
      rate.source_note = "port speed not in the file; the NIC's PCIe rate taken, which it cannot exceed";
      rate.latency_us = 1;
      ports.push_back({place(i), &no_net, rate});
    }
    for (std::size_t i = 0; i < xml_.cpus.size(); ++i) {
      const XmlCpu& cpu = xml_.cpus[i];
      if (!cpu.has_nic) continue;
      const int device = add(DeviceKind::nic, fmt::format("nic{}", number++), "", static_cast<int>(i));
      double GBps = 0;
      for (const XmlNet& net : cpu.nets) {
        ports.push_back({device, &net, net_rate(net)});
        GBps += ports.back().rate.GBps_per_direction;
      }
      join(device, static_cast<int>(i), LinkKind::pcie,
           {std::max(GBps, 1.25), 0.5, Source::assumed, "NIC without a PCI place; as fast as its ports"});
    }
    std::set<int> devs;
    for (const Port& port : ports) devs.insert(port.net->dev);
    if (devs.size() == ports.size() && !devs.count(-1))
      std::stable_sort(ports.begin(), ports.end(),
                       [](const Port& a, const Port& b) { return a.net->dev < b.net->dev; });
    for (const Port& port : ports) {
      const int rail = port.net->rail >= 0 ? port.net->rail : static_cast<int>(host_.nics.size());
      host_.nics.push_back({port.device, rail, port.net->name, port.rate, port.net->attributes});
    }
    if (ports.empty() && !gpus_.empty()) warn("no NIC in the file; this host reaches no other");
  }

  // Each PCI entry hangs on its parent by its own link.
  void add_pci_links() {
    for (std::size_t i = 0; i < xml_.pci.size(); ++i) {
      const XmlPci& own = xml_.pci[i];
      if (place_[i] < 0) continue;
      int above = own.parent;  // past what traffic does not go through
      while (above >= 0 && kind_of(pci(above)) != PciKind::bridge) above = pci(above).parent;
      const int parent = above >= 0 ? place(above) : own.cpu;
      const Rate rate = pcie_rate(own.link_speed, own.link_width);
      join(place_[i], parent, LinkKind::pcie, rate);
      if (kind_of(own) == PciKind::bridge && rate.GBps_per_direction < 1)
        warn(fmt::format(
            "PCIe switch {} reports {} GB/s ({} x {}): virtual bridges do; paths over it look slower than they are",
            own.bus_id, short_number(rate.GBps_per_direction), own.link_speed, own.link_width));
      for (const std::string& other : own.pci_links) {
        const int target = find(other);
        if (target < 0 || place(target) < 0)
          warn(fmt::format("pcilink {} -> {}: no such switch in the file", own.bus_id, other));
        else if (own.bus_id < other || !lists(pci(target), own.bus_id))  // once, though both ends may list it
          join(place_[i], place(target), LinkKind::pcie, rate);
      }
    }
  }

  static bool lists(const XmlPci& bridge, const std::string& bus_id) {
    return std::find(bridge.pci_links.begin(), bridge.pci_links.end(), bus_id) != bridge.pci_links.end();
  }
  int find(const std::string& bus_id) const {
    const auto found = by_bus_id_.find(bus_id);
    return found == by_bus_id_.end() ? -1 : found->second;
  }

  void add_gpu_links() {
    int plane = -1;
    bool any_element = false, any_link = false;
    std::map<std::pair<int, int>, int> pairs;  // (gpu, gpu) -> links
    for (const int i : gpus_) {
      const XmlPci& own = pci(i);
      any_element = any_element || own.has_gpu;
      any_link = any_link || !own.links.empty();
      if (own.c2c_GBps > 0)
        join(place(i), own.cpu, LinkKind::c2c, {own.c2c_GBps, 0.5, Source::datasheet, "NVLink-C2C as in the file"},
             true, own.c2c_count);
      int to_switch = 0, to_cpu = 0, left_out = 0;
      for (const XmlGpuLink& link : own.links) {
        const int target = find(link.target);
        if (target >= 0 && kind_of(pci(target)) == PciKind::gpu && target != i) {
          pairs[{i, target}] += link.count;
        } else if (link.tclass.starts_with("0x068001")) {
          to_cpu += link.count;
        } else if (link.tclass.starts_with("0x0680") || link.target.starts_with("fffffff:ff") ||
                   (target >= 0 && kind_of(pci(target)) == PciKind::nvswitch)) {
          to_switch += link.count;
        } else {
          warn(fmt::format("GPU {}: {} links to {}, which is not in the file; left out", own.bus_id, link.count,
                           link.target));
          left_out += link.count;
        }
      }
      if (to_switch > 0) {
        if (plane < 0) plane = add(DeviceKind::nvswitch, "nvswitch", "", -1);
        join(place(i), plane, LinkKind::nvlink, gpu_link_rate(own, to_switch), true, to_switch);
      }
      if (to_cpu > 0) join(place(i), own.cpu, LinkKind::nvlink, gpu_link_rate(own, to_cpu), true, to_cpu);
      if (left_out > 0) device(place(i)).attributes.push_back({kLinksLeftOut, std::to_string(left_out)});
    }
    for (const auto& [ends, count] : pairs) add_pair(pairs, ends.first, ends.second, count);
    host_.nvlink = any_link ? Presence::present : any_element ? Presence::absent : Presence::unknown;
    warn_of_missing_links(any_link, any_element);
  }

  void add_pair(const std::map<std::pair<int, int>, int>& pairs, int src, int dst, int count) {
    const auto back = pairs.find({dst, src});
    const int reverse = back == pairs.end() ? 0 : back->second;
    const LinkKind kind = pci(src).links.front().xgmi ? LinkKind::xgmi : LinkKind::nvlink;
    const Rate rate = gpu_link_rate(pci(src), count);
    if (reverse == count) {
      if (src < dst) join(place(src), place(dst), kind, rate, true, count);
      return;
    }
    join(place(src), place(dst), kind, rate, false, count);
    warn(fmt::format(
        "GPU {} has {} links to {}, but {} back: one direction of a pair cannot be faster; was the file edited?",
        pci(src).bus_id, count, pci(dst).bus_id, reverse));
  }

  Rate gpu_link_rate(const XmlPci& gpu, int count) const {
    Rate rate = gpu.links.front().xgmi ? xgmi_rate(gpu.gcn) : nvlink_rate(gpu.sm);
    if (!(rate.GBps_per_direction > 0)) {
      rate.GBps_per_direction = 25;
      rate.source = Source::assumed;
      rate.source_note = fmt::format("NVLink generation of sm {} not known", gpu.sm);
    }
    rate.source_note += fmt::format(", {} x {} GB/s", count, short_number(rate.GBps_per_direction, 4));
    rate.GBps_per_direction *= count;
    return rate;
  }

  void warn_of_missing_links(bool any_link, bool any_element) {
    for (const int i : gpus_) {
      if (any_link && pci(i).links.empty())
        warn(fmt::format(
            "GPU {} lists no NVLink while others do: NCCL would run at a fraction of the speed; check the GPU, "
            "or the file",
            pci(i).bus_id));
      if (any_element && !any_link && has_nvlink_by_design(pci(i)))
        warn(fmt::format("GPU {} ({}) is a board with NVLink, but the file lists none", pci(i).bus_id, host_.gpu.name));
    }
  }

  void add_cpu_links() {
    for (std::size_t a = 0; a < xml_.cpus.size(); ++a)
      for (std::size_t b = a + 1; b < xml_.cpus.size(); ++b)
        join(static_cast<int>(a), static_cast<int>(b), LinkKind::cpu_interconnect, cpu_interconnect_rate(xml_.cpus[a]));
  }

  const XmlHost& xml_;
  std::vector<std::string>& warnings_;
  HostTemplate host_;
  std::vector<int> place_;                               // PCI entry -> device; -1: none made of it
  std::vector<int> gpus_;                                // PCI entries
  std::unordered_map<std::string_view, int> by_bus_id_;  // the first of each
  std::set<std::string> said_;
};

}  // namespace

Topology read_nccl_xml(std::string_view text, const std::string& where) {
  const XmlSystem system = parse_nccl_xml(text, where);
  Topology topology;
  topology.name = stem_of_file(where);
  topology.source = where;
  topology.warnings = system.warnings;
  bool one_plane = system.hosts.size() > 1;
  HostsByKind kinds;
  for (std::size_t i = 0; i < system.hosts.size(); ++i) {
    const std::string name = system.hosts.size() == 1 ? topology.name : fmt::format("{}-{}", topology.name, i);
    HostTemplate host = HostReader(system.hosts[i], name, topology.warnings).run();
    one_plane = one_plane && std::any_of(host.devices.begin(), host.devices.end(),
                                         [](const HostDevice& device) { return device.kind == DeviceKind::nvswitch; });
    const auto next = static_cast<int>(topology.templates.size());
    const int index = kinds.first_like(
        host, next, [&](int t) -> const HostTemplate& { return topology.templates[static_cast<std::size_t>(t)]; });
    if (index == next) topology.templates.push_back(std::move(host));
    if (!topology.groups.empty() && topology.groups.back().template_index == index)
      ++topology.groups.back().count;
    else
      topology.groups.push_back({index, 1});
  }
  if (one_plane) {
    topology.hosts_per_domain = static_cast<int>(system.hosts.size());
    add_warning(topology,
                fmt::format("{} hosts on NVLink switches in one file: taken as one NVLink domain (multi-node NVLink)",
                            system.hosts.size()));
  } else if (system.hosts.size() > 1) {
    add_warning(topology, "several hosts, and an NCCL file says nothing of the network between them: no fabric");
  }
  require_valid(topology, where);
  add_warnings(topology, warnings_from_sources(topology));
  return topology;
}

}  // namespace topomoe
