// Slurm's topology.yaml: a list of topologies, each a tree, blocks or flat. One tree and one set of blocks are read
// together; flat ones say nothing.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "topology/read/host_list.hpp"
#include "topology/read/network_formats.hpp"
#include "topology/read/readers.hpp"
#include "topology/read/switch_tree.hpp"
#include "topology/read/yaml_subset.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

class SlurmYaml {
 public:
  explicit SlurmYaml(const std::string& where) : where_(where) {}

  Topology read(const Yaml& root) {
    want(root, Yaml::Kind::list, "a list of \"- topology: name\"");
    for (const Yaml& own : root.list) add_topology(own);
    if (tree_.switches.empty() && tree_.blocks.empty())
      throw InvalidInput(where_, "no switch and no block", "a topology with \"tree\" or \"block\"");
    tree_.no_rates = "topology.yaml names no rates";
    return topology_of(tree_, where_);
  }

 private:
  std::string at(const Yaml& value) const { return fmt::format("{}: line {}", where_, value.line); }
  void want(const Yaml& value, Yaml::Kind kind, const char* hint) const {
    if (value.kind == kind) return;
    const char* kinds[] = {"a text", "a map", "a list"};
    throw InvalidInput(at(value), kinds[static_cast<int>(value.kind)], hint);
  }
  // The map's value for each of `known`; nullptr where it is not there. Other keys are refused.
  template <std::size_t n>
  std::array<const Yaml*, n> keys(const Yaml& map, const std::array<const char*, n>& known) const {
    want(map, Yaml::Kind::map, "\"key: value\" lines");
    std::array<const Yaml*, n> out{};
    for (const auto& [key, value] : map.map) {
      const auto found = std::find(known.begin(), known.end(), key);
      if (found == known.end())
        throw InvalidInput(at(value), '"' + key + '"', fmt::format("known here: {}", fmt::join(known, ", ")));
      out[static_cast<std::size_t>(found - known.begin())] = &value;
    }
    return out;
  }
  const Yaml& list(const Yaml* value, const Yaml& parent, const char* key) const {
    if (value == nullptr) throw InvalidInput(at(parent), "missing", fmt::format("\"{}\"", key));
    want(*value, Yaml::Kind::list, "a list of \"- \" items");
    return *value;
  }
  std::string name(const Yaml* value, const Yaml& parent, const char* key) const {
    if (value == nullptr || value->kind != Yaml::Kind::text || value->text.empty())
      throw InvalidInput(at(parent), "missing", fmt::format("\"{}: name\"", key));
    return value->text;
  }
  std::vector<std::string> names(const Yaml* value) {
    std::vector<std::string> out;
    if (value == nullptr) return out;
    const std::size_t left = SwitchTree::kMostNames - std::min(SwitchTree::kMostNames, named_);
    if (value->kind == Yaml::Kind::list)
      for (const Yaml& item : value->list) add_host_list(item.text, at(item), left, out);
    else
      add_host_list(value->text, at(*value), left, out);
    named_ += out.size();
    return out;
  }

  void add_topology(const Yaml& own) {
    const auto [title, is_default, tree, block, flat] =
        keys<5>(own, {"topology", "cluster_default", "tree", "block", "flat"});
    name(title, own, "topology");
    if (tree != nullptr) {
      if (!tree_.switches.empty()) throw InvalidInput(at(*tree), "a second tree", "keep the one to be read");
      const auto [switches] = keys<1>(*tree, {"switches"});
      for (const Yaml& item : list(switches, *tree, "switches").list) {
        const auto [label, children, nodes] = keys<3>(item, {"switch", "children", "nodes"});
        const std::string called = name(label, item, "switch");
        std::vector<std::string> below = names(children), hosts = names(nodes);
        tree_.switches.push_back({called, at(item), std::move(below), std::move(hosts)});
      }
    }
    if (block != nullptr) {
      if (!tree_.blocks.empty()) throw InvalidInput(at(*block), "a second set of blocks", "keep the one to be read");
      const auto [sizes, blocks] = keys<2>(*block, {"block_sizes", "blocks"});
      for (const Yaml& item : list(blocks, *block, "blocks").list) {
        const auto [label, nodes] = keys<2>(item, {"block", "nodes"});
        tree_.blocks.push_back({name(label, item, "block"), at(item), names(nodes)});
      }
    }
  }

  const std::string& where_;
  std::size_t named_ = 0;
  SwitchTree tree_;
};

}  // namespace

bool is_slurm_yaml(std::string_view text) {
  while (true) {
    const std::size_t at = text.find_first_not_of(" \t\r\n");
    if (at == text.npos) return false;
    text.remove_prefix(at);
    if (text.front() != '#' && !text.starts_with("---")) break;
    text.remove_prefix(std::min(text.find('\n'), text.size()));
  }
  return text.starts_with("- topology:");
}

Topology read_slurm_yaml(std::string_view text, const std::string& where) {
  return SlurmYaml(where).read(read_yaml_subset(text, where));
}

}  // namespace topomoe
