// Random clusters for property tests: hosts (graph and rates), fabrics of every kind, dead links.
#pragma once

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "support.hpp"

namespace topomoe::test {

class Dice {
 public:
  explicit Dice(unsigned seed) : engine_(seed) {}
  int between(int low, int high) { return low + static_cast<int>(engine_() % static_cast<unsigned>(high - low + 1)); }
  bool coin() { return between(0, 1) == 1; }
  double GBps() { return between(1, 64) * 0.5; }

 private:
  std::mt19937 engine_;
};

// CPUs in a chain, a random forest of switches below, GPUs and NICs anywhere, random GPU-to-GPU links, perhaps a plane.
inline HostTemplate random_host(Dice& dice, const std::string& name) {
  HostTemplate host;
  host.name = name;
  host.nvlink = Presence::present;
  const auto add = [&](DeviceKind kind) {
    host.devices.push_back({kind, "d" + std::to_string(host.devices.size()), "", -1});
    return static_cast<int>(host.devices.size()) - 1;
  };
  const auto join = [&](int a, int b, LinkKind kind) {
    host.links.push_back({a, b, kind, dice.GBps(), dice.between(0, 4) * 0.25, Source::assumed, "", true});
  };
  std::vector<int> parents{add(DeviceKind::numa)};
  for (int i = dice.between(0, 2); i > 0; --i) {
    parents.push_back(add(DeviceKind::numa));
    join(parents.back(), parents[parents.size() - 2], LinkKind::cpu_interconnect);
  }
  const auto any_parent = [&] {
    return parents[static_cast<std::size_t>(dice.between(0, static_cast<int>(parents.size()) - 1))];
  };
  for (int i = dice.between(0, 4); i > 0; --i) {
    const int parent = any_parent();
    parents.push_back(add(DeviceKind::pci_switch));
    join(parents.back(), parent, LinkKind::pcie);
  }
  for (int i = dice.between(1, 6); i > 0; --i) {
    const int parent = any_parent();
    host.gpus.push_back(add(DeviceKind::gpu));
    join(host.gpus.back(), parent, LinkKind::pcie);
  }
  for (int i = 0, nics = dice.between(1, 4); i < nics; ++i) {
    const int parent = any_parent();
    const int nic = add(DeviceKind::nic);
    join(nic, parent, LinkKind::pcie);
    host.nics.push_back({nic, i, "", {dice.GBps(), 1, Source::assumed, ""}});
  }
  for (std::size_t a = 0; a < host.gpus.size(); ++a)
    for (std::size_t b = a + 1; b < host.gpus.size(); ++b)
      if (dice.between(0, 3) == 0) join(host.gpus[a], host.gpus[b], LinkKind::nvlink);
  if (dice.coin()) {
    const int plane = add(DeviceKind::nvswitch);
    for (const int gpu : host.gpus) join(gpu, plane, LinkKind::nvlink);
  }
  return host;
}

inline Topology random_cluster(unsigned seed) {
  Dice dice(seed);
  Topology topology;
  topology.name = "random";
  topology.templates = {random_host(dice, "a"), random_host(dice, "b")};
  topology.groups = {{0, dice.between(1, 4)}, {1, dice.between(1, 4)}};
  Fabric fabric;
  fabric.rails = 4;
  fabric.rail_optimised = dice.coin();
  fabric.hosts_per_leaf = dice.between(1, 4);
  fabric.spine_count = 1;
  fabric.uplink = {dice.GBps(), 2, Source::assumed, ""};
  topology.fabric = fabric;
  return topology;
}

// A fabric of a random kind over these hosts.
inline Fabric random_fabric(Dice& dice, int hosts, int rails, bool all_joined = false) {
  const auto rate = [&] { return Rate{dice.GBps(), 2, Source::assumed, ""}; };
  Fabric fabric;
  if (dice.between(0, 4) == 0) {
    fabric.kind = FabricKind::torus;
    for (int left = hosts; left > 1;) {
      int size = dice.between(2, left);
      while (left % size != 0) ++size;
      fabric.dims.push_back(size);
      left /= size;
    }
    fabric.ring = rate();
    return fabric;
  }
  fabric.rails = rails;
  fabric.rail_optimised = dice.coin();
  fabric.hosts_per_leaf = dice.between(1, 4);
  if (dice.between(0, 2) == 0) {  // leaves of different sizes
    for (int left = hosts; left > 0; left -= fabric.leaf_hosts.back())
      fabric.leaf_hosts.push_back(std::min(left, dice.between(1, fabric.hosts_per_leaf)));
  }
  fabric.spine_count = dice.between(1, 4);
  fabric.uplink = rate();
  if (dice.between(0, 3) == 0) fabric.planes = rails % 2 == 0 && dice.coin() ? 2 : rails;
  if (dice.coin()) {
    fabric.hosts_per_pod = fabric.hosts_per_leaf * dice.between(1, 2);
    if (dice.between(0, 2) == 0) {
      const int each = fabric.hosts_per_leaf;
      const int units =
          fabric.leaf_hosts.empty() ? (hosts + each - 1) / each : static_cast<int>(fabric.leaf_hosts.size());
      for (int left = units; left > 0; left -= fabric.pod_leaves.back())
        fabric.pod_leaves.push_back(std::min(left, dice.between(1, fabric.hosts_per_pod / each)));
    }
    if (dice.coin())
      fabric.kind = FabricKind::dragonfly_plus;
    else
      fabric.core_count = !all_joined && dice.between(0, 3) == 0 ? 0 : dice.between(1, 3);
    if (fabric.kind == FabricKind::dragonfly_plus || fabric.core_count > 0) fabric.pod_uplink = rate();
  }
  return fabric;
}

// Hosts of two random kinds, with several NICs a GPU or several GPUs a NIC, under a random fabric.
inline Topology random_fabric_cluster(unsigned seed) {
  Topology topology = random_cluster(seed);
  Dice dice(seed + 77);
  topology.groups = {{0, dice.between(1, 4)}, {1, dice.between(1, 3)}, {0, dice.between(1, 4)}};
  topology.fabric = random_fabric(dice, topology.host_count(), 4);
  return topology;
}

// Equal regular hosts, `gpus` each, perhaps in scale-up domains, under a random fabric that joins all of them.
inline Topology random_alike_cluster(unsigned seed, int gpus) {
  Dice dice(seed + 177);
  HostShape shape = small_shape();
  shape.gpus = gpus;
  const int hosts = dice.coin() ? 8 : 12;
  Topology topology = small_cluster(hosts, shape);
  if (dice.between(0, 2) == 0) topology.hosts_per_domain = dice.between(2, 4);
  topology.fabric = random_fabric(dice, hosts, 4, true);
  return topology;
}

// Some cables of the fabric dead, some degraded; any link id names one.
inline Topology with_random_exceptions(Topology topology, unsigned seed) {
  Dice dice(seed + 277);
  const Router router(topology);
  std::vector<std::string> names;
  for (int id = 0; id < router.link_count(); ++id) {
    const LinkInfo link = router.link(id);
    if (link.kind == LinkKind::leaf_spine || link.kind == LinkKind::pod_core || link.kind == LinkKind::group_group ||
        link.kind == LinkKind::ring)
      names.push_back(link.name);
  }
  if (names.empty()) return topology;
  for (int i = dice.between(1, 4); i > 0; --i)
    topology.fabric->exceptions.push_back(
        {names[static_cast<std::size_t>(dice.between(0, static_cast<int>(names.size()) - 1))], dice.coin() ? 0 : 0.5});
  return topology;
}

}  // namespace topomoe::test
