// Groups of ranks by what their number on each node comes to.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "planner/rates/collective.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

CollectiveGroup regular_group(int ranks_per_node, int nodes) {
  if (ranks_per_node < 1 || nodes < 1 || ranks_per_node > 10'000'000 / nodes)
    throw InvalidInput("group", fmt::format("{} ranks on each of {} nodes", ranks_per_node, nodes),
                       "both must be at least 1, and their product at most 10^7");
  return {ranks_per_node * nodes, nodes, ranks_per_node, ranks_per_node, {}};
}

CollectiveGroup first_gpus(const Topology& topology, int gpus) {
  if (gpus < 1 || gpus > topology.gpu_count())
    throw InvalidInput("gpus", std::to_string(gpus), fmt::format("1 to {}", topology.gpu_count()));
  CollectiveGroup group{gpus, 0, 0, gpus, {}};
  for (int left = gpus; left > 0; ++group.nodes) {
    const int here = std::min(left, topology.gpus_in_node(group.nodes));
    group.most = std::max(group.most, here), group.fewest = std::min(group.fewest, here);
    left -= here;
  }
  return group;
}

CollectiveGroup group_of(const Topology& topology, const std::vector<int>& gpus) {
  std::map<int, std::vector<int>> by_node;
  for (const int gpu : gpus) {
    if (gpu < 0 || gpu >= topology.gpu_count())
      throw InvalidInput("group", std::to_string(gpu), fmt::format("GPUs are 0 to {}", topology.gpu_count() - 1));
    by_node[topology.node_of(gpu)].push_back(gpu);
  }
  if (gpus.empty()) throw InvalidInput("group", "empty", "name at least one GPU");
  const int all = static_cast<int>(gpus.size());
  CollectiveGroup group{all, static_cast<int>(by_node.size()), 0, all, {}};
  for (auto& [node, ranks] : by_node) {
    std::sort(ranks.begin(), ranks.end());
    if (std::adjacent_find(ranks.begin(), ranks.end()) != ranks.end())
      throw InvalidInput("group", std::to_string(*std::adjacent_find(ranks.begin(), ranks.end())), "names a GPU twice");
    const int here = static_cast<int>(ranks.size());
    if (here > group.most) group.gpus = ranks;
    group.most = std::max(group.most, here), group.fewest = std::min(group.fewest, here);
  }
  return group;
}

}  // namespace topomoe
