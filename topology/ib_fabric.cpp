// From ports and cables to leaves, spines and cores.
//
// Model: a switch with hosts is a leaf, one next to a leaf a spine, one next to a spine a core. Leaves and spines that
// hang together are a pod. The uplinks of the leaf (pod) that has most are what each has; less is an exception.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include "topology/fabric.hpp"
#include "topology/fabric_map.hpp"
#include "topology/ib_graph.hpp"
#include "topology/names.hpp"
#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// "mlx5_2" before "mlx5_10".
bool natural_less(const std::string& a, const std::string& b) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  std::size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (digit(a[i]) && digit(b[j])) {
      std::size_t p = i, q = j;
      while (p < a.size() && digit(a[p])) ++p;
      while (q < b.size() && digit(b[q])) ++q;
      while (i < p && a[i] == '0') ++i;
      while (j < q && b[j] == '0') ++j;
      if (p - i != q - j) return p - i < q - j;
      const int order = a.compare(i, p - i, b, j, q - j);
      if (order != 0) return order < 0;
      i = p, j = q;
    } else {
      if (a[i] != b[j]) return a[i] < b[j];
      ++i, ++j;
    }
  }
  return a.size() - i != b.size() - j ? a.size() - i < b.size() - j : a < b;
}

class IbBuilder {
 public:
  IbBuilder(const IbGraph& graph, const std::string& where) : graph_(graph), where_(where) {}

  Topology run() {
    topology_.name = std::filesystem::path(where_).stem().string();
    topology_.source = where_;
    topology_.warnings = graph_.warnings;
    if (graph_.ports.empty()) fail("no host", "no adapter with a cable to a switch; is the file whole?");
    find_rails();
    find_tiers();
    find_pods();
    find_units();
    place();
    find_rates();
    if (!graph_.hosts_note.empty()) warn(graph_.hosts_note);
    update_oversubscription(topology_);
    require_valid(topology_, where_);
    for (const std::string& line : warnings_from_sources(topology_)) warn(line);
    return std::move(topology_);
  }

 private:
  struct Host {
    std::vector<const IbGraph::Port*> ports;
    std::vector<int> rails;
  };
  [[noreturn]] void fail(const std::string& found, const std::string& hint) const {
    throw InvalidInput(where_, found, hint);
  }
  void warn(const std::string& line) { add_warning(topology_, line); }
  std::string called(const std::string& guid) const {
    const std::string& name = graph_.switches.at(guid);
    return '"' + (name.empty() ? guid : name) + '"';
  }

  // By the adapters' names where they agree from host to host, else by their order.
  void find_rails() {
    std::set<std::string> all;
    std::size_t most = 0;
    for (const IbGraph::Port& port : graph_.ports) {
      hosts_[port.host].ports.push_back(&port);
      all.insert(port.name);
    }
    std::vector<std::string> names(all.begin(), all.end());
    std::sort(names.begin(), names.end(), natural_less);
    bool distinct = true, alike = true;
    for (auto& [name, host] : hosts_) {
      std::stable_sort(host.ports.begin(), host.ports.end(),
                       [](const auto* a, const auto* b) { return natural_less(a->name, b->name); });
      for (std::size_t i = 1; i < host.ports.size(); ++i)
        distinct = distinct && host.ports[i - 1]->name != host.ports[i]->name;
      alike = alike && (most == 0 || host.ports.size() == most);
      most = std::max(most, host.ports.size());
      for (const IbGraph::Port* port : host.ports) one_leaf_ = one_leaf_ && port->leaf == host.ports[0]->leaf;
    }
    const bool by_name = distinct && names.size() == most;
    if (!by_name && !alike && !one_leaf_)
      fail(fmt::format("hosts with different numbers of adapters, of {} names", names.size()),
           "which rail each is on cannot be told; name adapters alike on all hosts");
    rails_ = static_cast<int>(most);
    for (auto& [name, host] : hosts_)
      for (std::size_t i = 0; i < host.ports.size(); ++i)
        host.rails.push_back(static_cast<int>(
            by_name
                ? static_cast<std::size_t>(std::find(names.begin(), names.end(), host.ports[i]->name) - names.begin())
                : i));
  }

  void find_tiers() {
    for (const IbGraph::Port& port : graph_.ports) tier_[port.leaf] = 0;
    for (int tier = 0; tier < 3; ++tier)
      for (const auto& [ends, cables] : graph_.cables)
        for (const auto& [near, far] : {ends, std::pair(ends.second, ends.first)})
          if (tier_.count(near) > 0 && tier_.at(near) == tier) tier_.emplace(far, tier + 1);
    int apart = 0;
    for (const std::string& guid : graph_.order) {
      if (tier_.count(guid) == 0) {
        ++apart;
        continue;
      }
      if (tier_.at(guid) > 2)
        fail(called(guid) + " three switches above the hosts' leaves", "at most three tiers are modelled");
      by_tier_[tier_.at(guid)].push_back(guid);
    }
    if (apart > 0) warn(fmt::format("{} switches without a live cable to the others: left out", apart));
    const char* tiers[] = {"leaves", "spines", "cores"};
    for (const auto& [ends, cables] : graph_.cables) {
      if (tier_.count(ends.first) == 0) continue;
      const int a = tier_.at(ends.first), b = tier_.at(ends.second);
      if (a == b)
        fail(fmt::format("{} and {}, both {}, are joined directly", called(ends.first), called(ends.second), tiers[a]),
             "no tree of leaves, spines and cores; other networks are not read");
      const bool up = a < b;
      auto& own = (up ? above_[ends.first] : above_[ends.second])[up ? ends.second : ends.first];
      own = cables;
      if (!cables.known)
        warn(fmt::format("{} to {}: width or speed not known, counted as nothing", called(ends.first),
                         called(ends.second)));
    }
  }

  std::string root(const std::string& guid) {
    std::string at = guid;
    while (joined_.count(at) > 0) at = joined_.at(at);
    for (std::string next = guid; next != at;) next = std::exchange(joined_.at(next), at);  // short ways next time
    return at;
  }

  void find_pods() {
    for (const std::string& leaf : by_tier_[0])
      for (const auto& [spine, cables] : above_[leaf])
        if (const std::string a = root(leaf), b = root(spine); a != b) joined_[a] = b;
    for (const std::string& spine : by_tier_[1]) {
      const std::string pod = root(spine);
      spines_[pod].push_back(spine);
    }
  }

  // Hosts below the same leaves: each unit has one leaf, or one for each rail.
  void find_units() {
    std::map<std::string, int> rail_of, unit_of;
    for (const auto& [name, host] : hosts_)
      for (std::size_t i = 0; i < host.ports.size() && !one_leaf_; ++i) {
        const auto [known, fresh] = rail_of.emplace(host.ports[i]->leaf, host.rails[i]);
        if (!fresh && known->second != host.rails[i])
          fail(fmt::format("host \"{}\" is on several leaves, and {} has adapters of rails {} and {}", name,
                           called(known->first), known->second, host.rails[i]),
               "hosts with all adapters on one leaf, or a leaf for each rail, are modelled");
      }
    const int ranks = one_leaf_ ? 1 : rails_;
    std::map<std::string, int> place;  // of switches in the file
    for (std::size_t i = 0; i < by_tier_[0].size(); ++i) place[by_tier_[0][i]] = static_cast<int>(i);
    for (const auto& [name, host] : hosts_) {
      int unit = -1;
      for (const IbGraph::Port* port : host.ports)
        if (const auto known = unit_of.find(port->leaf); known != unit_of.end()) unit = known->second;
      if (unit < 0) {
        unit = static_cast<int>(units_.size());
        units_.push_back({std::vector<std::string>(static_cast<std::size_t>(ranks)), {}, "", 1 << 30});
      }
      Unit& own = units_[static_cast<std::size_t>(unit)];
      own.hosts.push_back(name);
      for (std::size_t i = 0; i < host.ports.size(); ++i) {
        const std::string& leaf = host.ports[i]->leaf;
        std::string& slot = own.leaves[static_cast<std::size_t>(one_leaf_ ? 0 : host.rails[i])];
        if ((!slot.empty() && slot != leaf) || unit_of.emplace(leaf, unit).first->second != unit)
          fail(fmt::format("host \"{}\" shares some of its leaves with other hosts, and not others", name),
               "hosts with all adapters on one leaf, or a leaf for each rail, are modelled");
        slot = leaf;
        own.place = std::min(own.place, place.at(leaf));
      }
    }
  }

  // Which pod a unit is in; of rails with spines of their own, which plane is its rail.
  void place() {
    Fabric fabric;
    fabric.rails = rails_;
    fabric.rail_optimised = !one_leaf_;
    const bool has_cores = !by_tier_[2].empty();
    bool whole = true;
    for (Unit& unit : units_)
      for (const std::string& leaf : unit.leaves) {
        if (leaf.empty() || spines_.count(root(leaf)) == 0) continue;
        if (unit.pod.empty()) unit.pod = root(leaf);
        whole = whole && unit.pod == root(leaf);
      }
    if (!whole) {
      const int planes = static_cast<int>(spines_.size());
      if (has_cores || rails_ % planes != 0 || !rails_apart(planes))
        fail(fmt::format("{} groups of spines; some hosts have leaves below several of them", planes),
             "pods of whole hosts, or spines for each rail alone (or each so many-th), are modelled");
      fabric.planes = planes;
      if (planes > 64) fail(fmt::format("{} planes with spines of their own", planes), "at most 64");
    }
    pods_ = has_cores || (spines_.size() > 1 && whole);
    std::map<std::string, int> pod_place;
    for (const Unit& unit : units_) {
      int& first = pod_place.emplace(unit.pod, unit.place).first->second;
      first = std::min(first, unit.place);
    }
    const auto key = [&](const Unit& unit) {
      // What reaches no spine is a pod of its own.
      return pods_ && !unit.pod.empty() ? std::tuple(pod_place[unit.pod], unit.pod, unit.place)
                                        : std::tuple(pods_ ? unit.place : 0, std::string(), unit.place);
    };
    std::sort(units_.begin(), units_.end(), [&](const Unit& a, const Unit& b) { return key(a) < key(b); });
    for (Unit& unit : units_) {
      std::sort(unit.hosts.begin(), unit.hosts.end(), natural_less);
      fabric.leaf_hosts.push_back(static_cast<int>(unit.hosts.size()));
      for (const std::string& leaf : unit.leaves) {
        leaf_guids_.push_back(leaf);
        fabric.leaf_names.push_back(leaf.empty() ? "" : graph_.switches.at(leaf));
      }
      if (pods_ && (fabric.pod_leaves.empty() || unit.pod.empty() || unit.pod != pod_guids_.back())) {
        fabric.pod_leaves.push_back(0);
        pod_guids_.push_back(unit.pod);
      }
      if (pods_) ++fabric.pod_leaves.back();
      for (const std::string& host : unit.hosts) add_host(host);
    }
    unique(fabric.leaf_names);
    fabric.hosts_per_leaf = *std::max_element(fabric.leaf_hosts.begin(), fabric.leaf_hosts.end());
    for (const auto& [pod, own] : spines_)
      fabric.spine_count = std::max(fabric.spine_count, static_cast<int>(own.size()));
    if (pods_) {
      const int units = *std::max_element(fabric.pod_leaves.begin(), fabric.pod_leaves.end());
      fabric.hosts_per_pod = fabric.hosts_per_leaf * units;
      fabric.core_count = static_cast<int>(by_tier_[2].size());
      if (std::all_of(fabric.pod_leaves.begin(), fabric.pod_leaves.end() - 1, [&](int n) { return n == units; }))
        fabric.pod_leaves.clear();
    }
    if (std::all_of(fabric.leaf_hosts.begin(), fabric.leaf_hosts.end() - 1,
                    [&](int n) { return n == fabric.hosts_per_leaf; }))
      fabric.leaf_hosts.clear();
    topology_.fabric = std::move(fabric);
  }

  // Whether each group of spines has the leaves of one plane alone: rails r, r + planes, ...
  bool rails_apart(int planes) {
    std::map<std::string, std::size_t> plane_of;
    for (const Unit& unit : units_)
      for (std::size_t rail = 0; rail < unit.leaves.size(); ++rail) {
        const std::size_t plane = rail % static_cast<std::size_t>(planes);
        if (!unit.leaves[rail].empty() && plane_of.emplace(root(unit.leaves[rail]), plane).first->second != plane)
          return false;
      }
    return true;
  }

  // Names that two switches share name none of them.
  void unique(std::vector<std::string>& names) {
    std::map<std::string, int> seen;
    for (const std::string& name : names) ++seen[name];
    for (std::string& name : names)
      if (!name.empty() && seen[name] > 1) {
        warn(fmt::format("several switches are called \"{}\": they go by number", name));
        name.clear();
      }
  }

  void add_host(const std::string& name) {
    const Host& own = hosts_.at(name);
    HostTemplate host;
    host.devices = {{DeviceKind::numa, "numa0", "", -1, {}}};
    for (std::size_t i = 0; i < own.ports.size(); ++i) {
      if (own.ports[i]->GBps == 0)
        fail(fmt::format("host \"{}\" {}", name, own.ports[i]->name), "a known width and speed: 4xHDR");
      host.devices.push_back({DeviceKind::nic, fmt::format("nic{}", i), "", -1, {}});
      host.nics.push_back({static_cast<int>(i) + 1,
                           own.rails[i],
                           own.ports[i]->name,
                           {own.ports[i]->GBps, 0, Source::datasheet, "data rate of width and speed"},
                           {}});
    }
    int index = 0;
    for (; index < static_cast<int>(topology_.templates.size()); ++index) {
      host.name = topology_.templates[static_cast<std::size_t>(index)].name;
      if (topology_.templates[static_cast<std::size_t>(index)] == host) break;
    }
    if (index == static_cast<int>(topology_.templates.size())) {
      host.name = fmt::format("{} adapters, like {}", host.nics.size(), name);
      topology_.templates.push_back(host);
    }
    if (topology_.groups.empty() || topology_.groups.back().template_index != index)
      topology_.groups.push_back({index, 0});
    ++topology_.groups.back().count;
    topology_.host_names.push_back(name);
  }

  void find_rates() {
    Fabric& fabric = *topology_.fabric;
    if (fabric.spine_count == 0) return;
    const auto rate_of = [&](double GBps) {
      return GBps > 0 ? Rate{GBps, 0, Source::datasheet, "data rate of the cables of the leaf or pod that has most"}
                      : Rate{0, 0, Source::unknown, "no width and speed of a cable is known"};
    };
    std::vector<double> up(leaf_guids_.size()), out(pod_guids_.size());
    for (std::size_t i = 0; i < up.size(); ++i)
      for (const auto& [spine, cables] : above_[leaf_guids_[i]]) up[i] += cables.GBps;
    for (std::size_t i = 0; i < out.size(); ++i)
      for (const std::string& spine : spines_[pod_guids_[i]])
        for (const auto& [core, cables] : above_[spine]) out[i] += cables.GBps;
    const double most = *std::max_element(up.begin(), up.end());
    const double most_out = out.empty() ? 0 : *std::max_element(out.begin(), out.end());
    fabric.uplink = rate_of(most);
    if (fabric.core_count > 0) fabric.pod_uplink = rate_of(most_out);
    const FabricMap map(topology_, 0);
    const auto except = [&](int id, double own, double all, const std::string& label) {
      if (own >= all * (1 - 1e-9)) return;
      LinkInfo link;
      map.describe(fabric, id, link);
      fabric.exceptions.push_back({link.src + "->" + link.dst, own / all});
      warn(fmt::format("{} ({}) carries {} GB/s, others {}", fabric.exceptions.back().name, label, short_number(own, 2),
                       short_number(all, 2)));
    };
    for (std::size_t i = 0; i < up.size(); ++i)
      if (!leaf_guids_[i].empty()) except(map.leaf_up(static_cast<int>(i)), up[i], most, called(leaf_guids_[i]));
    for (std::size_t i = 0; i < out.size() && fabric.core_count > 0; ++i)
      except(
          map.pod_up(static_cast<int>(i), 0), out[i], most_out,
          "pod of " + called(leaf_guids_[static_cast<std::size_t>(map.first_unit(static_cast<int>(i)) * map.ranks)]));
  }

  struct Unit {
    std::vector<std::string> leaves, hosts;
    std::string pod;
    int place = 0;
  };
  const IbGraph& graph_;
  const std::string& where_;
  Topology topology_;
  std::map<std::string, Host> hosts_;
  std::map<std::string, int> tier_;
  std::vector<std::string> by_tier_[3];
  std::map<std::string, std::map<std::string, IbGraph::Cables>> above_;
  std::map<std::string, std::string> joined_;               // union of leaves and spines that hang together
  std::map<std::string, std::vector<std::string>> spines_;  // by the root of their union
  std::vector<Unit> units_;
  std::vector<std::string> leaf_guids_, pod_guids_;
  int rails_ = 1;
  bool one_leaf_ = true, pods_ = false;
};

}  // namespace

Topology topology_of(const IbGraph& graph, const std::string& where) { return IbBuilder(graph, where).run(); }

}  // namespace topomoe
