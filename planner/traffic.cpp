#include "planner/traffic.hpp"

#include <algorithm>

#include "topomoe/class_loads.hpp"

namespace topomoe {
namespace {

struct RankRange {
  int first, end;
};

// Ranks whose traffic may cross a link near `rank`.
RankRange neighbourhood(const Topology& t, const RankGroups& groups, int rank) {
  const int world = groups.layout().world;
  if (world <= 512) return {0, world};
  const auto ep = groups.members(Role::ep, rank);
  const int hosts_per_leaf = t.fabric ? t.fabric->hosts_per_leaf : 1;
  const int first_host = t.host_of(ep.front()) / hosts_per_leaf * hosts_per_leaf;
  const int last_host = std::min((t.host_of(ep.back()) / hosts_per_leaf + 1) * hosts_per_leaf, t.host_count()) - 1;
  int first = t.first_gpu_of_host(first_host), end = t.first_gpu_of_host(last_host) + t.gpus_per_host(last_host);
  if (t.hosts_per_domain > 1) {  // whole scale-up domains
    const int n = t.gpus_per_node();
    first = first / n * n, end = std::min((end + n - 1) / n * n, world);
  }
  // A strided EP group may reach far; its own leaf is then what its peers' leaves look like.
  constexpr int kMost = 2048;
  if (end - first > kMost) {
    const int host = t.host_of(rank) / hosts_per_leaf * hosts_per_leaf;
    first = t.first_gpu_of_host(host);
    end = std::min(first + hosts_per_leaf * t.gpus_per_host(host), world);
  }
  return {first, end};
}

}  // namespace

GroupLoad TrafficModel::weighted(const RankGroups& groups, Role role, int rank, const PairWeight& weight) const {
  const auto own = groups.members(role, rank);
  GroupLoad out;
  out.peers = static_cast<int>(own.size()) - 1;
  if (out.peers == 0) return out;
  LinkLoads loads(router_);
  add(loads, groups, role, rank, weight);
  for (const ClassLoad& c : loads.by_class())
    out.classes.push_back({c.klass, c.name, c.max_bytes, c.GBps_per_direction});
  return out;
}

void TrafficModel::add(LinkLoads& loads, const RankGroups& groups, Role role, int rank,
                       const PairWeight& weight) const {
  const auto [first, end] = neighbourhood(router_.topology(), groups, rank);
  for (int r = first; r < end; ++r)
    for (const int peer : groups.members(role, r)) {
      if (peer == r) continue;
      loads.add(r, peer, weight(r, peer));
      if (peer < first || peer >= end) loads.add(peer, r, weight(peer, r));
    }
}

namespace {

// The partition that these members are a group of, where it falls on whole hosts or whole hosts fall on it; ranks 0
// elsewhere. Groups of one role repeat the pattern over all ranks.
RankPattern pattern_of(std::span<const int> members, int world, int gpus_per_host) {
  const int group = static_cast<int>(members.size()), stride = members[1] - members[0];
  for (std::size_t i = 1; i < members.size(); ++i)
    if (members[i] - members[i - 1] != stride) return {};
  const int block = group * stride;
  if (world % block != 0 || (block % gpus_per_host != 0 && gpus_per_host % block != 0)) return {};
  return {world, group, stride};
}

}  // namespace

const GroupLoad& TrafficModel::equal(const RankGroups& groups, Role role, int rank) {
  // Members and the rank tell the pattern: groups of one role repeat it.
  const auto own = groups.members(role, rank);
  std::vector<int> key(own.begin(), own.end());
  key.push_back(rank);
  const auto found = known_.find(key);
  if (found != known_.end()) return found->second;
  const Topology& t = router_.topology();
  const int world = groups.layout().world;
  const RankPattern pattern =
      world > 512 && own.size() > 1 && t.uniform() ? pattern_of(own, world, t.gpus_per_host()) : RankPattern{};
  if (pattern.ranks == 0)
    return known_.emplace(std::move(key), weighted(groups, role, rank, [](int, int) { return 1.0; })).first->second;
  GroupLoad out;
  out.peers = static_cast<int>(own.size()) - 1;
  for (const ClassLoad& c : all_to_all_loads(router_, 1, pattern).by_class())
    out.classes.push_back({c.klass, c.name, c.max_bytes, c.GBps_per_direction});
  return known_.emplace(std::move(key), std::move(out)).first->second;
}

}  // namespace topomoe
