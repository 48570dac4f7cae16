#include "topology/read/ib_tiers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "topology/names.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

class TierFinder {
 public:
  TierFinder(const IbGraph& graph, const std::string& where, std::vector<std::string>& warnings)
      : graph_(graph), where_(where), warnings_(warnings) {}

  IbTiers run() {
    find_rails();
    find_tiers();
    find_pods();
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(const std::string& found, const std::string& hint) const {
    throw InvalidInput(where_, found, hint);
  }
  void warn(std::string line) { warnings_.push_back(std::move(line)); }

  // By the adapters' names where they agree from host to host, else by their order.
  void find_rails() {
    std::set<std::string> all;
    std::size_t most = 0;
    for (const IbGraph::Port& port : graph_.ports) {
      out_.hosts[port.host].ports.push_back(&port);
      all.insert(port.name);
    }
    std::vector<std::string> names(all.begin(), all.end());
    std::sort(names.begin(), names.end(), natural_less);
    bool distinct = true, alike = true;
    for (auto& [name, host] : out_.hosts) {
      std::stable_sort(host.ports.begin(), host.ports.end(),
                       [](const auto* a, const auto* b) { return natural_less(a->name, b->name); });
      for (std::size_t i = 1; i < host.ports.size(); ++i)
        distinct = distinct && host.ports[i - 1]->name != host.ports[i]->name;
      alike = alike && (most == 0 || host.ports.size() == most);
      most = std::max(most, host.ports.size());
      for (const IbGraph::Port* port : host.ports) out_.one_leaf = out_.one_leaf && port->leaf == host.ports[0]->leaf;
    }
    const bool by_name = distinct && names.size() == most;
    if (!by_name && !alike && !out_.one_leaf)
      fail(fmt::format("hosts with different numbers of adapters, of {} names", names.size()),
           "which rail each is on cannot be told; name adapters alike on all hosts");
    out_.rails = static_cast<int>(most);
    for (auto& [name, host] : out_.hosts)
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
        fail(IbTiers::called(graph_, guid) + " three switches above the hosts' leaves",
             "at most three tiers are modelled");
      (tier_.at(guid) == 0 ? out_.leaves : tier_.at(guid) == 1 ? out_.spines : out_.cores).push_back(guid);
    }
    if (apart > 0) warn(fmt::format("{} switches without a live cable to the others: left out", apart));
    const char* tiers[] = {"leaves", "spines", "cores"};
    for (const auto& [ends, cables] : graph_.cables) {
      if (tier_.count(ends.first) == 0) continue;
      const int a = tier_.at(ends.first), b = tier_.at(ends.second);
      if (a == b)
        fail(fmt::format("{} and {}, both {}, are joined directly", IbTiers::called(graph_, ends.first),
                         IbTiers::called(graph_, ends.second), tiers[a]),
             "no tree of leaves, spines and cores; other networks are not read");
      const bool up = a < b;
      auto& own = (up ? out_.above[ends.first] : out_.above[ends.second])[up ? ends.second : ends.first];
      own = cables;
      if (!cables.known)
        warn(fmt::format("{} to {}: width or speed not known, counted as nothing", IbTiers::called(graph_, ends.first),
                         IbTiers::called(graph_, ends.second)));
    }
  }

  // Of the union; the way there is short the next time.
  std::string root(const std::string& guid) {
    const std::string at = out_.root(guid);
    for (std::string next = guid; next != at;) next = std::exchange(out_.joined.at(next), at);
    return at;
  }

  void find_pods() {
    for (const std::string& leaf : out_.leaves)
      for (const auto& [spine, cables] : out_.above[leaf])
        if (const std::string a = root(leaf), b = root(spine); a != b) out_.joined[a] = b;
    for (const std::string& leaf : out_.leaves) root(leaf);
    for (const std::string& spine : out_.spines) out_.spines_of[root(spine)].push_back(spine);
  }

  const IbGraph& graph_;
  const std::string& where_;
  std::vector<std::string>& warnings_;
  std::map<std::string, int> tier_;
  IbTiers out_;
};

}  // namespace

const std::string& IbTiers::root(const std::string& guid) const {
  const std::string* at = &guid;
  for (auto next = joined.find(*at); next != joined.end(); next = joined.find(*at)) at = &next->second;
  return *at;
}

std::string IbTiers::called(const IbGraph& graph, const std::string& guid) {
  const std::string& name = graph.switches.at(guid);
  return '"' + (name.empty() ? guid : name) + '"';
}

IbTiers tiers_of(const IbGraph& graph, const std::string& where, std::vector<std::string>& warnings) {
  return TierFinder(graph, where, warnings).run();
}

}  // namespace topomoe
