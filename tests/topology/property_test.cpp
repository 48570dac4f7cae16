// Properties over random clusters: random hosts (graph and rates), random fabrics, random traffic.
#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <tuple>

#include "support.hpp"

namespace topomoe::test {
namespace {

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
HostTemplate random_host(Dice& dice, const std::string& name) {
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

Topology random_cluster(unsigned seed) {
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

std::vector<std::tuple<int, int, double>> random_flows(const Topology& topology, unsigned seed, int count = 60) {
  Dice dice(seed + 1000);
  std::vector<std::tuple<int, int, double>> flows;
  for (int i = 0; i < count; ++i)
    flows.emplace_back(dice.between(0, topology.gpu_count() - 1), dice.between(0, topology.gpu_count() - 1),
                       dice.between(0, 1000));
  return flows;
}

// The same routes on other rates: a bound is monotone for fixed routes, while a faster link may attract a route.
double bound(const Router& routes, const Router& rates, const std::vector<std::tuple<int, int, double>>& flows) {
  LinkLoads loads(routes);
  for (const auto& [src, dst, bytes] : flows) loads.add(src, dst, bytes);
  double seconds = 0;
  for (int id = 0; id < routes.link_count(); ++id)
    seconds = std::max(seconds, loads.bytes_on(id) / (rates.link_GBps_per_direction(id) * 1e9));
  return seconds;
}

void scale_rates(Topology& topology, double factor) {
  for (HostTemplate& host : topology.templates) {
    for (Link& link : host.links) link.GBps_per_direction *= factor;
    for (Nic& nic : host.nics) nic.port.GBps_per_direction *= factor;
  }
  topology.fabric->uplink.GBps_per_direction *= factor;
}

constexpr unsigned kClusters = 40;

TEST(Property, Routes_BeginAtTheSourceEndAtTheDestinationAndAreContinuous) {
  for (unsigned seed = 0; seed < kClusters; ++seed) {
    const Router router(random_cluster(seed));
    for (const auto& [src, dst, bytes] : random_flows(router.topology(), seed, 20)) {
      if (src == dst) continue;
      const Route route = router.route(src, dst);
      ASSERT_NE(route.path_class, PathClass::DIS) << seed;
      std::string at = router.topology().gpu_name(src);
      double least = 1e9, latency_us = 0;
      std::set<int> seen;
      for (const int id : route.links) {
        const LinkInfo link = router.link(id);
        EXPECT_EQ(link.src, at) << seed;
        EXPECT_EQ(link.id, id);
        EXPECT_TRUE(seen.insert(id).second) << "a route passes a link once";
        at = link.dst;
        least = std::min(least, link.GBps_per_direction);
        latency_us += link.latency_us;
      }
      EXPECT_EQ(at, router.topology().gpu_name(dst)) << seed;
      EXPECT_EQ(route.bottleneck_GBps, least);
      EXPECT_DOUBLE_EQ(route.latency_us, latency_us);
    }
  }
}

TEST(Property, EveryLink_HasAClassARateAndEndsOfItsOwn) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    const Router router(random_cluster(seed));
    std::set<std::pair<std::string, int>> names;
    for (int id = 0; id < router.link_count(); ++id) {
      const LinkInfo link = router.link(id);
      EXPECT_GT(link.GBps_per_direction, 0);
      EXPECT_EQ(link.GBps_per_direction, router.link_GBps_per_direction(id));
      EXPECT_NE(link.src, link.dst);
      EXPECT_FALSE(link.klass.empty());
    }
  }
}

TEST(Property, OneFasterLink_NeverRaisesTheBound) {
  for (unsigned seed = 0; seed < kClusters; ++seed) {
    const Topology topology = random_cluster(seed);
    const Router router(topology);
    const auto flows = random_flows(topology, seed);
    const double before = bound(router, router, flows);
    Dice dice(seed + 5);
    for (int i = 0; i < 5; ++i) {
      Topology faster = topology;
      HostTemplate& host = faster.templates[static_cast<std::size_t>(dice.between(0, 1))];
      const int which = dice.between(0, 2);
      if (which == 0) faster.fabric->uplink.GBps_per_direction *= 3;
      if (which == 1) host.nics[0].port.GBps_per_direction *= 3;
      if (which == 2)
        host.links[static_cast<std::size_t>(dice.between(0, static_cast<int>(host.links.size()) - 1))]
            .GBps_per_direction *= 3;
      EXPECT_LE(bound(router, Router(faster), flows), before) << seed;
    }
  }
}

TEST(Property, AllRatesTimesC_BoundOverC) {
  for (unsigned seed = 0; seed < kClusters; ++seed) {
    Topology topology = random_cluster(seed);
    const auto flows = random_flows(topology, seed);
    LinkLoads loads{Router(topology)};
    scale_rates(topology, 4);  // a power of two: exact
    LinkLoads scaled{Router(topology)};
    for (const auto& [src, dst, bytes] : flows) {
      loads.add(src, dst, bytes);
      scaled.add(src, dst, bytes);
    }
    EXPECT_DOUBLE_EQ(scaled.bottleneck().seconds * 4, loads.bottleneck().seconds) << seed;
    EXPECT_EQ(scaled.bottleneck().link, loads.bottleneck().link) << seed;
  }
}

TEST(Property, OrderOfAdds_DoesNotMatter) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    const Router router(random_cluster(seed));
    auto flows = random_flows(router.topology(), seed);
    LinkLoads forward(router), shuffled(router);
    for (const auto& [src, dst, bytes] : flows) forward.add(src, dst, bytes);
    std::shuffle(flows.begin(), flows.end(), std::mt19937(seed));
    for (const auto& [src, dst, bytes] : flows) shuffled.add(src, dst, bytes);
    for (int id = 0; id < router.link_count(); ++id) EXPECT_EQ(forward.bytes_on(id), shuffled.bytes_on(id));
  }
}

TEST(Property, RandomClusters_RoundTripThroughJson) {
  for (unsigned seed = 0; seed < 8; ++seed) {
    const Topology topology = random_cluster(seed);
    Topology consistent = topology;  // oversubscription must agree with the uplink; let the reader work it out
    const std::string text = write_cluster_json(consistent);
    const std::string key = "\"oversubscription\": 1,";
    std::string without = text;
    without.erase(without.find(key), key.size());
    const Topology read = read_cluster_json(without, "random");
    EXPECT_EQ(fingerprint(read), fingerprint(topology));
    EXPECT_EQ(write_cluster_json(read_cluster_json(write_cluster_json(read), "x")), write_cluster_json(read));
  }
}

}  // namespace
}  // namespace topomoe::test
