// Fabrics of the usual families over the hosts of a topology.
//
// Each builder takes the few numbers that make such a fabric, works out the rates of the upper tiers from the NICs
// below and an oversubscription for each tier, and refuses a number that does not fit, by its name. A scale-up domain
// is no fabric: it is Topology::hosts_per_domain. Ignored: how many ports a switch has. Counts of spines and cores only
// say what share one of them carries.
#pragma once

#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

// Two tiers; three where hosts_per_pod is given. All NICs of a host on one leaf of each plane.
struct FatTreeShape {
  int hosts_per_leaf = 0;
  int spine_count = 0;  // of a plane, or of a pod and plane
  double oversubscription = 1;
  int hosts_per_pod = 0, core_count = 0;
  double pod_oversubscription = 1;
  int planes = 1;
  double latency_us = 0;  // of an uplink
};
Fabric build_fat_tree(const Topology&, const FatTreeShape&);

// One leaf for each rail of each pod of hosts_per_leaf hosts. spine_count 0: rails of one pod only, joined by nothing.
// spine_over_rails: one layer of spines joins all leaves; otherwise each rail has its own (rail-only). hosts_per_pod: a
// third tier.
struct RailOptimisedShape {
  int hosts_per_leaf = 0;
  int spine_count = 0;  // of all rails together, or of each where spine_over_rails is off
  bool spine_over_rails = true;
  double oversubscription = 1;
  int planes = 1;  // rails split over parallel fabrics; with spine_over_rails only
  int hosts_per_pod = 0, core_count = 0;
  double pod_oversubscription = 1;
  double latency_us = 0;
};
Fabric build_rail_optimised(const Topology&, const RailOptimisedShape&);

// Groups of leaves and spines; each two groups joined by a link of what all others leave it.
struct DragonflyPlusShape {
  int hosts_per_leaf = 0;
  int hosts_per_group = 0;
  int spine_count = 0;  // of a group
  double oversubscription = 1, group_oversubscription = 1;
  double latency_us = 0;        // of an uplink
  double group_latency_us = 0;  // of a link between groups
};
Fabric build_dragonfly_plus(const Topology&, const DragonflyPlusShape&);

// The product of dims is the number of hosts; host = x + dims[0] * (y + dims[1] * (z + ...)).
struct TorusShape {
  std::vector<int> dims;
  Rate ring;
};
Fabric build_torus(const Topology&, const TorusShape&);

}  // namespace topomoe
