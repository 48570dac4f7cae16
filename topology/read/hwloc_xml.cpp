#include "topology/read/hwloc_xml.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <cstring>
#include <pugixml.hpp>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr std::size_t kMaxBytes = 64U << 20;
constexpr int kMaxDepth = 64;
constexpr int kMaxElements = 200'000;
constexpr std::size_t kMaxPci = 8000, kMaxNumas = 256;
constexpr int kMaxNvlinkObjects = 512;

bool is_named(const pugi::xml_node& node, const char* name) { return std::strcmp(node.name(), name) == 0; }

template <class Number>
bool parse_all(std::string_view text, Number& value, int base = 10) {
  const char* last = text.data() + text.size();
  std::from_chars_result result{};
  if constexpr (std::is_integral_v<Number>)
    result = std::from_chars(text.data(), last, value, base);
  else
    result = std::from_chars(text.data(), last, value);
  return result.ec == std::errc{} && result.ptr == last;
}

class Parser {
 public:
  explicit Parser(const std::string& where) : where_(where) {}

  HwlocXml run(std::string_view text) {
    if (text.size() > kMaxBytes)
      throw InvalidInput(where_, fmt::format("{} bytes", text.size()), "at most 64 MiB; lstopo writes some kilobytes");
    pugi::xml_document document;
    const pugi::xml_parse_result parsed = document.load_buffer(text.data(), text.size());
    if (!parsed)
      throw InvalidInput(
          where_, fmt::format("not XML at byte {}", parsed.offset),
          fmt::format("{}; cut off or damaged? Write it again with lstopo FILE.xml", parsed.description()));
    const pugi::xml_node root = document.document_element();
    if (!is_named(root, "topology"))
      throw InvalidInput(where_ + ": root", fmt::format("<{:.40}>", root.name()), "hwloc's XML begins with <topology>");
    check_version(root);
    bool any_object = false;
    for (const pugi::xml_node& child : root.children()) {
      count_element(1);
      if (is_named(child, "object")) {
        any_object = true;
        read_object(child, -1, {}, 1);
      } else if (is_named(child, "info")) {
        read_info(child, -1);
      } else if (is_named(child, "distances2hetero") || is_named(child, "distances2")) {
        if (std::strcmp(child.attribute("name").value(), "NVLinkBandwidth") == 0) read_nvlink(child);
      }
    }
    if (!any_object)
      throw InvalidInput(where_ + ": <topology>", "no <object>", "hwloc puts the machine there; was the file edited?");
    return std::move(out_);
  }

 private:
  void check_version(const pugi::xml_node& root) {
    out_.version = root.attribute("version").value();
    if (out_.version.empty()) return;
    const std::string_view text = out_.version;
    int major = 0;
    if (!parse_all(text.substr(0, text.find('.')), major) || major < 1 || major > 3)
      throw InvalidInput(where_ + ": <topology> version", fmt::format("\"{:.40}\"", out_.version),
                         "1, 2 and 3 are read; write it for hwloc 2 with lstopo --export-xml-flags v2");
  }

  [[noreturn]] void fail(const pugi::xml_node& node, const char* attribute, const std::string& hint) const {
    const pugi::xml_attribute found = node.attribute(attribute);
    throw InvalidInput(fmt::format("{}: <{}> {}, byte {}", where_, node.name(), attribute, node.offset_debug()),
                       found ? fmt::format("\"{:.40}\"", found.value()) : "missing", hint);
  }

  void count_element(int depth) {
    if (depth > kMaxDepth)
      throw InvalidInput(where_, fmt::format("nested deeper than {}", kMaxDepth), "no machine has that many levels");
    if (++elements_ > kMaxElements)
      throw InvalidInput(where_, fmt::format("more than {} elements", kMaxElements), "one machine a file");
  }

  int os_index(const pugi::xml_node& node, int otherwise) const {
    const std::string_view text = node.attribute("os_index").value();
    int value = otherwise;
    if (!text.empty() && (!parse_all(text, value) || value < 0 || value > 1 << 20))
      fail(node, "os_index", "a whole number, 0 to 1048576");
    return value;
  }

  struct Bits {
    int first = -1;  // -1: none is set
    bool several = false;
  };
  // Words of 32 bits, the highest first, an empty one is 0; "0xf...f" goes on for ever.
  Bits bits_of(const pugi::xml_node& node, const char* attribute) const {
    std::string_view text = node.attribute(attribute).value();
    Bits out;
    for (int base = 0; !text.empty() && base < 1 << 20; base += 32) {
      const std::size_t comma = text.find_last_of(',');
      std::string_view word = comma == std::string_view::npos ? text : text.substr(comma + 1);
      text = comma == std::string_view::npos ? std::string_view{} : text.substr(0, comma);
      if (word == "0xf...f") return {out.first < 0 ? base : out.first, true};
      if (word.starts_with("0x")) word.remove_prefix(2);
      std::uint32_t bits = 0;
      if (!word.empty() && !parse_all(word, bits, 16)) fail(node, attribute, "words such as 0x000000ff,0x0");
      for (int bit = 0; bit < 32; ++bit) {
        if ((bits >> bit & 1U) == 0) continue;
        if (out.first >= 0) return {out.first, true};
        out.first = base + bit;
      }
    }
    return out;
  }

  static std::string numbered(const char* type, const pugi::xml_node& node) {
    const std::string number = node.attribute("gp_index").value();
    return number.empty() ? "" : fmt::format("{}:{}", type, number);
  }

  void read_object(const pugi::xml_node& node, int parent, Bits near, int depth) {
    count_element(depth);
    const std::string_view type = node.attribute("type").value();
    if (type.empty()) fail(node, "type", "hwloc names the type of each object");
    int own = parent;
    if (type == "Bridge" || type == "PCIDev")
      own = read_pci(node, type == "Bridge", parent, near);
    else if (type == "OSDev")
      read_os_device(node, parent);
    else if (const Bits own_set = bits_of(node, "nodeset"); own_set.first >= 0)
      near = own_set;
    if (type == "NUMANode") add_numa(node);
    if (type == "Package" || type == "Socket") out_.packages.push_back({numbered("Package", node), near.first});
    for (const pugi::xml_node& child : node.children()) {
      if (is_named(child, "object")) {
        read_object(child, own, near, depth + 1);
      } else {
        count_element(depth);
        if (is_named(child, "info")) read_info(child, own);
      }
    }
  }

  void add_numa(const pugi::xml_node& node) {
    const int index = os_index(node, static_cast<int>(out_.numas.size()));
    for (const HwlocNuma& other : out_.numas)
      if (other.os_index == index) fail(node, "os_index", "each NUMANode has its own; one machine a file");
    if (out_.numas.size() >= kMaxNumas)
      throw InvalidInput(where_, fmt::format("more than {} NUMA nodes", kMaxNumas), "one machine a file");
    out_.numas.push_back({index, !node.attribute("cpuset") || bits_of(node, "cpuset").first >= 0});
  }

  // "0302 [10de:15f9] [10de:116b] a1"
  int read_pci(const pugi::xml_node& node, bool bridge, int parent, Bits near) {
    if (out_.pci.size() >= kMaxPci)
      throw InvalidInput(where_, fmt::format("more than {} PCI devices", kMaxPci), "one machine a file");
    HwlocPci pci;
    pci.bridge = bridge;
    pci.host_bridge = bridge && std::string_view(node.attribute("bridge_type").value()).starts_with("0-");
    pci.parent = parent;
    pci.node = near.first;
    pci.near_several = near.several;
    pci.nvswitch = std::strcmp(node.attribute("subtype").value(), "NVSwitch") == 0;
    pci.id = numbered(bridge ? "Bridge" : "PCIDev", node);
    if (!pci.host_bridge) {
      pci.bus_id = node.attribute("pci_busid").value();
      if (pci.bus_id.empty() || pci.bus_id.size() > 32) fail(node, "pci_busid", "such as \"0000:1b:00.0\"");
      const std::string_view type = node.attribute("pci_type").value();
      const bool good = type.size() >= 16 && type.substr(4, 2) == " [" && type[10] == ':' && type[15] == ']' &&
                        parse_all(type.substr(0, 4), pci.klass, 16) && parse_all(type.substr(6, 4), pci.vendor, 16) &&
                        parse_all(type.substr(11, 4), pci.device, 16);
      if (!good) fail(node, "pci_type", "class [vendor:device], such as \"0302 [10de:20b0] [10de:1450] a1\"");
      const std::string_view speed = node.attribute("pci_link_speed").value();
      if (!speed.empty() && (!parse_all(speed, pci.GBps) || !std::isfinite(pci.GBps) || pci.GBps < 0 || pci.GBps > 1e4))
        fail(node, "pci_link_speed", "GB/s, 0 where unknown");
      pci.nvswitch = pci.nvswitch || (pci.vendor == 0x10de && pci.klass == 0x0680);
    }
    out_.pci.push_back(std::move(pci));
    return static_cast<int>(out_.pci.size()) - 1;
  }

  void read_os_device(const pugi::xml_node& node, int parent) {
    if (parent < 0) return;  // of no bus
    HwlocPci& pci = out_.pci[static_cast<std::size_t>(parent)];
    if (const std::string id = numbered("OSDev", node); !id.empty()) pci.os_ids.push_back(id);
    const std::string name = node.attribute("name").value();
    int type = -1;
    if (!parse_all(std::string_view(node.attribute("osdev_type").value()), type))
      fail(node, "osdev_type", "a whole number");
    // hwloc 3 writes a set of types (16 network, 32 OpenFabrics), earlier ones a number (2, 3).
    const bool set = out_.version.starts_with('3');
    if (set ? (type & 32) != 0 : type == 3)
      pci.rdma_names.push_back(name);
    else if (set ? (type & 16) != 0 : type == 2)
      pci.net_names.push_back(name);
  }

  void read_info(const pugi::xml_node& info, int pci) {
    const std::string_view name = info.attribute("name").value(), value = info.attribute("value").value();
    if (name == "GPUModel" && pci >= 0)
      out_.pci[static_cast<std::size_t>(pci)].gpu_model = value;
    else if (name == "CPUVendor")
      out_.cpu_vendor = value;
    else if (name == "Architecture")
      out_.architecture = value;
    else if (name == "CPUModelNumber")
      parse_all(value, out_.cpu_model);
  }

  template <class Each>
  void each_word(const pugi::xml_node& matrix, const char* element, std::size_t wanted, Each each) const {
    std::size_t found = 0;
    for (const pugi::xml_node& part : matrix.children(element)) {
      std::string_view text = part.text().get();
      while (true) {
        const std::size_t start = text.find_first_not_of(" \t\r\n");
        if (start == std::string_view::npos) break;
        const std::size_t end = std::min(text.find_first_of(" \t\r\n", start), text.size());
        if (++found <= wanted) each(text.substr(start, end - start));
        text.remove_prefix(end);
      }
    }
    if (found != wanted)
      throw InvalidInput(fmt::format("{}: NVLinkBandwidth <{}>, byte {}", where_, element, matrix.offset_debug()),
                         fmt::format("{} entries", found), fmt::format("{} by nbobjs; cut off or edited?", wanted));
  }

  void read_nvlink(const pugi::xml_node& node) {
    int objects = 0;
    if (!parse_all(std::string_view(node.attribute("nbobjs").value()), objects) || objects < 1 ||
        objects > kMaxNvlinkObjects)
      fail(node, "nbobjs", fmt::format("a whole number, 1 to {}", kMaxNvlinkObjects));
    const auto count = static_cast<std::size_t>(objects);
    HwlocNvlink nvlink;
    // Of one type, only the numbers are given.
    const std::string prefix = is_named(node, "distances2") ? std::string(node.attribute("type").value()) + ":" : "";
    each_word(node, "indexes", count,
              [&](std::string_view word) { nvlink.objects.push_back(prefix + std::string(word)); });
    each_word(node, "u64values", count * count, [&](std::string_view word) {
      double value = 0;
      if (!parse_all(word, value) || !(value >= 0) || value > 1e8)
        throw InvalidInput(fmt::format("{}: NVLinkBandwidth <u64values>, byte {}", where_, node.offset_debug()),
                           fmt::format("\"{:.40}\"", word), "MB/s, 0 to 100000000");
      nvlink.MBps.push_back(value);
    });
    out_.nvlink.push_back(std::move(nvlink));
  }

  const std::string& where_;
  HwlocXml out_;
  int elements_ = 0;
};

}  // namespace

HwlocXml parse_hwloc_xml(std::string_view text, const std::string& where) { return Parser(where).run(text); }

}  // namespace topomoe
