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
      by_rail[fabric.rail_optimised ? nic.rail : nic.rail % fabric.planes] += nic.port.GBps_per_direction;
    for (const auto& [rail, GBps] : by_rail) most = std::max(most, GBps);
  }
  return most * fabric.hosts_per_leaf;
}

double pod_uplink_GBps(const Topology& topology, const Fabric& fabric, double oversubscription) {
  const int units = fabric.hosts_per_pod / fabric.hosts_per_leaf;
  const int leaves = units * (fabric.rail_optimised ? fabric.rails : fabric.planes) / fabric.planes;
  double GBps = leaves * fabric.uplink.GBps_per_direction / oversubscription;
  if (fabric.kind == FabricKind::dragonfly_plus) {
    const int groups = (topology.host_count() + fabric.hosts_per_pod - 1) / fabric.hosts_per_pod;
    if (groups > 1) GBps /= groups - 1;
  }
  return GBps;
}

}  // namespace topomoe
