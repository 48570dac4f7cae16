// What differs between two descriptions, and that nothing else is said to.
#include "topology/show/diff.hpp"
#include "support.hpp"

namespace topomoe::test {
namespace {

std::vector<std::string> lines(const Topology& before, const Topology& after) {
  std::vector<std::string> out;
  for (const Difference& own : differences(before, after))
    out.push_back(own.element + ": " + own.before + " -> " + own.after);
  return out;
}
using Lines = std::vector<std::string>;

TEST(Diff, ClusterAgainstItself_IsNothing) {
  EXPECT_EQ(lines(small_cluster(4), small_cluster(4)), Lines{});
  EXPECT_EQ(differences_text({}), "no difference\n");
  EXPECT_EQ(differences_json({}), "[]\n");
}

TEST(Diff, EachFigureOfAFabric_IsALineOfItsOwn) {
  const Topology before = small_cluster(4);
  const auto changed = [&](auto change) {
    Topology after = before;
    change(*after.fabric);
    return lines(before, after);
  };
  EXPECT_EQ(changed([](Fabric& f) { f.spine_count = 3; }), Lines{"fabric spines: 2 -> 3"});
  EXPECT_EQ(changed([](Fabric& f) { f.uplink.GBps_per_direction = 25; }),
            Lines{"fabric uplinks of a leaf: 50 GB/s, 4 us -> 25 GB/s, 4 us"});
  EXPECT_EQ(changed([](Fabric& f) { f.leaf_hosts = {3, 1}; }), Lines{"fabric sizes of leaves: not given -> 3, 1"});
  EXPECT_EQ(changed([](Fabric& f) {
              f.exceptions = {{"leaf3->spine", 0.5}};
            }),
            Lines{"leaf3->spine: 1 of its rate -> 0.5 of its rate"});
  EXPECT_EQ(changed([](Fabric& f) { f.kind = FabricKind::dragonfly_plus; }),
            Lines{"fabric kind: fat_tree -> dragonfly_plus"});
}

TEST(Diff, HostsWithNames_AreComparedByName) {
  Topology before = small_cluster(2), after = small_cluster(2);
  before.host_names = {"a", "b"};
  after.host_names = {"b", "c"};
  after.templates.push_back(after.templates[0]);
  after.templates[0].gpu.memory_GiB = 80;
  after.groups = {{0, 1}, {1, 1}};
  EXPECT_EQ(lines(before, after), (Lines{"c: missing -> there", "a: there -> missing", "GPU memory_GiB: 0 -> 80"}));
  after.host_names = {"b", "a"};
  EXPECT_EQ(lines(before, after), Lines{"b GPU memory_GiB: 0 -> 80"});
  after.host_names = {};
  EXPECT_EQ(lines(before, after), Lines{"host0 GPU memory_GiB: 0 -> 80"});
}

TEST(Diff, SlowLink_IsNamedByItsEndsEitherWay) {
  const Topology before = small_cluster(1);
  EXPECT_EQ(lines(before, edit(before, {parse_degrade("host0.gpu1->nvswitch=0.5")})),
            (Lines{"nvlink gpu1 -> nvswitch: 100 GB/s, 0.5 us -> 50 GB/s, 0.5 us",
                   "nvlink nvswitch -> gpu1: 100 GB/s, 0.5 us -> 50 GB/s, 0.5 us"}));
}

TEST(Diff, AsJson_HasTheSameLines) {
  EXPECT_EQ(differences_json({{"fabric spines", "2", "3", {}}}),
            "[\n  {\n    \"element\": \"fabric spines\",\n    \"before\": \"2\",\n    \"after\": \"3\"\n  }\n]\n");
}

}  // namespace
}  // namespace topomoe::test
