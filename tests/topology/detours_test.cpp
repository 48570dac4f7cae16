// Pairs of GPUs without a link of their own, shared out over the GPUs between them.
#include "topology/detours.hpp"

#include "support.hpp"

namespace topomoe::test {
namespace {

// Pairs on the most loaded link: its own and the detours, all links of one rate.
double most_pairs(const std::vector<Detour>& detours, std::size_t links) {
  std::vector<double> pairs(links, 1);
  for (const Detour& own : detours)
    for (const int link : own.ways.at(own.chosen)) ++pairs[static_cast<std::size_t>(link)];
  return *std::max_element(pairs.begin(), pairs.end());
}

// n GPUs in a ring: link i goes from i to i + 1, link n + i back. Each GPU reaches the second next either way where n
// is 4.
TEST(Detours, RingOfFour_LoadsEachLinkAlike) {
  std::vector<Detour> detours;
  for (int from = 0; from < 4; ++from) {
    const int next = (from + 1) % 4, last = (from + 3) % 4;
    detours.push_back({{{from, next}, {4 + last, 4 + (last + 3) % 4}}, 0});
  }
  choose_detours(detours, std::vector<double>(8, 50));
  // 8 links' own pairs, and 4 detours of 2 links each: (8 + 8) / 8.
  EXPECT_EQ(most_pairs(detours, 8), 2);
}

TEST(Detours, SlowLinks_TakeFewer) {
  // Ways over links of 25 and of 100 GB/s: four pairs, so that (1 + 4) / 100 is less than (1 + 1) / 25.
  std::vector<Detour> detours(4, Detour{{{0, 1}, {2, 3}}, 0});
  choose_detours(detours, {25, 25, 100, 100});
  for (const Detour& own : detours) EXPECT_EQ(own.chosen, 1U);
}

TEST(Detours, None_IsNothingToDo) {
  std::vector<Detour> none;
  choose_detours(none, {50});
  EXPECT_TRUE(none.empty());
}

// What was seen: all detours of a mesh over its first GPU, twice the load of any other link.
TEST(Detours, MeshWithoutDiagonals_HasNoLinkLoadedAlone) {
  HostTemplate host;
  host.name = "ring";
  host.nvlink = Presence::present;
  for (int i = 0; i < 6; ++i) {
    host.devices.push_back({DeviceKind::gpu, "gpu" + std::to_string(i), "", -1, {}});
    host.gpus.push_back(i);
  }
  // Each GPU is joined to four of five others, all but the opposite one.
  for (int a = 0; a < 6; ++a)
    for (int b = a + 1; b < 6; ++b)
      if (b != a + 3) host.links.push_back({a, b, LinkKind::xgmi, 50, 0.3, Source::assumed, "test"});
  Topology topology;
  topology.name = "mesh";
  topology.templates = {host};
  topology.groups = {{0, 1}};
  const Router router(topology);
  LinkLoads loads(router);
  for (int a = 0; a < 6; ++a)
    for (int b = 0; b < 6; ++b)
      if (a != b) loads.add(a, b, 1);
  // 24 links with a pair each, 6 detours of two links: 36 / 24, so that some link has two and none three.
  for (int link = 0; link < router.link_count(); ++link) EXPECT_LE(loads.bytes_on(link), 2) << router.link(link).name;
}

}  // namespace
}  // namespace topomoe::test
