// NCCL's graph XML -> values: form only; whether GPUs and nets are there is asked where it is laid over a topology.
#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <pugixml.hpp>

#include "topomoe/error.hpp"
#include "topomoe/nccl_graph.hpp"

namespace topomoe {
namespace {

constexpr std::size_t kMaxBytes = 16U << 20;
constexpr int kMaxElements = 200'000;  // NCCL itself stops at 4096
constexpr int kMaxHosts = 128;         // what NCCL's ids have room for

bool is_named(const pugi::xml_node& node, const char* name) { return std::strcmp(node.name(), name) == 0; }

class GraphParser {
 public:
  explicit GraphParser(const std::string& where) : where_(where) {}

  NcclGraph run(std::string_view text) {
    if (text.size() > kMaxBytes)
      throw InvalidInput(where_, fmt::format("{} bytes", text.size()), "at most 16 MiB; NCCL's are some kilobytes");
    pugi::xml_document document;
    const pugi::xml_parse_result parsed = document.load_buffer(text.data(), text.size());
    if (!parsed)
      throw InvalidInput(
          where_, fmt::format("not XML at byte {}", parsed.offset),
          fmt::format("{}; cut off or damaged? Write it again with NCCL_GRAPH_DUMP_FILE", parsed.description()));
    const pugi::xml_node root = document.document_element();
    if (!is_named(root, "graphs"))
      throw InvalidInput(where_ + ": root", fmt::format("<{:.40}>", root.name()),
                         is_named(root, "system") ? "this is NCCL_TOPO_DUMP_FILE; give the one of NCCL_GRAPH_DUMP_FILE"
                                                  : "NCCL's graphs begin with <graphs>");
    for (const pugi::xml_node& child : root.children()) {
      if (child.type() != pugi::node_element) continue;
      count(child);
      if (is_named(child, "graph"))
        read_search(child);
      else
        unknown(child, "graphs");
    }
    if (graph_.searches.empty())
      throw InvalidInput(where_ + ": <graphs>", "no <graph>", "write the file with NCCL_GRAPH_DUMP_FILE");
    return std::move(graph_);
  }

 private:
  [[noreturn]] void fail(const pugi::xml_node& node, const char* attribute, const std::string& hint) const {
    const pugi::xml_attribute found = node.attribute(attribute);
    throw InvalidInput(fmt::format("{}: <{}> {}, byte {}", where_, node.name(), attribute, node.offset_debug()),
                       found ? fmt::format("\"{:.40}\"", found.value()) : "missing", hint);
  }
  void count(const pugi::xml_node&) {
    if (++elements_ > kMaxElements)
      throw InvalidInput(where_, fmt::format("more than {} elements", kMaxElements), "not a graph of NCCL's");
  }
  void unknown(const pugi::xml_node& node, const char* parent) {
    const std::string line = fmt::format("<{:.40}> in <{}> is not known here and was left out", node.name(), parent);
    if (graph_.warnings.empty() || graph_.warnings.back() != line) graph_.warnings.push_back(line);
  }

  int integer(const pugi::xml_node& node, const char* attribute, int otherwise, int low, int high) const {
    const std::string_view text = node.attribute(attribute).value();
    if (text.empty() && otherwise >= low) return otherwise;
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value < low || value > high)
      fail(node, attribute, fmt::format("a whole number, {} to {}", low, high));
    return value;
  }
  double GBps(const pugi::xml_node& node, const char* attribute) const {
    const std::string_view text = node.attribute(attribute).value();
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || !(value >= 0) || value > 1e5)
      fail(node, attribute, "GB/s of a channel");
    return value;
  }
  PathClass path_class(const pugi::xml_node& node, const char* attribute) const {
    const std::string_view text = node.attribute(attribute).value();
    std::string names;
    for (int i = 0; i <= static_cast<int>(PathClass::DIS); ++i) {
      const auto own = static_cast<PathClass>(i);
      if (text == topomoe::name(own)) return own;
      names += (i == 0 ? "" : " ") + std::string(topomoe::name(own));
    }
    fail(node, attribute, "one of " + names);
  }

  void read_search(const pugi::xml_node& node) {
    NcclGraph::Search own;
    own.id = integer(node, "id", -1, 0, 1000);
    own.pattern = static_cast<NcclGraph::Pattern>(integer(node, "pattern", 0, 1, 6));
    own.intra_GBps = GBps(node, "speedintra");
    own.inter_GBps = GBps(node, "speedinter");
    own.intra = path_class(node, "typeintra");
    own.inter = path_class(node, "typeinter");
    own.cross_nic = integer(node, "crossnic", 0, 0, 2);
    own.same_channels = integer(node, "samechannels", 0, 0, 1) == 1;
    const int said = integer(node, "nchannels", -1, 0, kMaxElements);
    for (const pugi::xml_node& child : node.children()) {
      if (child.type() != pugi::node_element) continue;
      count(child);
      if (is_named(child, "channel"))
        own.channels.push_back(channel(child));
      else
        unknown(child, "graph");
    }
    if (static_cast<int>(own.channels.size()) != said)
      graph_.warnings.push_back(fmt::format("{}: nchannels says {}, and there are {}: these are taken", name(own), said,
                                            own.channels.size()));
    graph_.searches.push_back(std::move(own));
  }

  std::vector<NcclGraph::Node> channel(const pugi::xml_node& node) {
    std::vector<NcclGraph::Node> out;
    int gpus = 0;
    for (const pugi::xml_node& child : node.children()) {
      if (child.type() != pugi::node_element) continue;
      count(child);
      if (!is_named(child, "gpu") && !is_named(child, "net")) {
        unknown(child, "channel");
        continue;
      }
      out.push_back(device(child));
      gpus += out.back().net ? 0 : 1;
    }
    if (gpus == 0)
      throw InvalidInput(fmt::format("{}: <channel>, byte {}", where_, node.offset_debug()), "no <gpu>",
                         "a channel passes at least one GPU");
    for (std::size_t i = 1; i + 1 < out.size(); ++i)
      if (out[i].net)
        throw InvalidInput(fmt::format("{}: <channel>, byte {}", where_, node.offset_debug()), "a <net> between GPUs",
                           "nets are first and last in a channel");
    return out;
  }

  // "3", "0x3", or with the host of a domain in its highest byte "0x100000000000003".
  NcclGraph::Node device(const pugi::xml_node& node) const {
    std::string_view text = node.attribute("dev").value();
    const bool hexadecimal = text.starts_with("0x") || text.starts_with("0X");
    if (hexadecimal) text.remove_prefix(2);
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, hexadecimal ? 16 : 10);
    const std::uint64_t host = value >> 56U, dev = value & ((std::uint64_t{1} << 56U) - 1);
    if (error != std::errc{} || end != text.data() + text.size() || dev > 1'000'000 || host >= kMaxHosts)
      fail(node, "dev", "NCCL's number of the device: 3 or 0x3");
    return {is_named(node, "net"), static_cast<int>(host), static_cast<int>(dev)};
  }

  const std::string& where_;
  NcclGraph graph_;
  int elements_ = 0;
};

}  // namespace

std::string name(const NcclGraph::Search& search) {
  using Pattern = NcclGraph::Pattern;
  switch (search.pattern) {
    case Pattern::balanced_tree: return "tree (balanced)";
    case Pattern::split_tree: return "tree (split)";
    case Pattern::tree: return search.id == 2 ? "CollNet chain" : "tree";
    case Pattern::ring: return "ring";
    case Pattern::nvls: return "NVLS";
    case Pattern::collnet_direct: return "CollNet direct";
  }
  return "";
}

NcclGraph read_nccl_graph(std::string_view text, const std::string& where) { return GraphParser(where).run(text); }

}  // namespace topomoe
