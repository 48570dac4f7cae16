// Platforms in SimGrid's own XML: what our reader makes of them against what SimGrid itself makes of them.
#include "tests/support/simgrid_routes.hpp"

#include <fstream>

#include "random_cluster.hpp"
#include "support.hpp"
#include "topology/readers.hpp"
#include "topomoe/export.hpp"

namespace topomoe::test {
namespace {

// The least rate on the way between each two hosts. Parallel links are one of their sum here: `exact` is off, and ours
// may be more.
void expect_same_bottlenecks(const std::string& path, bool exact = true) {
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
      EXPECT_TRUE(exact ? std::abs(ours.bottleneck_GBps - theirs[i].GBps) <= 1e-6 * theirs[i].GBps
                        : ours.bottleneck_GBps >= theirs[i].GBps * (1 - 1e-6))
          << pairs[i].first << " to " << pairs[i].second << ": " << ours.bottleneck_GBps << ", not " << theirs[i].GBps;
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
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    expect_same_bottlenecks(entry.path());
    ++files;
  }
  EXPECT_GT(files, 3);
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
