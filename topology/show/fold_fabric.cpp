// Which leaves and pods are alike.
#include <algorithm>
#include <map>
#include <tuple>

#include "topology/router_state.hpp"
#include "topology/show/draw_fabric.hpp"

namespace topomoe {
namespace {

// Hosts first .. end-1 by template.
std::vector<std::pair<int, int>> hosts_by_template(const Topology& topology, int first, int end) {
  std::map<int, int> found;
  int host = 0;
  for (const HostGroup& group : topology.groups) {
    const int own = std::min(end, host + group.count) - std::max(first, host);
    if (own > 0) found[group.template_index] += own;
    host += group.count;
  }
  return {found.begin(), found.end()};
}

}  // namespace

FoldedFabric fold_fabric(const Router& router, const DrawnLoad& load) {
  using Top = FabricMap::Top;
  const Router::State& state = router.state();
  const FabricMap& map = state.fabric;
  FoldedFabric out;
  std::map<std::vector<double>, int> pod_kinds;
  std::vector<int> kind_of_pod;
  for (int pod = 0; pod < map.pods; ++pod) {
    std::vector<double> factors;
    double share = -1;
    const auto take = [&](int id) {
      factors.push_back(map.factor(id));
      share = std::max(share, load.share(id));
    };
    for (int plane = 0; plane < map.planes; ++plane) {
      if (map.top == Top::core) take(map.pod_up(pod, plane)), take(map.pod_down(pod, plane));
      if (map.top == Top::mesh)
        for (int other = 0; other < map.pods; ++other)
          if (other != pod) take(map.between(pod, other, plane)), take(map.between(other, pod, plane));
    }
    std::sort(factors.begin(), factors.end());
    const auto [at, is_new] = pod_kinds.emplace(factors, static_cast<int>(out.pods.size()));
    if (is_new) out.pods.push_back({pod, 0, factors, -1});
    PodKind& kind = out.pods[static_cast<std::size_t>(at->second)];
    ++kind.pods;
    kind.share = std::max(kind.share, share);
    kind_of_pod.push_back(at->second);
  }
  for (std::size_t i = 0; i < out.pods.size(); ++i)
    if (out.pods[i].pods > out.pods[static_cast<std::size_t>(out.usual_pods)].pods)
      out.usual_pods = static_cast<int>(i);
  std::map<std::tuple<int, int, double, std::vector<std::pair<int, int>>>, std::size_t> leaf_kinds;
  for (int unit = 0; unit < map.units; ++unit) {
    const int end = std::min(map.first_host(unit + 1), map.hosts);
    const auto hosts = hosts_by_template(state.topology, map.first_host(unit), end);
    const int pod_kind = kind_of_pod[static_cast<std::size_t>(map.pod_of_unit(unit))];
    for (int rank = 0; rank < map.ranks; ++rank) {
      const int leaf = unit * map.ranks + rank;
      const bool linked = map.top != Top::none;
      const double factor = linked ? std::min(map.factor(map.leaf_up(leaf)), map.factor(map.leaf_down(leaf))) : 1;
      const int shown_rank = pod_kind == out.usual_pods || map.ranks == 1 ? rank : -1;
      const auto [at, is_new] = leaf_kinds.emplace(std::tuple(pod_kind, shown_rank, factor, hosts), out.leaves.size());
      if (is_new) out.leaves.push_back({pod_kind, shown_rank, leaf, 0, hosts, factor, -1, 0});
      LeafKind& kind = out.leaves[at->second];
      ++kind.leaves;
      if (linked) kind.share = std::max({kind.share, load.share(map.leaf_up(leaf)), load.share(map.leaf_down(leaf))});
    }
  }
  return out;
}

}  // namespace topomoe
