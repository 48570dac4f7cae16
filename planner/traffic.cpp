#include "planner/traffic.hpp"

#include <algorithm>
#include <array>

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
  const int first_host = t.hosts_beside(t.host_of(ep.front())).first;
  const int last_host = t.hosts_beside(t.host_of(ep.back())).end - 1;
  int first = t.first_gpu_of_host(first_host), end = t.first_gpu_of_host(last_host) + t.gpus_per_host(last_host);
  if (t.hosts_per_domain > 1) {  // whole scale-up domains
    const int n = t.gpus_per_node();
    first = first / n * n, end = std::min((end + n - 1) / n * n, world);
  }
  // A strided EP group may reach far; its own leaf is then what its peers' leaves look like.
  constexpr int kMost = 2048;
  if (end - first > kMost) {
    const HostRange beside = t.hosts_beside(t.host_of(rank));
    first = t.first_gpu_of_host(beside.first);
    end = std::min(first + (beside.end - beside.first) * t.gpus_per_host(beside.first), world);
  }
  return {first, end};
}

}  // namespace

namespace {

// Groups of one role repeat their pattern: the members' places tell it.
std::vector<int> pattern_key(const RankGroups& groups, Role role, int rank) {
  std::vector<int> key{static_cast<int>(role), rank, groups.layout().world};
  for (const Role r : {role, Role::ep}) {
    const auto members = groups.members(r, rank);
    key.push_back(static_cast<int>(members.size()));
    key.insert(key.end(), members.begin(), members.end());
  }
  return key;
}

}  // namespace

const TrafficModel::Crossings& TrafficModel::crossings(const RankGroups& groups, Role role, int rank) {
  const auto [at, fresh] = crossings_.try_emplace(pattern_key(groups, role, rank));
  Crossings& out = at->second;
  if (!fresh) return out;

  std::map<std::array<int, 3>, int> known;  // places of rank and peer in the EP group, of the peer in its own
  const auto pair_of = [&](int r, int peer) {
    const std::array<int, 3> places{groups.index_in(Role::ep, r), groups.index_in(Role::ep, peer),
                                    groups.index_in(role, peer)};
    const auto [pair, first] = known.try_emplace(places, static_cast<int>(out.pairs.size()));
    if (first) out.pairs.emplace_back(r, peer);
    return pair->second;
  };
  std::map<int, std::map<int, int>> of_link;  // flows by link
  LinkLoads loads(router_);                   // for the order of classes
  const auto cross = [&](int r, int peer) {
    loads.add(r, peer, 1);
    const int pair = pair_of(r, peer);
    for (const int link : router_.route(r, peer).links) ++of_link[link][pair];
  };
  const auto [first, end] = neighbourhood(router_.topology(), groups, rank);
  for (int r = first; r < end; ++r)
    for (const int peer : groups.members(role, r)) {
      if (peer == r) continue;
      cross(r, peer);
      if (peer < first || peer >= end) cross(peer, r);
    }
  for (const ClassLoad& c : loads.by_class()) out.classes.push_back(c.klass);
  std::map<std::pair<std::pair<int, double>, std::vector<std::pair<int, int>>>, std::size_t> alike;
  for (auto& [link, flows] : of_link) {
    const LinkInfo info = router_.link(link);
    const auto klass = std::find(out.classes.begin(), out.classes.end(), info.klass) - out.classes.begin();
    Crossings::Link row{static_cast<int>(klass), link, info.GBps_per_direction, {flows.begin(), flows.end()}};
    const auto [same, first_alike] = alike.try_emplace({{row.klass, row.GBps}, row.flows}, out.links.size());
    if (first_alike)
      out.links.push_back(std::move(row));
    else
      ++out.links[same->second].alike;
  }
  return out;
}

const GroupLoad& TrafficModel::weighted(const RankGroups& groups, Role role, int rank, std::uint64_t what,
                                        const PairWeight& weight) {
  const auto [at, fresh] = weighted_.try_emplace({pattern_key(groups, role, rank), what});
  const int peers = static_cast<int>(groups.members(role, rank).size()) - 1;
  if (fresh && peers > 0) at->second = load_of(crossings(groups, role, rank), peers, weight);
  return at->second;
}

GroupLoad TrafficModel::load_of(const Crossings& c, int peers, const PairWeight& weight) const {
  GroupLoad out;
  out.peers = peers;
  std::vector<double> of_pair;
  for (const auto& [r, peer] : c.pairs) of_pair.push_back(weight(r, peer));
  std::vector<const Crossings::Link*> worst(c.classes.size());
  std::vector<double> most(c.classes.size()), sum(c.classes.size()), carrying(c.classes.size());
  for (const Crossings::Link& link : c.links) {
    double units = 0;
    for (const auto& [pair, count] : link.flows) units += count * of_pair[static_cast<std::size_t>(pair)];
    const auto k = static_cast<std::size_t>(link.klass);
    if (units > 0) sum[k] += link.alike * units, carrying[k] += link.alike;
    if (units <= 0 || (worst[k] != nullptr && units / link.GBps <= most[k] / worst[k]->GBps)) continue;
    worst[k] = &link, most[k] = units;
  }
  for (std::size_t k = 0; k < worst.size(); ++k)
    if (worst[k] != nullptr)
      out.classes.push_back(
          {c.classes[k], router_.link(worst[k]->link).name, most[k], sum[k] / carrying[k], worst[k]->GBps});
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
    return known_.emplace(std::move(key), weighted(groups, role, rank, 0, [](int, int) { return 1.0; })).first->second;
  GroupLoad out;
  out.peers = static_cast<int>(own.size()) - 1;
  for (const ClassLoad& c : all_to_all_loads(router_, 1, pattern).by_class())
    out.classes.push_back({c.klass, c.name, c.max_bytes, c.max_bytes, c.GBps_per_direction});
  return known_.emplace(std::move(key), std::move(out)).first->second;
}

}  // namespace topomoe
