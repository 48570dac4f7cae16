#include "topology/fabric.hpp"

#include <algorithm>
#include <map>

namespace topomoe {

double leaf_down_GBps(const Topology& topology, const Fabric& fabric) {
  double most = 0;
  int hosts = 0;
  for (const HostGroup& group : topology.groups) {
    hosts += std::max(group.count, 0);
    std::map<int, double> by_rail;
    for (const Nic& nic : topology.templates[static_cast<std::size_t>(group.template_index)].nics)
      by_rail[fabric.rail_optimised ? nic.rail : 0] += nic.port.GBps_per_direction;
    for (const auto& [rail, GBps] : by_rail) most = std::max(most, GBps);
  }
  return most * fabric.hosts_per_leaf;
}

}  // namespace topomoe
