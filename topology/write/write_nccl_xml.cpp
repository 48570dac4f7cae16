// A topology as NCCL, or RCCL, would dump it: each host a few <cpu>, below them what hangs there by PCIe.
//
// What an NCCL file said is written as it was (attributes); what other sources do not say follows from rates:
// link_speed and link_width from a slot's GB/s, links from NVLink's. Where that needs the GPU's generation and it is
// not known, InvalidInput: NCCL would count on another rate. Fabric, latencies and sources have no place in such a
// file.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <pugixml.hpp>
#include <set>
#include <sstream>
#include <string_view>

#include "topology/host_tree.hpp"
#include "topology/known_rates.hpp"
#include "topology/names.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

std::size_t at(int index) { return static_cast<std::size_t>(index); }

// Compute capability by the beginning of a board's name, for hosts that were not read from an NCCL file.
int sm_of(std::string_view board) {
  constexpr std::pair<std::string_view, int> kBoards[] = {
      {"P100", 60}, {"V100", 70},  {"A100", 80},     {"A800", 80},  {"RTX 3090", 86}, {"RTX A6000", 86},
      {"A40", 86},  {"L40", 89},   {"RTX 4090", 89}, {"H100", 90},  {"H800", 90},     {"H200", 90},
      {"H20", 90},  {"GH200", 90}, {"B200", 100},    {"GB200", 100}};
  for (const auto& [name, sm] : kBoards)
    if (board.starts_with(name)) return sm;
  return 0;
}

class HostWriter {
 public:
  HostWriter(const HostTemplate& host, int number, pugi::xml_node system)
      : host_(host), tree_(host), hash_(fmt::format("0x{:x}", number + 1)), system_(system) {
    std::set<std::string> taken;
    for (const HostDevice& own : host.devices) taken.insert(own.bus_id);
    int next = 0;
    for (const HostDevice& own : host.devices) {
      std::string id = own.bus_id;
      while (id.empty() || (own.bus_id.empty() && taken.count(id) > 0)) {
        id = fmt::format("{:04x}:{:02x}:00.0", next >> 8, next & 0xFF);
        ++next;
      }
      bus_.push_back(std::move(id));
    }
  }

  void run() {
    int numa = 0;
    for (int i = 0; i < static_cast<int>(host_.devices.size()); ++i) {
      if (device(i).kind != DeviceKind::numa) continue;
      pugi::xml_node cpu = system_.append_child("cpu");
      cpu.append_attribute("host_hash") = hash_.c_str();
      put(cpu, device(i).attributes);
      if (!cpu.attribute("numaid")) cpu.append_attribute("numaid") = numa;
      ++numa;
      add_below(cpu, i);
    }
    for (int i = 0; i < static_cast<int>(host_.devices.size()); ++i)
      if (const DeviceKind kind = device(i).kind;
          (kind == DeviceKind::gpu || kind == DeviceKind::nic) && !written_.count(i))
        throw InvalidInput("NCCL XML: " + host_.name + "." + device(i).name, "hangs on no CPU",
                           "an NCCL file has each device below a CPU: give it a link to one");
  }

 private:
  const HostDevice& device(int i) const { return host_.devices[at(i)]; }
  static void put(pugi::xml_node node, const std::vector<Attribute>& attributes, std::string_view prefix = {}) {
    for (const Attribute& own : attributes) {
      const bool gpus = own.name.starts_with("gpu.");
      if (own.name == kLinksLeftOut || gpus == prefix.empty()) continue;
      node.append_attribute(own.name.substr(prefix.size()).c_str()) = own.value.c_str();
    }
  }
  static void put_default(pugi::xml_node node, const char* name, const std::string& value) {
    if (!node.attribute(name)) node.append_attribute(name) = value.c_str();
  }
  // What a figure that was given since takes the place of.
  static void put_instead(pugi::xml_node node, const char* name, const std::string& value) {
    pugi::xml_attribute own = node.attribute(name);
    (own ? own : node.append_attribute(name)) = value.c_str();
  }

  void add_below(pugi::xml_node node, int above) {
    for (const int i : tree_.children[at(above)]) {
      written_.insert(i);
      const Link& link = host_.links[at(tree_.parent_link[at(i)])];
      if (link.kind == LinkKind::cpu_root) {  // all that a CPU passes on: no NCCL file knows of that
        add_below(node, i);
        continue;
      }
      if (device(i).kind == DeviceKind::nic && device(i).bus_id.empty() && device(above).kind == DeviceKind::numa &&
          host_.shape == std::nullopt) {
        add_nets(node, i);  // its PCI place is not known
        continue;
      }
      pugi::xml_node pci = node.append_child("pci");
      pci.append_attribute("busid") = bus_[at(i)].c_str();
      put(pci, device(i).attributes);
      put_default(pci, "class",
                  device(i).kind == DeviceKind::gpu   ? "0x030200"
                  : device(i).kind == DeviceKind::nic ? "0x020000"
                                                      : "0x060400");
      if (link.kind == LinkKind::pcie) add_slot(pci, link);
      if (device(i).kind == DeviceKind::gpu) add_gpu(pci, i);
      if (device(i).kind == DeviceKind::nic) add_nets(pci, i);
      if (device(i).kind == DeviceKind::pci_switch) add_below(pci, i), add_joined(pci, i);
    }
  }

  // 16 lanes of the generation that carries as much, or fewer of one that does.
  static void add_slot(pugi::xml_node pci, const Link& link) {
    const double said =
        pcie_rate(pci.attribute("link_speed").value(), pci.attribute("link_width").as_int()).GBps_per_direction;
    if (pci.attribute("link_speed") && std::abs(said - link.GBps_per_direction) < 0.02 * said) return;
    for (const double GTps : {2.5, 5.0, 8.0, 16.0, 32.0, 64.0, 128.0})
      for (const int lanes : {16, 8, 4, 2, 1})
        if (const std::string speed = fmt::format("{:.1f} GT/s PCIe", GTps);
            std::abs(pcie_rate(speed, lanes).GBps_per_direction - link.GBps_per_direction) <
            0.02 * link.GBps_per_direction) {
          put_instead(pci, "link_speed", speed);
          put_instead(pci, "link_width", std::to_string(lanes));
          return;
        }
    throw InvalidInput("NCCL XML: PCIe", short_number(link.GBps_per_direction) + " GB/s",
                       "no number of lanes of a generation carries that; an NCCL file can say nothing else");
  }

  // Switches that are joined to this one beside the tree.
  void add_joined(pugi::xml_node pci, int i) {
    for (const Link& link : host_.links)
      if (link.kind == LinkKind::pcie && link.src == i && &link != &host_.links[at(tree_.parent_link[at(i)])] &&
          device(link.dst).kind == DeviceKind::pci_switch)
        pci.append_child("pcilink").append_attribute("busid") = bus_[at(link.dst)].c_str();
  }

  void add_gpu(pugi::xml_node pci, int i) {
    const std::vector<Attribute>& own = device(i).attributes;
    // A template lists GPUs without <gpu>: nothing is known of their links.
    const bool said =
        std::any_of(own.begin(), own.end(), [](const Attribute& a) { return a.name.starts_with("gpu."); });
    if (!said && host_.nvlink == Presence::unknown) return;
    pugi::xml_node gpu = pci.append_child("gpu");
    put(gpu, own, "gpu.");
    const auto number = std::find(host_.gpus.begin(), host_.gpus.end(), i) - host_.gpus.begin();
    put_default(gpu, "dev", std::to_string(number));
    const int sm = said ? 0 : sm_of(host_.gpu.name);
    if (sm > 0) put_default(gpu, "sm", std::to_string(sm));
    for (const Link& link : host_.links) {
      if (link.src == i) add_link(gpu, link, link.dst);
      if (link.dst == i && link.both_ways) add_link(gpu, link, link.src);
    }
    if (const std::string_view left_out = attribute(own, kLinksLeftOut); !left_out.empty())
      put_link(gpu, "nvlink", "ffff:ff:00.0", std::string(left_out), "0x030200");
  }

  static void put_link(pugi::xml_node gpu, const char* element, const std::string& target, const std::string& count,
                       const char* tclass) {
    pugi::xml_node link = gpu.append_child(element);
    link.append_attribute("target") = target.c_str();
    link.append_attribute("count") = count.c_str();
    link.append_attribute("tclass") = tclass;
  }

  void add_link(pugi::xml_node gpu, const Link& link, int other) {
    if (link.kind == LinkKind::c2c) {
      pugi::xml_node c2c = gpu.append_child("c2c");
      const int count = std::max(1, link.count);
      c2c.append_attribute("bw") = std::lround(1000 * link.GBps_per_direction / count);
      c2c.append_attribute("count") = count;
      return;
    }
    if (link.kind != LinkKind::nvlink && link.kind != LinkKind::xgmi) return;
    const char* element = link.kind == LinkKind::xgmi ? "xgmi" : "nvlink";
    int count = link.count;
    if (count == 0) {
      const double each = nvlink_rate(gpu.attribute("sm").as_int()).GBps_per_direction;
      if (!(each > 0))
        throw InvalidInput("NCCL XML: sm of " + host_.name, '"' + host_.gpu.name + '"',
                           "NVLinks are counted by their generation: give the GPUs an attribute gpu.sm");
      count = static_cast<int>(std::lround(link.GBps_per_direction / each));
    }
    switch (device(other).kind) {
      case DeviceKind::nvswitch: return put_link(gpu, element, "fffffff:ff:ff.0", std::to_string(count), "0x068000");
      case DeviceKind::numa: return put_link(gpu, element, "0000:00:00.0", std::to_string(count), "0x068001");
      default: return put_link(gpu, element, bus_[at(other)], std::to_string(count), "0x030200");
    }
  }

  void add_nets(pugi::xml_node above, int i) {
    pugi::xml_node nic = above.append_child("nic");
    for (std::size_t number = 0; number < host_.nics.size(); ++number) {
      const Nic& own = host_.nics[number];
      if (own.device != i || (own.port.source == Source::unknown && own.attributes.empty() && own.name.empty()))
        continue;
      pugi::xml_node net = nic.append_child("net");
      if (!own.name.empty()) net.append_attribute("name") = own.name.c_str();
      put(net, own.attributes);
      put_default(net, "dev", std::to_string(number));
      const double said = net.attribute("speed").as_double() / 8000, GBps = own.port.GBps_per_direction;
      // 10,000 Mb/s is what a file that gives none is read as.
      if (!own.attributes.empty() && !(said > 0) && own.port.source == Source::assumed && GBps == 1.25) continue;
      if (std::abs(said - GBps) > 0.001 * GBps)
        put_instead(net, "speed", std::to_string(std::lround(8000 * own.port.GBps_per_direction)));
    }
  }

  const HostTemplate& host_;
  HostTree tree_;
  std::set<int> written_;
  std::string hash_;
  pugi::xml_node system_;
  std::vector<std::string> bus_;
};

bool is_rccl(const Topology& topology) {
  for (const HostTemplate& host : topology.templates)
    for (const HostDevice& device : host.devices)
      if (!attribute(device.attributes, "gpu.gcn").empty()) return true;
  return false;
}

}  // namespace

std::string write_nccl_xml(const Topology& topology) {
  // Several hosts in NCCL's file are one NVLink domain; read back, a network would be NVLink.
  if (topology.host_count() > topology.hosts_per_domain)
    throw InvalidInput(
        "hosts", fmt::format("{}, in NVLink domains of {}", topology.host_count(), topology.hosts_per_domain),
        "NCCL's file describes a host, or hosts of one NVLink domain: export the description of one host");
  pugi::xml_document document;
  pugi::xml_node system = document.append_child("system");
  system.append_attribute("version") = is_rccl(topology) ? "2" : "1";
  for (int host = 0; host < topology.host_count(); ++host) HostWriter(topology.host_template(host), host, system).run();
  std::ostringstream out;
  document.save(out, "  ", pugi::format_indent | pugi::format_no_declaration);
  return out.str();
}

}  // namespace topomoe
