// Platforms in SimGrid's own XML: what our reader makes of them against what SimGrid itself makes of them.
#include "tests/support/simgrid_routes.hpp"

#include "support.hpp"
#include "topology/readers.hpp"

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

}  // namespace
}  // namespace topomoe::test
