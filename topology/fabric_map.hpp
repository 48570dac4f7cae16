// Where hosts stand in a fabric, how its directed links are numbered, and the links between two leaves: arithmetic on
// ids, no tables but the short list of links that are not as their kind says and, where leaves or pods differ in size,
// where each begins.
//
// Ids follow those of the hosts: up and down of each leaf, then up and down of each pod and plane (fat tree) or one
// link for each ordered pair of groups and plane (dragonfly+); torus: next and previous of each host and dimension.
// A ring of two hosts has one cable: of its four ids, two are used.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

struct FabricMap {
  enum class Top { none, spine, pods, core, mesh, torus };  // what stands above the leaves; pods: that nothing joins

  FabricMap() = default;
  FabricMap(const Topology& topology, int first_link);  // topology.fabric must be set

  Top top = Top::none;
  int hosts = 0, hosts_per_unit = 1, ranks = 1, planes = 1, units = 0, units_per_pod = 1, pods = 1;
  bool rail_optimised = false;
  std::vector<int> dims;
  std::vector<int> unit_first, pod_first;  // first host of each unit, first unit of each pod, and the end; empty: even
  int first = 0, first_upper = 0, end = 0;
  std::vector<std::pair<int, double>> factors;  // directed link id, factor; sorted
  bool any_dead = false;

  // A leaf's rank within its unit.
  int rank_of(int rail) const { return top == Top::torus ? 0 : rail_optimised ? rail : rail % planes; }
  int unit_of(int host) const { return unit_first.empty() ? host / hosts_per_unit : place_in(unit_first, host); }
  int pod_of_unit(int unit) const { return pod_first.empty() ? unit / units_per_pod : place_in(pod_first, unit); }
  int pod_of(int host) const { return pod_of_unit(unit_of(host)); }
  // Of the unit or pod after the last: its end, or a number beyond it.
  int first_host(int unit) const {
    return unit_first.empty() ? unit * hosts_per_unit : unit_first[static_cast<std::size_t>(std::min(unit, units))];
  }
  int first_unit(int pod) const {
    return pod_first.empty() ? pod * units_per_pod : pod_first[static_cast<std::size_t>(std::min(pod, pods))];
  }
  int first_host_of_pod(int pod) const { return first_host(first_unit(pod)); }
  int leaf_of(int host, int rail) const { return unit_of(host) * ranks + rank_of(rail); }

  int leaf_up(int leaf) const { return first + 2 * leaf; }
  int leaf_down(int leaf) const { return first + 2 * leaf + 1; }
  int pod_up(int pod, int plane) const { return first_upper + 2 * (pod * planes + plane); }
  int pod_down(int pod, int plane) const { return pod_up(pod, plane) + 1; }
  int between(int group, int other, int plane) const {
    return first_upper + (plane * pods + group) * (pods - 1) + (other < group ? other : other - 1);
  }
  // direction 0: to the next of the ring, 1: to the previous.
  int ring(int host, int dim, int direction) const {
    return first + (host * static_cast<int>(dims.size()) + dim) * 2 + direction;
  }
  int neighbour(int host, int dim, int direction) const;

  double factor(int id) const;
  bool alive(int id) const { return !any_dead || factor(id) > 0; }
  // The group to pass through on the way: `to` itself where the direct link lives; -1: no way.
  int via(int from, int to, int plane) const;
  // Whether the way from place a to place b of one ring of k goes up; -1: neither way lives. base: the ring's host 0.
  int ring_direction(int base, int stride, int dim, int a, int b) const;

  // Whether a packet gets from leaf rank to leaf rank; of a torus, from host to host.
  bool joined(int src_host, int src_rank, int dst_host, int dst_rank) const;
  // Calls visit(id) for each link on that way, which must exist.
  template <class Visit>
  void visit(int src_host, int src_rank, int dst_host, int dst_rank, Visit& visit) const;

  // Class, ends and rate of a link. Names: fabric_names.cpp.
  void describe(const Fabric& fabric, int id, LinkInfo& info) const;
  const Rate& rate(const Fabric& fabric, int id) const;
  std::string leaf_name(int host, int rail) const;  // the device at the other end of a NIC's port

 private:
  static int place_in(const std::vector<int>& firsts, int number) {
    return static_cast<int>(std::upper_bound(firsts.begin(), firsts.end(), number) - firsts.begin()) - 1;
  }
  template <class Visit>
  bool visit_rings(int src_host, int dst_host, Visit&& visit) const;
};

// The directed links that a name of an exception stands for, each with the share of its rate that the name covers (1,
// or 1/n for one of n). InvalidInput says what there is.
struct NamedShare {
  int link;
  double share;
};
std::vector<NamedShare> fabric_links_named(const FabricMap&, const Fabric&, const std::string& name,
                                           const std::string& field);

template <class Visit>
bool FabricMap::visit_rings(int src_host, int dst_host, Visit&& visit) const {
  int at = src_host, stride = 1;
  for (int dim = 0; dim < static_cast<int>(dims.size()); ++dim) {
    const int k = dims[static_cast<std::size_t>(dim)];
    const int a = at / stride % k, b = dst_host / stride % k;
    if (a != b) {
      const int base = at - a * stride;
      const int direction = ring_direction(base, stride, dim, a, b);
      if (direction < 0) return false;
      for (int place = a; place != b; place = direction == 0 ? (place + 1) % k : (place + k - 1) % k)
        visit(ring(base + place * stride, dim, direction));
      at = base + b * stride;
    }
    stride *= k;
  }
  return true;
}

template <class Visit>
void FabricMap::visit(int src_host, int src_rank, int dst_host, int dst_rank, Visit& visit) const {
  if (top == Top::torus) {
    visit_rings(src_host, dst_host, visit);
    return;
  }
  const int src_unit = unit_of(src_host), dst_unit = unit_of(dst_host);
  if (src_unit == dst_unit && src_rank == dst_rank) return;
  visit(leaf_up(src_unit * ranks + src_rank));
  const int src_pod = pod_of_unit(src_unit), dst_pod = pod_of_unit(dst_unit), plane = src_rank % planes;
  if (top != Top::spine && src_pod != dst_pod) {
    if (top == Top::core) {
      visit(pod_up(src_pod, plane));
      visit(pod_down(dst_pod, plane));
    } else {
      const int middle = via(src_pod, dst_pod, plane);
      visit(between(src_pod, middle, plane));
      if (middle != dst_pod) visit(between(middle, dst_pod, plane));
    }
  }
  visit(leaf_down(dst_unit * ranks + dst_rank));
}

}  // namespace topomoe
