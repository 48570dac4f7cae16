// Groups of a layout: partitions, order, nodes and rails, errors, JSON.
#include "topomoe/layout.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "planner/plan/json.hpp"
#include "tests/planner/helpers.hpp"

namespace topomoe {
namespace {

constexpr ExpertOrder kOrders[] = {ExpertOrder::ep_inner, ExpertOrder::edp_inner};
constexpr Role kRoles[] = {Role::ep,   Role::etp, Role::tp, Role::edp, Role::node,
                           Role::rail, Role::dp,  Role::cp, Role::pp};
using Ranks = std::vector<int>;

TEST(Layout, Members_TwoNodesOfEight_ByHand) {
  // TP2 DP8 | ETP1 EP8 EDP2 on 16 ranks, 8 a node. Packed: EP group 0 is node 0.
  const Layout packed = make_layout(16, 2, 1, 1, 1, 8);
  EXPECT_EQ(packed.dp, 8);
  EXPECT_EQ(packed.edp, 2);
  EXPECT_EQ(members(packed, Role::tp, 5, 8), (Ranks{4, 5}));
  EXPECT_EQ(members(packed, Role::dp, 5, 8), (Ranks{1, 3, 5, 7, 9, 11, 13, 15}));
  EXPECT_EQ(members(packed, Role::ep, 5, 8), (Ranks{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(members(packed, Role::edp, 5, 8), (Ranks{5, 13}));
  EXPECT_EQ(members(packed, Role::rail, 5, 8), (Ranks{5}));
  EXPECT_EQ(nodes_spanned(packed, 5, 8), 1);
  // Strided: EP group of rank 5 is the odd ranks, on both nodes.
  const Layout strided = make_layout(16, 2, 1, 1, 1, 8, ExpertOrder::edp_inner);
  EXPECT_EQ(members(strided, Role::ep, 5, 8), (Ranks{1, 3, 5, 7, 9, 11, 13, 15}));
  EXPECT_EQ(members(strided, Role::node, 5, 8), (Ranks{1, 3, 5, 7}));
  EXPECT_EQ(members(strided, Role::rail, 5, 8), (Ranks{5, 13}));
  EXPECT_EQ(members(strided, Role::edp, 5, 8), (Ranks{4, 5}));
  EXPECT_EQ(nodes_spanned(strided, 5, 8), 2);
  EXPECT_EQ(index_in(strided, Role::ep, 13, 8), 6);
  EXPECT_EQ(index_in(strided, Role::node, 13, 8), 2);
  EXPECT_EQ(index_in(strided, Role::rail, 13, 8), 1);
}

TEST(Layout, Members_PipelineIsOutermostInBoth) {
  const Layout l = make_layout(32, 4, 1, 2, 4, 2);  // stages are ranks 0..15 and 16..31
  EXPECT_EQ(members(l, Role::pp, 3, 8), (Ranks{3, 19}));
  EXPECT_EQ(members(l, Role::etp, 18, 8), (Ranks{16, 17, 18, 19}));
  EXPECT_EQ(members(l, Role::ep, 18, 8), (Ranks{18, 22}));
  EXPECT_EQ(members(l, Role::edp, 18, 8), (Ranks{18, 26}));
  EXPECT_EQ(coordinates(l, 30), (Coordinates{2, 0, 3, 1, 2, 1, 1}));
}

// For many random layouts: every group holds its rank at its index, all members agree on the group, so
// the groups of a role partition the world; and the coordinates of both sides are unique.
TEST(Layout, RandomLayouts_GroupsPartitionTheWorld) {
  std::mt19937 random(1);
  const auto pick = [&](std::initializer_list<int> of) { return of.begin()[random() % of.size()]; };
  for (int round = 0; round < 150; ++round) {
    const int tp = pick({1, 2, 3, 4}), cp = pick({1, 2}), pp = pick({1, 2, 3}), etp = random() % 2 ? tp : 1;
    const int ep = pick({1, 2, 4, 6}), edp = pick({1, 2, 3}), stage = etp * ep * edp;
    if (stage % (tp * cp) != 0) continue;
    const Layout l = make_layout(stage * pp, tp, cp, pp, etp, ep, kOrders[random() % 2]);
    check(l, 12);
    const int gpus_per_node = pick({1, 2, 3, 4, 5, 8, 1000});
    std::set<std::vector<int>> attention, expert;
    for (int rank = 0; rank < l.world; ++rank) {
      const Coordinates c = coordinates(l, rank);
      attention.insert({c.tp, c.cp, c.dp, c.pp});
      expert.insert({c.etp, c.ep, c.edp, c.pp});
      for (const Role role : kRoles) {
        const Ranks group = members(l, role, rank, gpus_per_node);
        ASSERT_EQ(static_cast<int>(group.size()), group_size(l, role, rank, gpus_per_node)) << to_string(role);
        ASSERT_TRUE(std::is_sorted(group.begin(), group.end()));
        ASSERT_EQ(group.at(static_cast<std::size_t>(index_in(l, role, rank, gpus_per_node))), rank) << to_string(role);
        for (const int peer : group) ASSERT_EQ(members(l, role, peer, gpus_per_node), group) << to_string(role);
      }
    }
    EXPECT_EQ(attention.size(), static_cast<std::size_t>(l.world));
    EXPECT_EQ(expert.size(), static_cast<std::size_t>(l.world));
    if (even_nodes(l, gpus_per_node)) {
      const int g = group_size(l, Role::node, 0, gpus_per_node), n = nodes_spanned(l, 0, gpus_per_node);
      EXPECT_EQ(g * n, l.ep);
      for (int rank = 0; rank < l.world; ++rank) {
        EXPECT_EQ(group_size(l, Role::node, rank, gpus_per_node), g);
        EXPECT_EQ(group_size(l, Role::rail, rank, gpus_per_node), n);
        // Node after node in group order: what two-level index maps rest on.
        EXPECT_EQ(index_in(l, Role::ep, rank, gpus_per_node),
                  index_in(l, Role::rail, rank, gpus_per_node) * g + index_in(l, Role::node, rank, gpus_per_node));
      }
    }
  }
}

TEST(Layout, EvenNodes_UnevenSpreads_AreSeen) {
  EXPECT_TRUE(even_nodes(make_layout(16, 1, 1, 1, 1, 16), 8));
  EXPECT_FALSE(even_nodes(make_layout(12, 1, 1, 1, 1, 12), 8));  // 8 + 4
  EXPECT_FALSE(even_nodes(make_layout(24, 1, 1, 1, 1, 12), 8));  // 8 + 4, then 4 + 8
  EXPECT_FALSE(even_nodes(make_layout(24, 1, 1, 1, 1, 6), 8));   // 6, then 2 + 4
  EXPECT_TRUE(even_nodes(make_layout(24, 1, 1, 1, 1, 12), 4));
  EXPECT_TRUE(even_nodes(make_layout(8, 1, 1, 1, 1, 1), 8));
}

TEST(Layout, LargeWorld_IsArithmetic) {
  const Layout l = make_layout(1 << 20, 8, 1, 16, 1, 64, ExpertOrder::edp_inner);
  EXPECT_EQ(members(l, Role::ep, 999'999, 8).size(), 64u);
  EXPECT_EQ(members(l, Role::rail, 999'999, 8).size(), 64u);
  EXPECT_TRUE(even_nodes(make_layout(8192, 8, 1, 16, 1, 64), 8));
}

TEST(Layout, Check_NamesWhatIsOffAndTheNearest) {
  Layout l = make_layout(16, 2, 1, 1, 1, 8);
  EXPECT_EQ(message_of([&] { check(l, 8); }), "no error");
  EXPECT_HAS(message_of([&] { check(l, 12); }), "layout: ep: 8: must divide the 12 experts; nearest: 6 or 12");
  EXPECT_HAS(message_of([&] { check(l, 4); }), "nearest: 4");
  l.dp = 3;
  EXPECT_HAS(message_of([&] { check(l, 8); }), "tp*cp*dp*pp: 6: must equal world = 16; dp = 8 does it");
  l.dp = 8, l.edp = 3;
  EXPECT_HAS(message_of([&] { check(l, 8); }), "etp*ep*edp*pp: 24: must equal world = 16; edp = 2 does it");
  l.edp = 0;
  EXPECT_HAS(message_of([&] { check(l, 8); }), "edp: 0: must be positive");
  l = make_layout(16, 2, 1, 1, 4, 2);
  EXPECT_HAS(message_of([&] { check(l, 8); }), "etp: 4: must be 1 or tp = 2");
  EXPECT_EQ(message_of([&] { check(make_layout(16, 1, 1, 1, 16, 1), 8); }), "no error");  // MoEShard
  l = make_layout(16, 1, 1, 1, 1, 2);
  l.sequence_parallel = true;
  EXPECT_HAS(message_of([&] { check(l, 8); }), "sequence_parallel");
  l = make_layout(16, 1, 1, 2, 1, 2);
  l.zero = 2;
  EXPECT_HAS(message_of([&] { check(l, 8); }), "zero: 2: must be at most 1 with pp = 2");
  l.pp = 1, l.dp = 16, l.edp = 8;
  EXPECT_EQ(message_of([&] { check(l, 8); }), "no error");
  EXPECT_EQ(name(l), "TP1 CP1 DP16 PP1 ZeRO2 | ETP1 EP2 EDP8");
  l.zero = 4;
  EXPECT_HAS(message_of([&] { check(l, 8); }), "zero: 4: must be 0, 1, 2 or 3");
  EXPECT_HAS(message_of([] { make_layout(16, 3, 1, 1, 1, 1); }), "layout: dp: 16/3: tp*cp*pp must divide world = 16");
  EXPECT_HAS(message_of([] { make_layout(16, 1, 1, 1, 0, 1); }), "layout: etp: 0");
}

TEST(Layout, LayersOfStage_CoverAllLayersEvenly) {
  for (const int layers : {61, 32, 7})
    for (const int pp : {1, 2, 4})
      for (const int vpp : {1, 2, 4}) {
        if (pp == 1 && vpp > 1) continue;
        Layout l;
        l.world = l.pp = pp, l.vpp = vpp;
        std::set<int> all;
        for (int stage = 0; stage < pp; ++stage)
          for (const int layer : layers_of_stage(l, layers, stage)) EXPECT_TRUE(all.insert(layer).second);
        EXPECT_EQ(all.size(), static_cast<std::size_t>(layers));
        EXPECT_EQ(*all.rbegin(), layers - 1);
      }
  Layout l;
  l.world = l.pp = 2, l.vpp = 2;
  EXPECT_EQ(layers_of_stage(l, 8, 1), (Ranks{2, 3, 6, 7}));
}

TEST(Layout, Name_ReadsAsPeopleWriteIt) {
  Layout l = make_layout(16, 8, 1, 1, 8, 2);
  EXPECT_EQ(name(l), "TP8 CP1 DP2 PP1 | ETP8 EP2 EDP1");
  l = make_layout(32, 2, 1, 2, 1, 8, ExpertOrder::edp_inner);
  l.vpp = 4, l.sequence_parallel = true;
  EXPECT_EQ(name(l), "TP2 CP1 DP8 PP2 VPP4 | ETP1 EP8 EDP2, EDP inner, SP");
}

TEST(LayoutJson, RoundTrip_IsIdenticalAndStrict) {
  Layout l = make_layout(32, 2, 1, 2, 1, 8, ExpertOrder::edp_inner);
  l.sequence_parallel = true;
  const std::string text = to_json(l).dump(2);
  EXPECT_EQ(layout_from_json(parse_json(text, "x")), l);
  EXPECT_EQ(to_json(layout_from_json(parse_json(text, "x"))).dump(2), text);
  const ordered_json whole = to_json(l);
  for (const auto& item : whole.items()) {
    ordered_json missing = whole;
    missing.erase(item.key());
    EXPECT_HAS(message_of([&] { layout_from_json(missing); }), "layout: " + item.key() + ": missing");
    ordered_json wrong = whole;
    wrong[item.key()] = nullptr;
    EXPECT_HAS(message_of([&] { layout_from_json(wrong); }), "layout: " + item.key() + ": null");
  }
  ordered_json off = to_json(l);
  off["dp"] = 16'777'216, off["tp"] = 16'777'216;  // products do not overflow
  EXPECT_HAS(message_of([&] { layout_from_json(off); }), "tp*cp*dp*pp");
}

}  // namespace
}  // namespace topomoe
