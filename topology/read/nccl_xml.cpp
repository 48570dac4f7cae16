#include "topology/read/nccl_xml.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <map>
#include <pugixml.hpp>
#include <set>

#include "topology/names.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr std::size_t kMaxBytes = 64U << 20;
constexpr int kMaxDepth = 64;
constexpr int kMaxElements = 200'000;
constexpr std::size_t kMaxPciPerHost = 4096;  // NCCL itself stops far below
constexpr std::size_t kMaxCpusPerHost = 256;  // each two of them are joined
constexpr std::size_t kMaxPciLinks = 256;

bool is_named(const pugi::xml_node& node, const char* name) { return std::strcmp(node.name(), name) == 0; }

// "00000000:1B:00.0" and "0000:1b:00.0" are the same device.
std::string bus_id_of(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  std::size_t domain = text.find(':');
  while (domain != std::string::npos && domain > 4 && text[0] == '0') {
    text.erase(0, 1);
    --domain;
  }
  return text;
}

class Parser {
 public:
  explicit Parser(const std::string& where) : where_(where) {}

  XmlSystem run(std::string_view text) {
    if (text.size() > kMaxBytes)
      throw InvalidInput(where_, fmt::format("{} bytes", text.size()),
                         "at most 64 MiB; NCCL's files are some kilobytes");
    pugi::xml_document document;
    const pugi::xml_parse_result parsed = document.load_buffer(text.data(), text.size());
    if (!parsed)
      throw InvalidInput(
          where_, fmt::format("not XML at byte {}", parsed.offset),
          fmt::format("{}; cut off or damaged? Write it again with NCCL_TOPO_DUMP_FILE", parsed.description()));
    const pugi::xml_node root = document.document_element();
    if (is_named(root, "graphs"))
      throw InvalidInput(where_ + ": root", "<graphs>",
                         "this is NCCL_GRAPH_DUMP_FILE; give the one of NCCL_TOPO_DUMP_FILE");
    if (is_named(root, "topology"))
      throw InvalidInput(where_ + ": root", "<topology>",
                         "this is hwloc's XML, which has no rates; give NCCL_TOPO_DUMP_FILE's");
    if (!is_named(root, "system"))
      throw InvalidInput(where_ + ": root", fmt::format("<{}>", root.name()), "NCCL's topology begins with <system>");
    system_.rccl = std::strcmp(root.attribute("version").value(), "2") == 0;
    for (const pugi::xml_node& child : root.children()) {
      if (child.type() != pugi::node_element) continue;
      if (!is_named(child, "cpu"))
        throw InvalidInput(where_ + ": <system>", fmt::format("<{}> in it", child.name()),
                           "NCCL puts only <cpu> there, GPUs inside <cpu><pci>; this file was not written by NCCL");
      read_cpu(child);
    }
    if (system_.hosts.empty())
      throw InvalidInput(where_ + ": <system>", "no <cpu>", "write the file with NCCL_TOPO_DUMP_FILE");
    for (const XmlHost& host : system_.hosts) check_bus_ids(host);
    return std::move(system_);
  }

 private:
  // Some of RCCL's models repeat a bridge. A GPU that is there twice means two hosts under one hash.
  void check_bus_ids(const XmlHost& host) {
    std::map<std::string, const XmlPci*> seen;
    for (const XmlPci& pci : host.pci) {
      const auto [at, is_new] = seen.emplace(pci.bus_id, &pci);
      if (is_new) continue;
      if (pci.has_gpu || pci.pci_class.starts_with("0x03"))
        throw InvalidInput(where_ + ": <pci> busid", '"' + pci.bus_id + '"',
                           "this GPU appears twice in one host; give each host its own host_hash");
      say_once(fmt::format("<pci> {} appears twice in one host; taken as two", pci.bus_id));
    }
  }

  [[noreturn]] void fail(const pugi::xml_node& node, const char* attribute, const std::string& hint) const {
    const pugi::xml_attribute found = node.attribute(attribute);
    throw InvalidInput(fmt::format("{}: <{}> {}, byte {}", where_, node.name(), attribute, node.offset_debug()),
                       found ? fmt::format("\"{:.40}\"", found.value()) : "missing", hint);
  }

  int integer(const pugi::xml_node& node, const char* attribute, int otherwise, int low, int high) const {
    const std::string_view text = node.attribute(attribute).value();
    if (text.empty()) return otherwise;
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value < low || value > high)
      fail(node, attribute, fmt::format("a whole number, {} to {}", low, high));
    return value;
  }

  double number(const pugi::xml_node& node, const char* attribute, double otherwise, double most) const {
    const std::string_view text = node.attribute(attribute).value();
    if (text.empty()) return otherwise;
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || !std::isfinite(value) || value > most)
      fail(node, attribute, fmt::format("a number, at most {}", most));
    return value;
  }

  std::string bus_id(const pugi::xml_node& node, const char* attribute) const {
    const std::string text = node.attribute(attribute).value();
    if (text.empty() || text.size() > 32) fail(node, attribute, "a bus id such as \"0000:1b:00.0\"");
    return bus_id_of(text);
  }

  // Of a device's kind: not its name or place, which are fields of their own, nor what two equal hosts differ in.
  std::vector<Attribute> attributes_of(const pugi::xml_node& node) {
    constexpr std::string_view kElsewhere[] = {"busid", "name", "host_hash", "guid", "rank"};
    constexpr std::size_t kMost = 64, kLongestName = 60;  // "gpu." goes before those of a GPU
    std::vector<Attribute> out;
    for (const pugi::xml_attribute& own : node.attributes()) {
      if (std::find(std::begin(kElsewhere), std::end(kElsewhere), own.name()) != std::end(kElsewhere)) continue;
      if (out.size() >= kMost)
        throw InvalidInput(fmt::format("{}: <{}>, byte {}", where_, node.name(), node.offset_debug()),
                           fmt::format("more than {} attributes", kMost), "not a topology of NCCL's");
      if (std::strlen(own.name()) > kLongestName || !is_attribute_name(own.name())) {
        say_once(
            fmt::format("attribute {:.40} of <{}> is no word of NCCL's and was left out", own.name(), node.name()));
        continue;
      }
      if (std::none_of(out.begin(), out.end(), [&](const Attribute& a) { return a.name == own.name(); }))
        out.push_back({own.name(), own.value()});
    }
    return out;
  }

  void count_element(const pugi::xml_node& node, int depth) {
    if (depth > kMaxDepth)
      throw InvalidInput(where_, fmt::format("nested deeper than {}", kMaxDepth),
                         "no machine has that many PCI levels");
    if (++elements_ > kMaxElements)
      throw InvalidInput(where_, fmt::format("more than {} elements", kMaxElements), "one NVLink domain a file");
    (void)node;
  }

  XmlHost& host_of(const std::string& hash) {
    const auto [at, is_new] = host_of_.emplace(hash, system_.hosts.size());
    if (is_new) system_.hosts.push_back({hash, {}, {}});
    return system_.hosts[at->second];
  }

  void read_cpu(const pugi::xml_node& node) {
    count_element(node, 1);
    XmlHost& host = host_of(node.attribute("host_hash").value());
    const std::string numa_id = node.attribute("numaid").value();
    std::size_t index = 0;
    while (index < host.cpus.size() && host.cpus[index].numa_id != numa_id) ++index;
    if (index == host.cpus.size()) {
      if (index == kMaxCpusPerHost)
        throw InvalidInput(where_ + ": <cpu>", fmt::format("more than {} in a host", kMaxCpusPerHost),
                           "give each host its own host_hash");
      XmlCpu cpu;
      cpu.numa_id = numa_id;
      cpu.attributes = attributes_of(node);
      cpu.arch = node.attribute("arch").value();
      cpu.vendor = node.attribute("vendor").value();
      cpu.family = integer(node, "familyid", -1, -1, 1 << 20);
      cpu.model = integer(node, "modelid", -1, -1, 1 << 20);
      host.cpus.push_back(std::move(cpu));
    }
    for (const pugi::xml_node& child : node.children()) {
      if (child.type() != pugi::node_element) continue;
      if (is_named(child, "pci")) {
        read_pci(child, host, static_cast<int>(index), -1, 2);
      } else if (is_named(child, "nic")) {
        host.cpus[index].has_nic = true;
        read_nets(child, host.cpus[index].nets);
      } else {
        unknown(child, "cpu");
      }
    }
  }

  void read_pci(const pugi::xml_node& node, XmlHost& host, int cpu, int parent, int depth) {
    count_element(node, depth);
    if (host.pci.size() >= kMaxPciPerHost)
      throw InvalidInput(where_ + ": <pci>", fmt::format("more than {} in a host", kMaxPciPerHost),
                         "not a topology of NCCL's");
    const auto own = host.pci.size();
    XmlPci pci;
    pci.bus_id = bus_id(node, "busid");
    pci.pci_class = node.attribute("class").value();
    pci.vendor = node.attribute("vendor").value();
    pci.device = node.attribute("device").value();
    pci.link_speed = node.attribute("link_speed").value();
    if (pci.link_speed.starts_with('-'))
      fail(node, "link_speed", "as in /sys, such as \"32.0 GT/s PCIe\", or empty where unknown");
    pci.link_width = integer(node, "link_width", 0, 0, 64);
    pci.attributes = attributes_of(node);
    pci.parent = parent;
    pci.cpu = cpu;
    host.pci.push_back(std::move(pci));
    for (const pugi::xml_node& child : node.children()) {
      if (child.type() != pugi::node_element) continue;
      if (is_named(child, "pci")) {
        host.pci[own].has_children = true;
        read_pci(child, host, cpu, static_cast<int>(own), depth + 1);
      } else if (is_named(child, "gpu")) {
        read_gpu(child, host.pci[own]);
      } else if (is_named(child, "nic")) {
        host.pci[own].has_nic = true;
        read_nets(child, host.pci[own].nets);
      } else if (is_named(child, "pcilink")) {
        count_element(child, depth);
        if (host.pci[own].pci_links.size() == kMaxPciLinks)
          fail(child, "busid", fmt::format("at most {} switches are joined to one", kMaxPciLinks));
        host.pci[own].pci_links.push_back(bus_id(child, "busid"));
      } else {
        unknown(child, "pci");
      }
    }
  }

  void read_gpu(const pugi::xml_node& node, XmlPci& pci) {
    count_element(node, 1);
    if (pci.has_gpu) fail(node, "dev", "one <gpu> in a <pci>");
    pci.has_gpu = true;
    pci.sm = integer(node, "sm", -1, -1, 100'000);
    pci.gpu_dev = integer(node, "dev", -1, -1, 1'000'000);
    pci.gcn = node.attribute("gcn").value();
    pci.gpu_attributes = attributes_of(node);
    for (const pugi::xml_node& child : node.children()) {
      if (child.type() != pugi::node_element) continue;
      count_element(child, 1);
      if (is_named(child, "nvlink") || is_named(child, "xgmi")) {
        XmlGpuLink link;
        link.target = bus_id(child, "target");
        link.count = integer(child, "count", 1, 1, 1024);
        link.tclass = child.attribute("tclass").value();
        link.xgmi = is_named(child, "xgmi");
        pci.links.push_back(std::move(link));
      } else if (is_named(child, "c2c")) {
        const double MBps = number(child, "bw", 0, 1e8);
        if (!(MBps > 0)) fail(child, "bw", "MB/s of one C2C link, above 0");
        const int count = integer(child, "count", 1, 1, 1024);
        pci.c2c_GBps += MBps * count / 1000;
        pci.c2c_count += count;
      } else {
        unknown(child, "gpu");
      }
    }
  }

  void read_nets(const pugi::xml_node& node, std::vector<XmlNet>& nets) {
    count_element(node, 1);
    for (const pugi::xml_node& child : node.children()) {
      if (child.type() != pugi::node_element) continue;
      count_element(child, 1);
      if (!is_named(child, "net")) {
        if (!is_named(child, "gin")) unknown(child, "nic");
        continue;
      }
      XmlNet net;
      net.name = child.attribute("name").value();
      net.attributes = attributes_of(child);
      net.dev = integer(child, "dev", -1, -1, 1'000'000);
      net.rail = integer(child, "rail", -1, -1, 65535);
      // NCCL writes 0 or -1 where a port tells no speed, and then counts on its fallback.
      net.speed_Mbps = number(child, "speed", 0, 1e8);
      if (net.speed_Mbps < 0 && net.speed_Mbps != -1) fail(child, "speed", "Mb/s of the port, or 0 where unknown");
      net.speed_Mbps = std::max(0.0, net.speed_Mbps);
      net.latency_us = number(child, "latency", 0, 1e6);
      if (net.latency_us < 0) fail(child, "latency", "us, 0 where unknown");
      nets.push_back(std::move(net));
    }
  }

  void unknown(const pugi::xml_node& node, const char* parent) {
    count_element(node, 1);
    say_once(fmt::format("<{:.40}> in <{}> is not known here and was left out", node.name(), parent));
  }

  void say_once(std::string line) {
    if (said_.insert(line).second) system_.warnings.push_back(std::move(line));
  }

  const std::string& where_;
  XmlSystem system_;
  std::map<std::string, std::size_t> host_of_;  // by hash
  std::set<std::string> said_;
  int elements_ = 0;
};

}  // namespace

XmlSystem parse_nccl_xml(std::string_view text, const std::string& where) { return Parser(where).run(text); }

}  // namespace topomoe
