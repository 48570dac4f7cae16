// Platforms in SimGrid's own XML: what our reader makes of them against what SimGrid itself makes of them.
#include "tests/support/simgrid_routes.hpp"

#include <fstream>

#include "random_cluster.hpp"
#include "support.hpp"
#include "topology/read/readers.hpp"
#include "topomoe/export.hpp"

namespace topomoe::test {
namespace {

// The least rate on the way between each two hosts (of many, some).
void expect_same_bottlenecks(const std::string& path) {
  SCOPED_TRACE(path);
  const Topology topology = with_gpus(read_topology_file(path));
  const Router router(topology);
  std::vector<std::pair<std::string, std::string>> pairs;
  const int step = std::max(1, topology.host_count() / 25);
  for (int a = 0; a < topology.host_count(); a += step)
    for (int b = 0; b < topology.host_count(); b += step)
      if (a != b)
        pairs.emplace_back(topology.host_names[static_cast<std::size_t>(a)],
                           topology.host_names[static_cast<std::size_t>(b)]);
  const std::vector<SimgridWay> theirs = simgrid_ways(path, pairs);
  std::size_t i = 0;
  for (int a = 0; a < topology.host_count(); a += step)
    for (int b = 0; b < topology.host_count(); b += step) {
      if (a == b) continue;
      const Route ours = router.route(a, b);
      EXPECT_NEAR(ours.bottleneck_GBps, theirs[i].GBps, 1e-6 * theirs[i].GBps)
          << pairs[i].first << " to " << pairs[i].second;
      ++i;
    }
  EXPECT_GT(i, 1U);
}

TEST(SimgridPlatform, OurOwn_HasSimgridsBottlenecks) {
  expect_same_bottlenecks(fixture("simgrid-sites.xml"));
  expect_same_bottlenecks(fixture("simgrid-fat-tree.xml"));
}

TEST(SimgridPlatform, OthersFiles_HaveSimgridsBottlenecks) {
  const std::string folder = data_path("topologies/simulators/simgrid");
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not there; set TOPOMOE_DATA_DIR";
  for (const char* file :
       {"cluster_backbone", "cluster_multi", "cluster_torus", "data_center", "dogbone", "meta_cluster", "two_hosts"})
    expect_same_bottlenecks(folder + "/" + file + ".xml");
}

// A tree of routers, drawn, with hosts anywhere on it, some of them on the way of others.
// Those of more than three tiers are refused.
TEST(SimgridPlatform, Drawn_HaveSimgridsBottlenecks) {
  const std::string path = ::testing::TempDir() + "topomoe-drawn-platform.xml";
  int read = 0;
  for (unsigned seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    Dice dice(seed);
    std::vector<std::string> nodes{"r0"};
    std::string parts = "<router id=\"r0\"/>", routes;
    int links = 0;
    const auto join = [&](const std::string& a, const std::string& b) {
      const std::string link = "k" + std::to_string(links++);
      const bool split = dice.coin();
      parts += "<link id=\"" + link + "\" bandwidth=\"" + std::to_string(dice.between(1, 99)) +
               "MBps\" latency=\"1us\" sharing_policy=\"" + (split ? "SPLITDUPLEX" : "SHARED") + "\"/>";
      routes += "<route src=\"" + (dice.coin() ? a + "\" dst=\"" + b : b + "\" dst=\"" + a) + "\"><link_ctn id=\"" +
                link + (split ? "\" direction=\"UP" : "") + "\"/></route>";
    };
    for (int i = dice.between(1, 5); i > 0; --i) {
      const std::string own = "r" + std::to_string(nodes.size());
      parts += "<router id=\"" + own + "\"/>";
      join(own, nodes[static_cast<std::size_t>(dice.between(0, static_cast<int>(nodes.size()) - 1))]);
      nodes.push_back(own);
    }
    for (int i = dice.between(2, 8); i > 0; --i) {
      const std::string own = "h" + std::to_string(i);
      parts += "<host id=\"" + own + "\" speed=\"1Gf\"/>";
      join(own, nodes[static_cast<std::size_t>(dice.between(0, static_cast<int>(nodes.size()) - 1))]);
      if (dice.between(0, 5) == 0) nodes.push_back(own);
    }
    std::ofstream(path) << "<?xml version='1.0'?><!DOCTYPE platform SYSTEM \"https://simgrid.org/simgrid.dtd\">"
                        << "<platform version=\"4.1\"><zone id=\"z\" routing=\"Floyd\">" << parts << routes
                        << "</zone></platform>";
    try {
      read_topology_file(path);
    } catch (const InvalidInput& error) {
      EXPECT_TRUE(contains(error.what(), "tiers of switches")) << error.what();
      continue;
    }
    expect_same_bottlenecks(path);
    ++read;
  }
  EXPECT_GT(read, 25);
  std::filesystem::remove(path);
}

// What we write, as SimGrid reads it: rate and latency of the way between each two GPUs are those of our routes.
void expect_our_routes(const Topology& topology) {
  const std::string path = ::testing::TempDir() + "topomoe-exported-platform.xml";
  std::ofstream(path) << write_simgrid(topology);
  const Router router(topology);
  std::vector<std::pair<std::string, std::string>> pairs;
  std::vector<Route> ours;
  for (int a = 0; a < topology.gpu_count(); ++a)
    for (int b = 0; b < topology.gpu_count(); ++b)
      if (const Route route = router.route(a, b); a != b && route.path_class != PathClass::DIS) {
        pairs.emplace_back(topology.gpu_name(a), topology.gpu_name(b));
        ours.push_back(route);
      }
  const std::vector<SimgridWay> theirs = simgrid_ways(path, pairs);
  for (std::size_t i = 0; i < ours.size(); ++i) {
    EXPECT_NEAR(theirs[i].GBps, ours[i].bottleneck_GBps, 1e-9 * ours[i].bottleneck_GBps) << pairs[i].first;
    EXPECT_NEAR(theirs[i].latency_us, ours[i].latency_us, 1e-6) << pairs[i].first;
  }
  std::filesystem::remove(path);
}

TEST(SimgridPlatform, Exported_HasOurRoutes) {
  expect_our_routes(cluster("dgx-h100"));
  expect_our_routes(small_cluster(5));
  for (unsigned seed = 0; seed < 24; ++seed) {
    SCOPED_TRACE(seed);
    const Topology topology = with_random_exceptions(random_alike_cluster(seed, 4), seed);
    if (topology.gpu_count() <= 64) expect_our_routes(topology);
  }
}

}  // namespace
}  // namespace topomoe::test
