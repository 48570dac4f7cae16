// NetQ's topology graph, as topograph asks for it: devices with tiers, and bundles of cables between two of them.
//
// Model: switches have device_type "switch" (or a tier of 1 and more); of two devices the one of the higher tier is
// above. Switches of one tier that share what is below them are one layer of spines. Hosts on several leaves: leaves
// for rails, where the hosts below them are the same. Ignored: rates (NetQ says none), management links by eth0 alone,
// names of adapters.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

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

class NetqReader {
 public:
  explicit NetqReader(const std::string& where) : where_(where) {}

  Topology read(const Json& root) {
    if (!root.is_array() || root.empty())
      throw InvalidInput(where_, brief(root), "a list with one graph: [{links, nodes}]");
    if (root.size() > 1) throw InvalidInput(where_, fmt::format("{} graphs", root.size()), "keep the one to be read");
    JsonFields graph(root[0], where_ + ": [0]");
    for (const Json& group : graph.array("nodes")) {
      JsonFields own(group, where_ + ": nodes");
      for (const Json& device : own.array("compounded_nodes")) add_device(device);
    }
    for (const Json& link : graph.array("links")) add_link(link);
    find_groups();
    make_tree();
    Topology topology = topology_of(tree_, where_);
    set_counts(topology);
    for (const std::string& line : warnings_) add_warning(topology, line);
    require_valid(topology, where_);
    return topology;
  }

 private:
  struct Device {
    std::string id, name;
    int tier = 0;  // 0: a host
    int cables_up = 0;
    std::set<int> above, below;
  };
  [[noreturn]] void fail(const std::string& value, const std::string& hint) const {
    throw InvalidInput(where_, value, hint);
  }
  static std::size_t sized(int index) { return static_cast<std::size_t>(index); }
  Device& at(int index) { return devices_[sized(index)]; }

  void add_device(const Json& value) {
    JsonFields own(value, where_ + ": compounded_nodes");
    Device device{own.text("id"), own.text("name", ""), 0, 0, {}, {}};
    if (device.name.empty()) device.name = device.id;
    const std::string type = own.text("device_type", "");
    const int tier = own.integer("tier");
    if (type == "switch" && tier < 1)
      throw InvalidInput(own.path("tier"), std::to_string(tier),
                         fmt::format("switch \"{:.80}\" has a tier of 1 or more", device.name));
    if (tier > 0 && (type == "switch" || type.empty())) device.tier = tier;
    if (tier > 16) throw InvalidInput(own.path("tier"), std::to_string(tier), "at most 16 tiers");
    if (devices_.size() >= SwitchTree::kMostNames) fail("too many devices", "at most 1,000,000");
    if (!number_.emplace(device.id, static_cast<int>(devices_.size())).second)
      throw InvalidInput(own.path("id"), '"' + device.id + '"', "another device has this id");
    devices_.push_back(std::move(device));
  }

  // "node9:swp17s0-*-node12:ens4f0np0"
  static bool is_management(const std::string& id) {
    const std::size_t middle = id.find("-*-");
    return middle != id.npos && (id.substr(0, middle).ends_with(":eth0") || id.ends_with(":eth0"));
  }

  void add_link(const Json& value) {
    JsonFields own(value, where_ + ": links");
    const std::string id = own.text("id");
    const std::size_t middle = id.find("-*-");
    const auto a = number_.find(id.substr(0, middle));
    const auto b = middle == id.npos ? number_.end() : number_.find(id.substr(middle + 3));
    if (a == number_.end() || b == number_.end())
      throw InvalidInput(own.path("id"), fmt::format("\"{:.80}\"", id), "two ids of devices with \"-*-\" between");
    int cables = 0, management = 0;
    if (own.has("compounded_links"))
      for (const Json& cable : own.array("compounded_links")) {
        JsonFields part(cable, own.path("compounded_links"));
        is_management(part.text("id")) ? ++management : ++cables;
      }
    if (cables == 0 && management > 0) {
      ++management_;
      return;
    }
    const bool first_above = at(a->second).tier > at(b->second).tier;
    const int upper = first_above ? a->second : b->second, lower = first_above ? b->second : a->second;
    if (at(upper).tier == at(lower).tier)
      fail(fmt::format("\"{:.80}\" and \"{:.80}\", both of tier {}, are joined", at(upper).name, at(lower).name,
                       at(upper).tier),
           "a link leads from one tier to a higher one");
    at(upper).below.insert(lower);
    at(lower).above.insert(upper);
    at(lower).cables_up += std::max(cables, 1);
  }

  int root(int device) {
    while (joined_[sized(device)] != device) device = joined_[sized(device)] = joined_[sized(joined_[sized(device)])];
    return device;
  }

  // Switches of one tier that have something below them in common, from the lowest tier up.
  void find_groups() {
    int hosts = 0, alone = 0;
    for (std::size_t i = 0; i < devices_.size(); ++i) joined_.push_back(static_cast<int>(i));
    for (const Device& own : devices_) {
      hosts += own.tier == 0 && !own.above.empty() ? 1 : 0;
      alone += own.above.empty() && own.below.empty() ? 1 : 0;
    }
    if (hosts == 0) fail("no host with a link to a switch", "hosts are devices below tier 1");
    if (alone > 0) warnings_.push_back(fmt::format("{} devices without a link: left out", alone));
    if (management_ > 0) warnings_.push_back(fmt::format("{} management links (eth0): left out", management_));
    for (int tier = 0; tier <= 16; ++tier) {
      std::map<int, std::map<int, int>> first;  // of what is below and one, the first above it, by tier
      for (std::size_t i = 0; i < devices_.size(); ++i)
        if (devices_[i].tier == tier)
          for (const int upper : devices_[i].above) {
            const auto [found, fresh] = first[root(static_cast<int>(i))].emplace(at(upper).tier, upper);
            if (!fresh) joined_[sized(root(upper))] = root(found->second);
          }
    }
  }

  void make_tree() {
    tree_.no_rates = "NetQ names no rates";
    std::map<int, std::vector<int>> groups;
    for (std::size_t i = 0; i < devices_.size(); ++i)
      if (devices_[i].tier > 0 && !(devices_[i].above.empty() && devices_[i].below.empty()))
        groups[root(static_cast<int>(i))].push_back(static_cast<int>(i));
    int empty = 0;
    for (auto& [group, members] : groups) {
      std::set<int> children;
      std::set<std::string> hosts;
      std::set<int> host_devices;
      for (const int member : members)
        for (const int lower : at(member).below) {
          if (at(lower).tier > 0) {
            children.insert(root(lower));
          } else if (host_devices.insert(lower).second) {
            if (const auto [other, fresh] = leaf_of_.emplace(lower, members[0]); !fresh)
              fail(fmt::format("\"{:.80}\" is below \"{:.80}\" and \"{:.80}\", switches of two tiers", at(lower).name,
                               at(other->second).name, at(members[0]).name),
                   "hosts on leaves of one tier");
            if (!hosts.insert(at(lower).name).second || !host_names_.insert(at(lower).name).second)
              fail('"' + at(lower).name + '"', "two hosts of this name");
          }
        }
      if (children.empty() && hosts.empty()) {
        ++empty;
        continue;
      }
      std::string name = at(members[0]).name;
      if (members.size() > 1 && hosts.empty()) name += fmt::format(" and {} more", members.size() - 1);
      if (!hosts.empty()) {
        if (members.size() > 64) fail(fmt::format("{} leaves above the same hosts", members.size()), "at most 64");
        for (const int member : members)
          if (at(member).below.size() != hosts.size())
            fail(fmt::format("\"{:.80}\" has some of the hosts of \"{:.80}\", and not all", at(member).name,
                             at(members[0]).name),
                 "hosts on several leaves have all of them in common: a leaf for each rail");
        rails_of_[name] = members;
      } else {
        spines_[name] = static_cast<int>(members.size());
      }
      name_[group] = name;
      tree_.switches.push_back({name, where_, {}, {hosts.begin(), hosts.end()}});
      children_[name] = std::move(children);
    }
    for (SwitchTree::Switch& own : tree_.switches)
      for (const int child : children_.at(own.name))
        if (name_.count(child) > 0) own.switches.push_back(name_.at(child));
    if (empty > 0) warnings_.push_back(fmt::format("{} switches have no host below them: left out", empty));
    say_cables();
  }

  // How many cables lead up from each leaf: alike, or it is said.
  void say_cables() {
    std::string most, least;
    int high = 0, low = 0;
    for (const auto& [name, members] : rails_of_)
      for (const int member : members) {
        const int cables = at(member).cables_up;
        if (most.empty() || cables > high) high = cables, most = at(member).name;
        if (least.empty() || cables < low) low = cables, least = at(member).name;
      }
    if (high != low)
      warnings_.push_back(
          fmt::format("{} cables lead up from \"{}\" and {} from \"{}\"; what each carries NetQ does not say", high,
                      most, low, least));
  }

  // Of one name, how many switches; of a leaf of rails, which.
  void set_counts(Topology& topology) const {
    Fabric& fabric = *topology.fabric;
    std::size_t rails = 1;
    for (const auto& [name, members] : rails_of_) rails = std::max(rails, members.size());
    for (const auto& [name, members] : rails_of_)
      if (members.size() != rails)
        fail(fmt::format("hosts on {} leaves and hosts on {}", members.size(), rails), "all hosts on as many leaves");
    if (rails > 1) {
      std::vector<std::string> names;
      for (const std::string& unit : fabric.leaf_names)
        for (const int member : rails_of_.at(unit)) names.push_back(devices_[sized(member)].name);
      fabric.leaf_names = std::move(names);
      fabric.rails = static_cast<int>(rails);
      fabric.rail_optimised = true;
    }
    for (const std::string& pod : fabric.pod_names)
      if (const auto found = spines_.find(pod); found != spines_.end())
        fabric.spine_count = std::max(fabric.spine_count, found->second);
    for (const auto& [name, count] : spines_)
      if (fabric.core_count > 0 &&
          std::find(fabric.pod_names.begin(), fabric.pod_names.end(), name) == fabric.pod_names.end())
        fabric.core_count = std::max(fabric.core_count, count);
  }

  const std::string& where_;
  std::vector<Device> devices_;
  std::map<std::string, int> number_;
  std::vector<int> joined_;
  SwitchTree tree_;
  std::map<int, std::string> name_;  // of groups
  std::map<std::string, std::set<int>> children_;
  std::map<std::string, std::vector<int>> rails_of_;  // leaves, by the name of their unit
  std::map<std::string, int> spines_;                 // switches in a layer, by its name
  std::set<std::string> host_names_;
  std::map<int, int> leaf_of_;  // of hosts
  std::vector<std::string> warnings_;
  int management_ = 0;
};

}  // namespace

Topology read_topograph_netq(std::string_view text, const std::string& where) {
  return NetqReader(where).read(parse_description(text, where));
}

}  // namespace topomoe
