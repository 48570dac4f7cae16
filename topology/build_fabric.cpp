#include "topomoe/build_fabric.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "topology/fabric.hpp"
#include "topology/names.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

class Parameters {
 public:
  Parameters(const Topology& topology, const std::string& family) : topology_(topology), family_(family) {
    if (topology.host_count() < 1) fail("hosts", "0", "a fabric joins hosts");
  }
  [[noreturn]] void fail(const std::string& field, const std::string& value, const std::string& hint) const {
    throw InvalidInput(family_ + "." + field, value, hint);
  }
  void count(const std::string& field, int value, int low, int high = 1'000'000) const {
    if (value < low || value > high) fail(field, std::to_string(value), fmt::format("allowed: {} to {}", low, high));
  }
  void ratio(const std::string& field, double value) const {
    if (!(value >= 0.001) || value > 1000) fail(field, fmt::format("{}", value), "0.001 to 1000; 1 is non-blocking");
  }
  void latency(const std::string& field, double value) const {
    if (!(value >= 0) || value > 1e6) fail(field, fmt::format("{}", value), "0 to 1e6 microseconds");
  }
  void multiple(const std::string& field, int value, const std::string& of, int unit) const {
    if (value % unit != 0) fail(field, std::to_string(value), fmt::format("a multiple of {} ({})", of, unit));
  }

  // Rates from below: leaf uplinks from NICs, what leaves a pod from leaf uplinks.
  void derive_rates(Fabric& fabric, double latency_us, double pod_latency_us) const {
    const double down = leaf_down_GBps(topology_, fabric);
    if (!(down > 0)) fail("nics", "none", "give the host template \"nics\"");
    const auto rate = [](double GBps, double us, double ratio) {
      return Rate{GBps, us, Source::assumed, fmt::format("{}:1 oversubscription", short_number(ratio))};
    };
    if (fabric.spine_count > 0)
      fabric.uplink = rate(down / fabric.oversubscription, latency_us, fabric.oversubscription);
    if (fabric.hosts_per_pod > 0)
      fabric.pod_uplink = rate(pod_uplink_GBps(topology_, fabric, fabric.pod_oversubscription), pod_latency_us,
                               fabric.pod_oversubscription);
  }

  // The hosts with this fabric, checked as a whole.
  Fabric checked(const Fabric& fabric) const {
    Topology whole = topology_;
    whole.fabric = fabric;
    require_valid(whole, family_);
    return fabric;
  }

 private:
  const Topology& topology_;
  const std::string family_;
};

int rails_of(const Topology& topology) {
  int rails = 1;
  for (const HostTemplate& host : topology.templates)
    for (const Nic& nic : host.nics) rails = std::max(rails, nic.rail + 1);
  return rails;
}

void check_pods(const Parameters& p, int hosts_per_pod, int hosts_per_leaf, int core_count, double ratio) {
  p.count("hosts_per_pod", hosts_per_pod, 0, 10'000'000);
  if (hosts_per_pod == 0) {
    p.count("core_count", core_count, 0, 0);
    if (ratio != 1) p.fail("pod_oversubscription", fmt::format("{}", ratio), "give hosts_per_pod, or leave it 1");
    return;
  }
  p.multiple("hosts_per_pod", hosts_per_pod, "hosts_per_leaf", hosts_per_leaf);
  p.count("core_count", core_count, 1);
  p.ratio("pod_oversubscription", ratio);
}

// Leaves, spines and pods of either kind of tree; what tells the kinds apart is in `fabric` already.
template <class Shape>
Fabric tree(const Parameters& p, Fabric fabric, const Shape& shape) {
  fabric.hosts_per_leaf = shape.hosts_per_leaf;
  fabric.spine_count = shape.spine_count;
  fabric.oversubscription = shape.oversubscription;
  fabric.hosts_per_pod = shape.hosts_per_pod;
  fabric.core_count = shape.core_count;
  fabric.pod_oversubscription = shape.pod_oversubscription;
  p.derive_rates(fabric, shape.latency_us, shape.latency_us);
  return p.checked(fabric);
}

}  // namespace

Fabric build_fat_tree(const Topology& topology, const FatTreeShape& shape) {
  const Parameters p(topology, "fat_tree");
  p.count("hosts_per_leaf", shape.hosts_per_leaf, 1, 10'000'000);
  p.count("spine_count", shape.spine_count, 1);
  p.ratio("oversubscription", shape.oversubscription);
  p.count("planes", shape.planes, 1, std::min(64, rails_of(topology)));
  p.latency("latency_us", shape.latency_us);
  check_pods(p, shape.hosts_per_pod, shape.hosts_per_leaf, shape.core_count, shape.pod_oversubscription);
  Fabric fabric;
  fabric.rails = rails_of(topology);
  fabric.planes = shape.planes;
  return tree(p, fabric, shape);
}

Fabric build_rail_optimised(const Topology& topology, const RailOptimisedShape& shape) {
  const Parameters p(topology, "rail_optimised");
  const int rails = rails_of(topology);
  p.count("hosts_per_leaf", shape.hosts_per_leaf, 1, 10'000'000);
  p.count("spine_count", shape.spine_count, 0);
  p.ratio("oversubscription", shape.oversubscription);
  p.latency("latency_us", shape.latency_us);
  p.count("planes", shape.planes, 1, shape.spine_over_rails ? std::min(64, rails) : 1);
  if (rails % shape.planes != 0)
    p.fail("planes", std::to_string(shape.planes), fmt::format("a divisor of {} rails", rails));
  if (!shape.spine_over_rails) p.count("spine_over_rails: rails", rails, 1, 64);
  check_pods(p, shape.hosts_per_pod, shape.hosts_per_leaf, shape.core_count, shape.pod_oversubscription);
  Fabric fabric;
  fabric.rails = rails;
  fabric.rail_optimised = true;
  fabric.planes = shape.spine_over_rails ? shape.planes : rails;
  return tree(p, fabric, shape);
}

Fabric build_dragonfly_plus(const Topology& topology, const DragonflyPlusShape& shape) {
  const Parameters p(topology, "dragonfly_plus");
  p.count("hosts_per_leaf", shape.hosts_per_leaf, 1, 10'000'000);
  p.count("hosts_per_group", shape.hosts_per_group, 1, 10'000'000);
  p.multiple("hosts_per_group", shape.hosts_per_group, "hosts_per_leaf", shape.hosts_per_leaf);
  p.count("spine_count", shape.spine_count, 1);
  p.ratio("oversubscription", shape.oversubscription);
  p.ratio("group_oversubscription", shape.group_oversubscription);
  p.latency("latency_us", shape.latency_us);
  p.latency("group_latency_us", shape.group_latency_us);
  Fabric fabric;
  fabric.kind = FabricKind::dragonfly_plus;
  fabric.rails = rails_of(topology);
  fabric.hosts_per_leaf = shape.hosts_per_leaf;
  fabric.spine_count = shape.spine_count;
  fabric.oversubscription = shape.oversubscription;
  fabric.hosts_per_pod = shape.hosts_per_group;
  fabric.pod_oversubscription = shape.group_oversubscription;
  p.derive_rates(fabric, shape.latency_us, shape.group_latency_us);
  return p.checked(fabric);
}

Fabric build_torus(const Topology& topology, const TorusShape& shape) {
  const Parameters p(topology, "torus");
  Fabric fabric;
  fabric.kind = FabricKind::torus;
  fabric.dims = shape.dims;
  fabric.ring = shape.ring;
  return p.checked(fabric);
}

}  // namespace topomoe
