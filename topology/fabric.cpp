#include "topology/fabric.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "topology/counted.hpp"
#include "topology/fabric_map.hpp"
#include "topology/names.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

int unit_count(const Fabric& fabric, int hosts) {
  return fabric.leaf_hosts.empty() ? (hosts + fabric.hosts_per_leaf - 1) / fabric.hosts_per_leaf
                                   : static_cast<int>(fabric.leaf_hosts.size());
}

int pod_count(const Fabric& fabric, int hosts) {
  if (fabric.hosts_per_pod == 0) return 1;
  if (!fabric.pod_leaves.empty()) return static_cast<int>(fabric.pod_leaves.size());
  const int units_per_pod = fabric.hosts_per_pod / fabric.hosts_per_leaf;
  return (unit_count(fabric, hosts) + units_per_pod - 1) / units_per_pod;
}

std::vector<int> even_sizes(int all, int each) {
  std::vector<int> sizes(static_cast<std::size_t>((all + each - 1) / each), each);
  if (all % each != 0) sizes.back() = all % each;
  return sizes;
}

std::vector<int> unit_sizes(const Fabric& fabric, int hosts) {
  return fabric.leaf_hosts.empty() ? even_sizes(hosts, fabric.hosts_per_leaf) : fabric.leaf_hosts;
}

std::vector<int> pod_sizes(const Fabric& fabric, int hosts) {
  const int units = unit_count(fabric, hosts);
  return fabric.hosts_per_pod == 0    ? std::vector<int>{units}
         : !fabric.pod_leaves.empty() ? fabric.pod_leaves
                                      : even_sizes(units, fabric.hosts_per_pod / fabric.hosts_per_leaf);
}

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
    const int groups = pod_count(fabric, topology.host_count());
    if (groups > 1) GBps /= groups - 1;
  }
  return GBps;
}

void update_oversubscription(Topology& topology) {
  if (!topology.fabric || topology.fabric->spine_count == 0) return;
  Fabric& fabric = *topology.fabric;
  // Kept where it says the same but for rounding: 2 and not 1.9999999.
  const auto update = [](double& ratio, double exact) {
    if (exact > 0 && std::isfinite(exact) && std::abs(exact - ratio) > 1e-9 * ratio) ratio = exact;
  };
  update(fabric.oversubscription, leaf_down_GBps(topology, fabric) / fabric.uplink.GBps_per_direction);
  if (fabric.hosts_per_pod > 0)
    update(fabric.pod_oversubscription, pod_uplink_GBps(topology, fabric, 1) / fabric.pod_uplink.GBps_per_direction);
}

namespace {

// The first parts that make `all`, then full ones.
void fit(std::vector<int>& sizes, int all, int each) {
  if (sizes.empty()) return;
  int sum = 0;
  std::size_t kept = 0;
  while (kept < sizes.size() && sum < all) sum += sizes[kept++];
  sizes.resize(kept);
  if (sum > all) sizes.back() -= sum - all;
  for (; sum < all; sum += each) sizes.push_back(std::min(each, all - sum));
}

void fit(std::vector<std::string>& names, int count) {
  if (!names.empty()) names.resize(static_cast<std::size_t>(count));
}

}  // namespace

void fit_fabric(Topology& topology) {
  const int hosts = topology.host_count();
  fit(topology.host_names, hosts);
  if (!topology.fabric) return;
  if (topology.fabric->kind != FabricKind::torus) {
    Fabric& tree = *topology.fabric;
    fit(tree.leaf_hosts, hosts, tree.hosts_per_leaf);
    fit(tree.pod_leaves, unit_count(tree, hosts), tree.hosts_per_pod / tree.hosts_per_leaf);
    fit(tree.leaf_names, topology.leaf_count());
    fit(tree.pod_names, pod_count(tree, hosts));
  }
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

std::string sizes_words(const std::vector<int>& sizes, int usual) {
  if (sizes.empty()) return std::to_string(usual);
  const auto [least, most] = std::minmax_element(sizes.begin(), sizes.end());
  return *least == *most ? std::to_string(*most) : fmt::format("{} to {}", *least, *most);
}

std::string fabric_words(const Topology& topology) {
  const Fabric& fabric = *topology.fabric;
  std::string words;
  if (fabric.kind == FabricKind::torus) {
    words = fmt::format("torus of {} hosts", fmt::join(fabric.dims, " x "));
  } else {
    words = fmt::format("{}, {} of {}, {}:1 oversubscription", counted(fabric.spine_count, "spine"),
                        counted(topology.leaf_count(), "leaf", "leaves"),
                        counted(sizes_words(fabric.leaf_hosts, fabric.hosts_per_leaf), "host"),
                        short_number(fabric.oversubscription));
    if (fabric.planes > 1) words = fmt::format("{} planes; in each ", fabric.planes) + words;
    const int units_per_pod = fabric.hosts_per_pod / fabric.hosts_per_leaf;
    if (fabric.hosts_per_pod > 0)
      words += fabric.kind == FabricKind::dragonfly_plus
                   ? fmt::format("; groups of {}, {}:1 between them", counted(fabric.hosts_per_pod, "host"),
                                 short_number(fabric.pod_oversubscription))
               : fabric.core_count == 0
                   ? fmt::format("; pods of {}, not joined",
                                 counted(sizes_words(fabric.pod_leaves, units_per_pod), "leaf", "leaves"))
                   : fmt::format("; pods of {} under {}, {}:1", counted(fabric.hosts_per_pod, "host"),
                                 counted(fabric.core_count, "core"), short_number(fabric.pod_oversubscription));
  }
  if (!fabric.exceptions.empty()) words += "; " + counted(fabric.exceptions.size(), "exception");
  return words;
}

}  // namespace topomoe
