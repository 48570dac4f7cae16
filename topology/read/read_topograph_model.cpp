// topograph's simulation models (YAML): switches over switches, blocks of nodes below them.
//
// Model: blocks name their switch and, as an annotation, their accelerated domain: hosts of one domain are a block of
// the tree (a scale-up domain where all are of one size). The forms before it are read too: nodes and capacity_blocks
// as maps, or all as lists with names. Ignored: labels of regions and zones, types of instances, sub-domains (a
// warning).
#include <fmt/format.h>

#include <array>
#include <map>
#include <set>

#include "topology/read/host_list.hpp"
#include "topology/read/readers.hpp"
#include "topology/read/switch_tree.hpp"
#include "topology/read/topograph.hpp"
#include "topology/read/yaml_subset.hpp"
#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

class Model {
 public:
  explicit Model(const std::string& where) : where_(where) {}

  Topology read(const Yaml& root) {
    want(root, Yaml::Kind::map, "\"switches:\", \"blocks:\"");
    refuse_others(root, {"switches", "blocks", "nodes", "capacity_blocks"});
    if (const Yaml* switches = root.find("switches"))
      each(*switches, "name", [&](const std::string& name, const Yaml& own) { add_switch(name, own); });
    if (const Yaml* blocks = root.find("capacity_blocks"))
      each(*blocks, "name", [&](const std::string& name, const Yaml& own) { add_capacity_block(name, own); });
    if (const Yaml* nodes = root.find("nodes"))
      each(*nodes, "name", [&](const std::string& name, const Yaml& own) { add_node(name, own); });
    if (const Yaml* blocks = root.find("blocks")) {
      want(*blocks, Yaml::Kind::list, "a list of \"- switch: name\" items");
      for (const Yaml& own : blocks->list) add_block(own);
    }
    place();
    tree_.no_rates = "a topograph model names no rates";
    tree_.blocks_may_differ = true;
    Topology topology = topology_of(tree_, where_);
    if (sub_domains_ > 0)
      add_warning(topology, "sub-domains are not kept: hosts of one accelerated domain count as one scale-up domain");
    if (empty_ > 0) add_warning(topology, fmt::format("{} switches have nothing below them: left out", empty_));
    return topology;
  }

 private:
  struct Switch {
    std::string line;
    std::vector<std::string> switches, hosts, blocks;
  };
  std::string at(const Yaml& value) const { return fmt::format("{}: line {}", where_, value.line); }
  void want(const Yaml& value, Yaml::Kind kind, const char* hint) const {
    const char* kinds[] = {"a text", "a map", "a list"};
    if (value.kind != kind) throw InvalidInput(at(value), kinds[static_cast<int>(value.kind)], hint);
  }
  void refuse_others(const Yaml& map, const std::set<std::string>& known) const {
    for (const auto& [key, value] : map.map)
      if (known.count(key) == 0)
        throw InvalidInput(at(value), fmt::format("\"{:.80}\"", key), "no key of a topograph model here");
  }
  // Of a map of names, or a list of maps with a name each.
  template <class Each>
  void each(const Yaml& all, const char* key, Each call) {
    if (all.kind == Yaml::Kind::text && all.text.empty()) return;
    if (all.kind == Yaml::Kind::list) {
      for (const Yaml& own : all.list) {
        want(own, Yaml::Kind::map, "\"- name: ...\"");
        call(text(own, key), own);
      }
    } else {
      want(all, Yaml::Kind::map, "a map of names, or a list");
      for (const auto& [name, own] : all.map) {
        if (own.kind != Yaml::Kind::text || !own.text.empty()) want(own, Yaml::Kind::map, "\"key: value\" lines");
        call(name, own);
      }
    }
  }
  std::string text(const Yaml& map, const char* key) const {
    const Yaml* value = map.find(key);
    if (value == nullptr || value->kind != Yaml::Kind::text || value->text.empty())
      throw InvalidInput(at(map), "missing", fmt::format("\"{}: ...\"", key));
    return value->text;
  }
  std::vector<std::string> names(const Yaml& map, const char* key) {
    std::vector<std::string> out;
    const Yaml* value = map.find(key);
    if (value == nullptr || (value->kind == Yaml::Kind::text && value->text.empty())) return out;
    want(*value, Yaml::Kind::list, "a list of names");
    for (const Yaml& item : value->list) {
      const std::size_t left = SwitchTree::kMostNames - std::min(SwitchTree::kMostNames, named_ + out.size());
      std::vector<std::string> own;
      want(item, Yaml::Kind::text, "a name");
      add_host_list(item.text, at(item), left, own);
      out.insert(out.end(), own.begin(), own.end());
    }
    named_ += out.size();
    return out;
  }
  // attributes: {nvlink}, or nvlink itself.
  std::string nvlink(const Yaml& map) const {
    const Yaml* attributes = map.find("attributes");
    const Yaml* own = attributes != nullptr ? attributes->find("nvlink") : map.find("nvlink");
    return own == nullptr ? "" : own->text;
  }

  void add_switch(const std::string& name, const Yaml& own) {
    refuse_others(own, {"name", "labels", "annotations", "metadata", "switches", "nodes", "capacity_blocks"});
    if (!number_.emplace(name, switches_.size()).second)
      throw InvalidInput(at(own), '"' + name + '"', "a switch of this name is there already");
    order_.push_back(name);
    switches_.push_back({at(own), names(own, "switches"), names(own, "nodes"), names(own, "capacity_blocks")});
  }

  void add_capacity_block(const std::string& name, const Yaml& own) {
    refuse_others(own, {"name", "type", "nvlink", "attributes", "nodes"});
    for (const std::string& host : names(own, "nodes")) {
      in_block_[name].push_back(host);
      add_host(host, nvlink(own), at(own));
    }
  }

  void add_node(const std::string& name, const Yaml& own) {
    refuse_others(own, {"name", "id", "type", "capacity_block", "attributes", "labels", "annotations"});
    add_host(name, nvlink(own), at(own));
  }

  void add_block(const Yaml& own) {
    want(own, Yaml::Kind::map, "\"switch:\" and \"nodes:\"");
    refuse_others(own, {"switch", "nodes", "labels", "annotations"});
    const std::vector<std::string> hosts = names(own, "nodes");
    if (hosts.empty()) throw InvalidInput(at(own), "no node", "a block has \"nodes:\"");
    std::string domain;
    if (const Yaml* annotations = own.find("annotations"))
      for (const auto& [key, value] : annotations->map) {
        if (key.ends_with("/domain")) domain = value.text;
        if (key.ends_with("/sub-domain")) ++sub_domains_;
      }
    for (const std::string& host : hosts) add_host(host, domain, at(own));
    if (own.find("switch") == nullptr) return;
    const auto found = number_.find(text(own, "switch"));
    // Leaves need no entry of their own where a switch above names them.
    if (found == number_.end() && !is_child(text(own, "switch")))
      throw InvalidInput(at(own), '"' + text(own, "switch") + '"', "no switch of this name");
    if (found == number_.end()) {
      number_.emplace(text(own, "switch"), switches_.size());
      order_.push_back(text(own, "switch"));
      switches_.push_back({at(own), {}, {}, {}});
    }
    std::vector<std::string>& below = switches_[number_.at(text(own, "switch"))].hosts;
    below.insert(below.end(), hosts.begin(), hosts.end());
  }
  bool is_child(const std::string& name) {
    if (children_.empty())
      for (const Switch& own : switches_) children_.insert(own.switches.begin(), own.switches.end());
    return children_.count(name) > 0;
  }

  // A host may stand in several sections; they name one domain.
  void add_host(const std::string& host, const std::string& domain, const std::string& line) {
    const auto [found, fresh] = domain_of_.emplace(host, domain);
    if (fresh) hosts_.push_back({host, line});
    if (!domain.empty() && found->second.empty()) found->second = domain;
    if (!domain.empty() && found->second != domain)
      throw InvalidInput(line, '"' + host + '"',
                         fmt::format("is in two domains, \"{:.80}\" and \"{:.80}\"", found->second, domain));
  }

  // Switches that have something below them, and the blocks.
  void place() {
    std::set<std::string> placed, children;
    for (Switch& own : switches_) {
      for (const std::string& block : own.blocks)
        if (const auto found = in_block_.find(block); found != in_block_.end())
          own.hosts.insert(own.hosts.end(), found->second.begin(), found->second.end());
        else
          throw InvalidInput(own.line, '"' + block + '"', "no capacity block of this name, or one without nodes");
      placed.insert(own.hosts.begin(), own.hosts.end());
    }
    for (std::size_t i = 0; i < switches_.size(); ++i) {
      Switch& own = switches_[i];
      std::erase_if(own.switches, [&](const std::string& child) { return !has_hosts(child, 0); });
      if (has_hosts(order_[i], 0))
        tree_.switches.push_back({order_[i], own.line, own.switches, own.hosts});
      else
        ++empty_;
    }
    std::map<std::string, std::size_t> block;
    for (const auto& [host, line] : hosts_) {
      if (!tree_.switches.empty() && placed.count(host) == 0)
        throw InvalidInput(line, '"' + host + '"', "is below no switch");
      const std::string& domain = domain_of_.at(host);
      if (domain.empty() && !tree_.switches.empty()) continue;
      const auto [found, fresh] = block.emplace(domain, tree_.blocks.size());
      if (fresh) tree_.blocks.push_back({domain, line, {}});
      tree_.blocks[found->second].hosts.push_back(host);
    }
    for (const std::string& host : placed)
      if (domain_of_.count(host) == 0 && !domain_of_.empty())
        throw InvalidInput(where_, '"' + host + '"', "is below a switch, and in no block nor among the nodes");
  }
  bool has_hosts(const std::string& name, int depth) {
    const auto known = has_hosts_.find(name);
    if (known != has_hosts_.end()) return known->second;
    const auto found = number_.find(name);
    if (found == number_.end() || depth > 64) return false;
    has_hosts_[name] = true;  // around a ring: topology_of names it
    const Switch own = switches_[found->second];
    bool any = !own.hosts.empty();
    for (const std::string& child : own.switches) any = has_hosts(child, depth + 1) || any;
    return has_hosts_[name] = any;
  }

  const std::string& where_;
  SwitchTree tree_;
  std::vector<Switch> switches_;
  std::vector<std::string> order_;
  std::map<std::string, std::size_t> number_;
  std::set<std::string> children_;
  std::map<std::string, bool> has_hosts_;
  std::map<std::string, std::vector<std::string>> in_block_;
  std::vector<std::pair<std::string, std::string>> hosts_;  // and where
  std::map<std::string, std::string> domain_of_;
  std::size_t named_ = 0;
  int sub_domains_ = 0, empty_ = 0;
};

}  // namespace

bool is_topograph_model(std::string_view text) {
  while (true) {
    const std::size_t at = text.find_first_not_of(" \t\r\n");
    if (at == text.npos) return false;
    text.remove_prefix(at);
    if (text.front() != '#' && !text.starts_with("---")) break;
    text.remove_prefix(std::min(text.find('\n'), text.size()));
  }
  for (const char* key : {"switches:", "blocks:", "capacity_blocks:", "nodes:"})
    if (text.starts_with(key)) return true;
  return false;
}

Topology read_topograph_model(std::string_view text, const std::string& where) {
  return Model(where).read(read_yaml_subset(text, where));
}

}  // namespace topomoe
