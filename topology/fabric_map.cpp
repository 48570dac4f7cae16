#include "topology/fabric_map.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>

#include "topology/fabric.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

FabricMap::FabricMap(const Topology& topology, int first_link) {
  const Fabric& fabric = *topology.fabric;
  hosts = topology.host_count();
  first = first_link;
  std::int64_t links = 0;
  if (fabric.kind == FabricKind::torus) {
    top = Top::torus;
    dims = fabric.dims;
    units = hosts;
    links = 2 * std::int64_t{hosts} * static_cast<std::int64_t>(dims.size());
    first_upper = first;
  } else {
    rail_optimised = fabric.rail_optimised;
    planes = fabric.planes;
    hosts_per_unit = fabric.hosts_per_leaf;
    ranks = rail_optimised ? fabric.rails : planes;
    units = unit_count(fabric, hosts);
    units_per_pod = fabric.hosts_per_pod > 0 ? fabric.hosts_per_pod / hosts_per_unit : units;
    pods = pod_count(fabric, hosts);
    const auto firsts = [](const std::vector<int>& sizes, int usual) {
      std::vector<int> begins{0};
      for (const int size : sizes) begins.push_back(begins.back() + size);
      // The last may be smaller in a regular fabric, too.
      const bool even =
          sizes.empty() || (std::all_of(sizes.begin(), sizes.end() - 1, [&](int size) { return size == usual; }) &&
                            sizes.back() <= usual);
      return even ? std::vector<int>{} : begins;
    };
    unit_first = firsts(fabric.leaf_hosts, hosts_per_unit);
    pod_first = firsts(fabric.pod_leaves, units_per_pod);
    if (fabric.spine_count > 0) {
      top = fabric.hosts_per_pod == 0                   ? Top::spine
            : fabric.kind == FabricKind::dragonfly_plus ? Top::mesh
            : fabric.core_count == 0                    ? Top::pods
                                                        : Top::core;
      links = 2 * std::int64_t{units} * ranks;
      first_upper = first + static_cast<int>(std::min<std::int64_t>(links, std::numeric_limits<int>::max() / 2));
      if (top == Top::core) links += 2 * std::int64_t{pods} * planes;
      if (top == Top::mesh) links += std::int64_t{pods} * (pods - 1) * planes;
    }
  }
  if (first + links > std::numeric_limits<int>::max() / 2)
    throw InvalidInput(topology.name + ": links", std::to_string(first + links), "at most 10^9; take fewer hosts");
  end = first + static_cast<int>(links);

  // A cable of n loses 1/n for each that is dead; what is said of the whole cable scales what is left.
  std::map<int, std::pair<double, double>> effect;  // link -> (factor of the whole, sum of what parts lose)
  for (std::size_t i = 0; i < fabric.exceptions.size(); ++i) {
    const FabricException& exception = fabric.exceptions[i];
    const std::string field = topology.name + ": fabric.exceptions[" + std::to_string(i) + "].name";
    for (const NamedShare& named : fabric_links_named(*this, fabric, exception.name, field)) {
      auto& [whole, lost] = effect.emplace(named.link, std::pair(1.0, 0.0)).first->second;
      if (named.share == 1)
        whole *= exception.factor;
      else
        lost += (1 - exception.factor) * named.share;
    }
  }
  for (const auto& [link, both] : effect) {
    const double left = 1 - both.second;
    // Rounding must not leave a trickle where every part is dead.
    factors.emplace_back(link, left < 1e-9 ? 0 : both.first * left);
    any_dead = any_dead || factors.back().second == 0;
  }
}

double FabricMap::factor(int id) const {
  const auto at = std::lower_bound(factors.begin(), factors.end(), id,
                                   [](const std::pair<int, double>& own, int wanted) { return own.first < wanted; });
  return at != factors.end() && at->first == id ? at->second : 1;
}

int FabricMap::neighbour(int host, int dim, int direction) const {
  int stride = 1;
  for (int d = 0; d < dim; ++d) stride *= dims[static_cast<std::size_t>(d)];
  const int k = dims[static_cast<std::size_t>(dim)], place = host / stride % k;
  return host + ((direction == 0 ? (place + 1) % k : (place + k - 1) % k) - place) * stride;
}

int FabricMap::via(int from, int to, int plane) const {
  if (alive(between(from, to, plane))) return to;
  for (int i = 0; i < pods; ++i) {
    const int middle = (from + to + i) % pods;
    if (middle == from || middle == to) continue;
    if (alive(between(from, middle, plane)) && alive(between(middle, to, plane))) return middle;
  }
  return -1;
}

int FabricMap::ring_direction(int base, int stride, int dim, int a, int b) const {
  const int k = dims[static_cast<std::size_t>(dim)];
  const int up = (b - a + k) % k, down = k - up;
  const int wanted = up != down ? (up < down ? 0 : 1) : a % 2;
  if (!any_dead) return wanted;
  const auto lives = [&](int direction) {
    for (int place = a; place != b; place = direction == 0 ? (place + 1) % k : (place + k - 1) % k)
      if (!alive(ring(base + place * stride, dim, direction))) return false;
    return true;
  };
  if (lives(wanted)) return wanted;
  return lives(1 - wanted) ? 1 - wanted : -1;
}

bool FabricMap::joined(int src_host, int src_rank, int dst_host, int dst_rank) const {
  if (top == Top::torus) return !any_dead || visit_rings(src_host, dst_host, [](int) {});
  const int src_unit = unit_of(src_host), dst_unit = unit_of(dst_host);
  if (src_unit == dst_unit && src_rank == dst_rank) return true;
  const int plane = src_rank % planes;
  if (top == Top::none || dst_rank % planes != plane) return false;
  const int src_pod = pod_of_unit(src_unit), dst_pod = pod_of_unit(dst_unit);
  if (top == Top::pods && src_pod != dst_pod) return false;
  if (!any_dead) return true;
  if (!alive(leaf_up(src_unit * ranks + src_rank)) || !alive(leaf_down(dst_unit * ranks + dst_rank))) return false;
  if (top == Top::spine || src_pod == dst_pod) return true;
  if (top == Top::core) return alive(pod_up(src_pod, plane)) && alive(pod_down(dst_pod, plane));
  return via(src_pod, dst_pod, plane) >= 0;
}

}  // namespace topomoe
