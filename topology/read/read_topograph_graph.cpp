// What topograph's graph engine writes: {"instances": [{"id", "network_layers": ["leaf", "spine"], ...}]}.
//
// Model: network_layers are switches, the closest first; hosts of one accelerated domain (attributes.nvlink, or a label
// that ends in "/domain") are a block. Ignored: types and other labels; sub-domains, with a warning.
#include <fmt/format.h>

#include <map>

#include "topology/read/json_fields.hpp"
#include "topology/read/json_text.hpp"
#include "topology/read/readers.hpp"
#include "topology/read/switch_tree.hpp"
#include "topology/read/topograph.hpp"
#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Json = JsonFields::Json;

class GraphReader {
 public:
  explicit GraphReader(const std::string& where) : where_(where) {}

  Topology read(const Json& root) {
    JsonFields fields(root, where_ + ": ");
    const Json& instances = fields.array("instances");
    for (std::size_t i = 0; i < instances.size(); ++i) add(instances[i], fmt::format("{}: instances[{}]", where_, i));
    if (tree_.switches.empty() && tree_.blocks.empty())
      throw InvalidInput(where_, "no network_layers and no domain", "at least one instance with either");
    tree_.no_rates = "topograph's graph names no rates";
    tree_.blocks_may_differ = true;
    Topology topology = topology_of(tree_, where_);
    if (sub_domains_)
      add_warning(topology, "sub-domains are not kept: hosts of one accelerated domain count as one scale-up domain");
    return topology;
  }

 private:
  void add(const Json& value, const std::string& path) {
    JsonFields own(value, path);
    const std::string id = own.text("id");
    if (++hosts_ > SwitchTree::kMostNames)
      throw InvalidInput(where_, fmt::format("more than {} instances", SwitchTree::kMostNames),
                         "no cluster has so many");
    const Json none = Json::array();
    const Json& layers = own.has("network_layers") ? own.array("network_layers") : none;
    if (layers.size() > 32) throw InvalidInput(own.path("network_layers"), "more than 32 tiers", "the closest first");
    std::string below;
    for (const Json& layer : layers) {
      if (!layer.is_string() || layer.get<std::string>().empty())
        throw InvalidInput(own.path("network_layers"), brief(layer), "names of switches, the closest first");
      const std::string name = layer.get<std::string>();
      const auto [found, fresh] = number_.emplace(name, tree_.switches.size());
      if (fresh) tree_.switches.push_back({name, path, {}, {}});
      if (below.empty()) {
        tree_.switches[found->second].hosts.push_back(id);
      } else if (const auto [up, first] = parent_.emplace(below, name); first) {
        tree_.switches[found->second].switches.push_back(below);
      } else if (up->second != name) {
        throw InvalidInput(own.path("network_layers"), '"' + below + '"',
                           fmt::format("is below both \"{:.80}\" and \"{:.80}\": no tree", up->second, name));
      }
      below = name;
    }
    if (layers.empty()) ++without_layers_;
    if (without_layers_ > 0 && !tree_.switches.empty())
      throw InvalidInput(path, "instances with network_layers and others without", "all have them, or none");
    const std::string domain = domain_of(own);
    if (domain.empty()) return;
    const auto [found, fresh] = block_.emplace(domain, tree_.blocks.size());
    if (fresh) tree_.blocks.push_back({domain, path, {}});
    tree_.blocks[found->second].hosts.push_back(id);
  }

  std::string domain_of(JsonFields& own) {
    std::string domain;
    for (const char* section : {"attributes", "labels"}) {
      if (!own.has(section)) continue;
      const Json& all = own.get(section);
      if (!all.is_object()) throw InvalidInput(own.path(section), brief(all), "must be an object { ... }");
      for (const auto& [key, value] : all.items()) {
        if (key.ends_with("/sub-domain")) sub_domains_ = true;
        if (key == "nvlink" || key.ends_with("/domain")) {
          if (!value.is_string()) throw InvalidInput(own.path(section) + "." + key, brief(value), "must be a text");
          domain = value.get<std::string>();
        }
      }
    }
    return domain;
  }

  const std::string& where_;
  SwitchTree tree_;
  std::map<std::string, std::size_t> number_, block_;
  std::map<std::string, std::string> parent_;
  std::size_t hosts_ = 0, without_layers_ = 0;
  bool sub_domains_ = false;
};

constexpr std::size_t kLook = 1U << 16;

}  // namespace

bool is_topograph_graph(std::string_view text) {
  text = text.substr(0, kLook);
  return text.starts_with('{') && text.find("\"instances\"") != text.npos && text.find("topomoe.") == text.npos;
}

bool is_topograph_netq(std::string_view text) {
  text = text.substr(0, kLook);
  return text.starts_with('[') &&
         (text.find("\"compounded_links\"") != text.npos || text.find("\"compounded_nodes\"") != text.npos);
}

Topology read_topograph_graph(std::string_view text, const std::string& where) {
  return GraphReader(where).read(parse_description(text, where));
}

}  // namespace topomoe
