#include "topology/fabric.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "topology/fabric_map.hpp"
#include "topology/names.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

double leaf_down_GBps(const Topology& topology, const Fabric& fabric) {
  double most = 0;
  for (const HostGroup& group : topology.groups) {
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

std::string fabric_words(const Topology& topology) {
  const Fabric& fabric = *topology.fabric;
  std::string words;
  if (fabric.kind == FabricKind::torus) {
    words = fmt::format("torus of {} hosts", fmt::join(fabric.dims, " x "));
  } else {
    words = fmt::format("{} spines, {} leaves of {} hosts, {}:1 oversubscription", fabric.spine_count,
                        topology.leaf_count(), fabric.hosts_per_leaf, short_number(fabric.oversubscription));
    if (fabric.planes > 1) words = fmt::format("{} planes; in each ", fabric.planes) + words;
    if (fabric.hosts_per_pod > 0)
      words += fabric.kind == FabricKind::dragonfly_plus
                   ? fmt::format("; groups of {} hosts, {}:1 between them", fabric.hosts_per_pod,
                                 short_number(fabric.pod_oversubscription))
                   : fmt::format("; pods of {} hosts under {} cores, {}:1", fabric.hosts_per_pod, fabric.core_count,
                                 short_number(fabric.pod_oversubscription));
  }
  if (!fabric.exceptions.empty()) words += fmt::format("; {} exceptions", fabric.exceptions.size());
  return words;
}

}  // namespace topomoe
