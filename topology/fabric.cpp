#include "topology/fabric.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "topology/fabric_map.hpp"
#include "topomoe/error.hpp"

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

void update_oversubscription(Topology& topology) {
  if (!topology.fabric || topology.fabric->spine_count == 0) return;
  Fabric& fabric = *topology.fabric;
  // Kept where it says the same but for rounding: 2 and not 1.9999999.
  const auto update = [](double& ratio, double exact) {
    if (exact > 0 && std::abs(exact - ratio) > 1e-9 * ratio) ratio = exact;
  };
  update(fabric.oversubscription, leaf_down_GBps(topology, fabric) / fabric.uplink.GBps_per_direction);
  if (fabric.hosts_per_pod > 0)
    update(fabric.pod_oversubscription, pod_uplink_GBps(topology, fabric, 1) / fabric.pod_uplink.GBps_per_direction);
}

void drop_lost_exceptions(Topology& topology) {
  if (!topology.fabric) return;
  Fabric& fabric = *topology.fabric;
  std::vector<FabricException> all;
  all.swap(fabric.exceptions);
  const FabricMap map(topology, 0);
  for (FabricException& own : all) {
    try {
      fabric_links_named(map, fabric, own.name, "fabric.exceptions");
    } catch (const InvalidInput&) {
      continue;
    }
    fabric.exceptions.push_back(std::move(own));
  }
}

}  // namespace topomoe
