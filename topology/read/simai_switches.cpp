#include "topology/read/simai_switches.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

namespace topomoe {
namespace {

using Kind = SimaiNetwork::Kind;
constexpr std::size_t kMostSwitchesOfEnd = 64;  // Assumed: of more, no island is looked for

template <class Visit>
void each_way(const SimaiNetwork& network, Visit visit) {
  for (const SimaiNetwork::Link& link : network.links) {
    const auto kind = [&](int node) { return network.nodes[static_cast<std::size_t>(node)]; };
    visit(link.src, kind(link.src), link.dst, kind(link.dst));
    visit(link.dst, kind(link.dst), link.src, kind(link.src));
  }
}

}  // namespace

void take_islands_as_nvswitches(SimaiNetwork& network) {
  std::map<int, std::set<int>> ends_of, switches_of;  // by switch, by end
  std::set<int> cabled;
  each_way(network, [&](int a, Kind of_a, int b, Kind of_b) {
    if (of_a != Kind::network_switch) return;
    if (of_b == Kind::end) {
      ends_of[a].insert(b);
      switches_of[b].insert(a);
    } else {
      cabled.insert(a);
    }
  });
  std::vector<int> islands;
  for (const auto& [own, ends] : ends_of) {
    const std::set<int>& candidates = switches_of.at(*ends.begin());
    if (cabled.count(own) > 0 || ends.size() < 2 || candidates.size() > kMostSwitchesOfEnd) continue;
    if (std::any_of(candidates.begin(), candidates.end(), [&](int other) {
          const std::set<int>& others = ends_of.at(other);
          return other != own && (cabled.count(other) > 0 || others.size() > ends.size()) &&
                 std::all_of(ends.begin(), ends.end(), [&](int end) { return others.count(end) > 0; });
        }))
      islands.push_back(own);
  }
  if (islands.empty()) return;
  const auto kind = [&](int node) -> Kind& { return network.nodes[static_cast<std::size_t>(node)]; };
  for (const int own : islands) kind(own) = Kind::nvswitch;
  std::erase_if(network.switches, [&](int own) { return kind(own) == Kind::nvswitch; });
  network.has_gpus = true;
  network.warnings.push_back(fmt::format(
      "{} switches (switch {} first) join only nodes that meet in other switches as well: they are taken as "
      "NVSwitches, and nodes as GPUs",
      islands.size(), islands[0]));
}

std::set<int> leaves_without_hosts(const SimaiNetwork& network) {
  std::map<int, int> place, above;  // in the file's list; union of leaves and spines that hang together
  for (const int own : network.switches) place.emplace(own, static_cast<int>(place.size()));
  for (const int own : network.switches) above[own] = own;
  const auto root = [&](int node) {
    for (int up = above.at(node); up != node; up = above.at(node)) {
      above[node] = above.at(up);
      node = up;
    }
    return node;
  };
  std::set<int> leaves, spines, out;
  each_way(network, [&](int a, Kind of_a, int, Kind of_b) {
    if (of_a == Kind::network_switch && of_b == Kind::end) leaves.insert(a);
  });
  each_way(network, [&](int a, Kind of_a, int b, Kind of_b) {
    if (of_a != Kind::network_switch || of_b != Kind::network_switch || leaves.count(a) == 0 || leaves.count(b) > 0)
      return;
    spines.insert(b);
    if (const int x = root(a), y = root(b); x != y) above[x] = y;
  });
  std::map<int, std::vector<int>> next_to;  // spines next to a switch that is neither
  each_way(network, [&](int a, Kind of_a, int b, Kind) {
    if (of_a == Kind::network_switch && spines.count(b) > 0 && spines.count(a) + leaves.count(a) == 0)
      next_to[a].push_back(b);
  });
  for (const auto& [own, next] : next_to)
    if (std::all_of(next.begin(), next.end(),
                    [&](int spine) { return root(spine) == root(next[0]) && place.at(own) < place.at(spine); }))
      out.insert(own);
  return out;
}

int gpus_in_name(const std::string& name) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  for (std::size_t at = 0; at < name.size(); ++at) {
    if (!digit(name[at])) continue;
    std::size_t end = at;
    int value = 0;
    for (; end < name.size() && digit(name[end]); ++end) value = std::min(value * 10 + (name[end] - '0'), 100'000'000);
    std::string_view rest = std::string_view(name).substr(end);
    if (rest.starts_with('_')) rest.remove_prefix(1);
    if (rest == "g" || rest.starts_with("g_") || rest.starts_with("gpu")) return value;
    at = end;
  }
  return -1;
}

}  // namespace topomoe
