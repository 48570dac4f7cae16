// From ports and cables to leaves, spines and cores.
//
// Model: tiers as in ib_tiers.hpp. The uplinks of the leaf (pod) that has most are what each has; less is an exception.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "topology/counted.hpp"
#include "topology/fabric.hpp"
#include "topology/fabric_map.hpp"
#include "topology/names.hpp"
#include "topology/read/ib_graph.hpp"
#include "topology/read/ib_tiers.hpp"
#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

class IbBuilder {
 public:
  IbBuilder(const IbGraph& graph, const std::string& where) : graph_(graph), where_(where) {}

  Topology run() {
    topology_.name = std::filesystem::path(where_).stem().string();
    topology_.source = where_;
    topology_.warnings = graph_.warnings;
    if (graph_.ports.empty()) fail("no host", "no adapter with a cable to a switch; is the file whole?");
    tiers_ = tiers_of(graph_, where_, topology_.warnings);
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
  [[noreturn]] void fail(const std::string& found, const std::string& hint) const {
    throw InvalidInput(where_, found, hint);
  }
  void warn(const std::string& line) { add_warning(topology_, line); }
  std::string called(const std::string& guid) const { return IbTiers::called(graph_, guid); }

  // Hosts below the same leaves: each unit has one leaf, or one for each rail.
  void find_units() {
    std::map<std::string, int> rail_of, unit_of;
    for (const auto& [name, host] : tiers_.hosts)
      for (std::size_t i = 0; i < host.ports.size() && !tiers_.one_leaf; ++i) {
        const auto [known, fresh] = rail_of.emplace(host.ports[i]->leaf, host.rails[i]);
        if (!fresh && known->second != host.rails[i])
          fail(fmt::format("host \"{}\" is on several leaves, and {} has adapters of rails {} and {}", name,
                           called(known->first), known->second, host.rails[i]),
               "hosts with all adapters on one leaf, or a leaf for each rail, are modelled");
      }
    const int ranks = tiers_.one_leaf ? 1 : tiers_.rails;
    std::map<std::string, int> place;  // of switches in the file
    for (std::size_t i = 0; i < tiers_.leaves.size(); ++i) place[tiers_.leaves[i]] = static_cast<int>(i);
    for (const auto& [name, host] : tiers_.hosts) {
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
        std::string& slot = own.leaves[static_cast<std::size_t>(tiers_.one_leaf ? 0 : host.rails[i])];
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
    fabric.rails = tiers_.rails;
    fabric.rail_optimised = !tiers_.one_leaf;
    const bool has_cores = !tiers_.cores.empty();
    bool whole = true;
    for (Unit& unit : units_)
      for (const std::string& leaf : unit.leaves) {
        if (leaf.empty() || tiers_.spines_of.count(tiers_.root(leaf)) == 0) continue;
        if (unit.pod.empty()) unit.pod = tiers_.root(leaf);
        whole = whole && unit.pod == tiers_.root(leaf);
      }
    if (!whole) {
      const int planes = static_cast<int>(tiers_.spines_of.size());
      if (has_cores || tiers_.rails % planes != 0 || !rails_apart(planes))
        fail(fmt::format("{} groups of spines; some hosts have leaves below several of them", planes),
             "pods of whole hosts, or spines for each rail alone (or each so many-th), are modelled");
      fabric.planes = planes;
      if (planes > 64) fail(fmt::format("{} planes with spines of their own", planes), "at most 64");
    }
    pods_ = has_cores || (tiers_.spines_of.size() > 1 && whole);
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
    for (const auto& [pod, own] : tiers_.spines_of)
      fabric.spine_count = std::max(fabric.spine_count, static_cast<int>(own.size()));
    if (pods_) {
      const int units = *std::max_element(fabric.pod_leaves.begin(), fabric.pod_leaves.end());
      fabric.hosts_per_pod = fabric.hosts_per_leaf * units;
      fabric.core_count = static_cast<int>(tiers_.cores.size());
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
        if (!unit.leaves[rail].empty() &&
            plane_of.emplace(tiers_.root(unit.leaves[rail]), plane).first->second != plane)
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
    const IbTiers::Host& own = tiers_.hosts.at(name);
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
      host.name = counted(host.nics.size(), "adapter") + ", like " + name;
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
      for (const auto& [spine, cables] : tiers_.above[leaf_guids_[i]]) up[i] += cables.GBps;
    for (std::size_t i = 0; i < out.size(); ++i)
      for (const std::string& spine : tiers_.spines_of[pod_guids_[i]])
        for (const auto& [core, cables] : tiers_.above[spine]) out[i] += cables.GBps;
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
      except(map.pod_up(static_cast<int>(i), 0), out[i], most_out,
             "pod of " + first_leaf(static_cast<std::size_t>(map.first_unit(static_cast<int>(i)) * map.ranks)));
  }

  // Of a unit, some rails may have none.
  std::string first_leaf(std::size_t from) const {
    return called(*std::find_if(leaf_guids_.begin() + static_cast<std::ptrdiff_t>(from), leaf_guids_.end(),
                                [](const std::string& guid) { return !guid.empty(); }));
  }

  struct Unit {
    std::vector<std::string> leaves, hosts;
    std::string pod;
    int place = 0;
  };
  const IbGraph& graph_;
  const std::string& where_;
  Topology topology_;
  IbTiers tiers_;
  std::vector<Unit> units_;
  std::vector<std::string> leaf_guids_, pod_guids_;
  bool pods_ = false;
};

}  // namespace

Topology topology_of(const IbGraph& graph, const std::string& where) { return IbBuilder(graph, where).run(); }

}  // namespace topomoe
