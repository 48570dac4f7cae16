// Properties over random clusters: random hosts (graph and rates), random fabrics, random traffic.
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <tuple>

#include "random_cluster.hpp"
#include "support.hpp"

namespace topomoe::test {
namespace {

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

// On fabrics of every kind, with dead links: a route is continuous and alive, or there is none.
TEST(Property, RoutesAroundDeadLinks_AreContinuousAndAlive) {
  int found = 0, dead = 0;
  for (unsigned seed = 0; seed < 100; ++seed) {
    const Router router(with_random_exceptions(random_fabric_cluster(seed), seed));
    for (const FabricException& own : router.topology().fabric->exceptions) dead += own.factor == 0 ? 1 : 0;
    for (const auto& [src, dst, bytes] : random_flows(router.topology(), seed, 30)) {
      const Route route = router.route(src, dst);
      if (src == dst || route.path_class == PathClass::DIS) continue;
      ++found;
      std::string at = router.topology().gpu_name(src);
      for (const int id : route.links) {
        const LinkInfo link = router.link(id);
        EXPECT_EQ(link.src, at) << seed << " " << link.name;
        EXPECT_GT(link.GBps_per_direction, 0) << seed << " " << link.name;
        EXPECT_EQ(link.GBps_per_direction, router.link_GBps_per_direction(id));
        at = link.dst;
      }
      EXPECT_EQ(at, router.topology().gpu_name(dst)) << seed;
    }
  }
  EXPECT_GT(found, 1500);
  EXPECT_GT(dead, 40);
}

TEST(Property, RandomFabrics_RoundTripThroughJson) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    Topology topology = with_random_exceptions(random_fabric_cluster(seed), seed);
    nlohmann::json json = nlohmann::json::parse(write_cluster_json(topology));
    for (const char* key : {"oversubscription", "pod_oversubscription", "group_oversubscription"})
      json["fabric"].erase(key);  // the reader works them out
    const Topology read = read_cluster_json(json.dump(), "random");
    EXPECT_EQ(fingerprint(read), fingerprint(topology)) << seed;
    const std::string text = write_cluster_json(read);
    EXPECT_EQ(write_cluster_json(read_cluster_json(text, "x")), text) << seed;
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
