// Index maps, by hand: two ranks, EP 2, experts {0,1} on rank 0 and {2,3} on rank 1, top 2.

#include "runtime/index_map.hpp"

#include <gtest/gtest.h>

#include <random>

#include "planner/schedules/draft.hpp"
#include "tests/kernels/expert_map_layer.hpp"
#include "topomoe/device_cpu.hpp"

namespace topomoe {
namespace {

using Ids = std::vector<std::int32_t>;
constexpr int kTopK = 2;

class IndexMaps : public ::testing::Test {
 protected:
  Schedule s_;
  RankGroups groups_{make_layout(2, 1, 1, 1, 1, 2), 1};
  ExpertPlacement placement_{4, 2};
  int tokens_ = add(Symbol::tokens, me(), {}, Order::by_token);

  int add(Symbol symbol, RankSet sources, RankSet dests, Order order) {
    s_.buffers.push_back({.name = "rows",
                          .symbol = symbol,
                          .chunks = {0, s_.chunks},
                          .sources = std::move(sources),
                          .dests = std::move(dests),
                          .order = order});
    return static_cast<int>(s_.buffers.size()) - 1;
  }
  RankCounts routed(int rank, const Ids& ids) {
    RankCounts counts(s_, groups_, rank, placement_);
    counts.set_held(rank, static_cast<std::int64_t>(ids.size()) / kTopK);
    counts.set_routing(ids, kTopK);
    return counts;
  }
  HostMap build(const View& from, const View& to, const RankCounts& counts, int rank, const Ids& ids) {
    return build_map(s_, {"m", from, to, whole(tokens_)}, groups_, counts, rank, ids, kTopK);
  }
};

// Tokens 0, 1, 2 go to (0,2), (3,1), (2,0). Leaving: expert 0 tokens 0, 2; 1: 1; 2: 0, 2; 3: 1.
TEST_F(IndexMaps, Pack_ATokenOnceForEachOfItsExperts) {
  const Ids ids{0, 2, 3, 1, 2, 0};
  const int send = add(Symbol::pairs, me(), me({Role::ep}), Order::by_dest);
  const HostMap m = build(whole(tokens_), whole(send), routed(0, ids), 0, ids);
  EXPECT_EQ(m.slots, 2);
  EXPECT_EQ(m.source_row, (Ids{0, 2, 1, 0, 2, 1}));
  EXPECT_EQ(m.position, (Ids{0, 3, 5, 2, 4, 1}));
  EXPECT_EQ(m.source_factor, (Ids{0, 5, 3, 1, 4, 2}));  // token * 2 + slot
}

// What a device's expert map makes of ids alone is this map, pairs that go nowhere (here ~expert) included.
TEST_F(IndexMaps, ExpertMapOfADevice_IsTheSamePack) {
  const auto device = make_cpu_device();
  const int send = add(Symbol::pairs, me(), me({Role::ep}), Order::by_dest);
  std::mt19937 random(1);
  for (std::int64_t rows = 0; rows < 20; ++rows) {
    Ids ids;
    for (std::int64_t row = 0; row < rows; ++row) {
      const auto first = static_cast<std::int32_t>(random() % 4),
                 second = static_cast<std::int32_t>((static_cast<unsigned>(first) + 1 + random() % 3) % 4);
      ids.push_back(random() % 4 == 0 ? ~first : first);
      ids.push_back(second);
    }
    const HostMap m = build(whole(tokens_), whole(send), routed(0, ids), 0, ids);
    const test::MapTensors tensors(*device, {.rows = rows, .capacity = rows * kTopK, .k = kTopK, .experts = 4}, ids);
    device->expert_map(Lane::compute, tensors.map);
    test::MapResult map = tensors.read();
    EXPECT_EQ(map.position, m.position);
    EXPECT_EQ(map.offsets.back(), static_cast<int>(m.source_row.size()));
    map.source_row.resize(m.source_row.size());
    map.source_factor.resize(m.source_row.size());
    EXPECT_EQ(map.source_row, m.source_row);
    EXPECT_EQ(map.source_factor, m.source_factor);
  }
}

// (0,1): rank 0 only; (3,1): both; (2,3): rank 1 only. The first slot that reaches a rank carries the row.
TEST_F(IndexMaps, DedupByRank_ATokenOnceForEachRank) {
  const Ids ids{0, 1, 3, 1, 2, 3};
  const int send = add(Symbol::rank_tokens, me(), me({Role::ep}), Order::by_dest);
  const HostMap m = build(whole(tokens_), whole(send), routed(0, ids), 0, ids);
  EXPECT_EQ(m.source_row, (Ids{0, 1, 1, 2}));
  EXPECT_EQ(m.position, (Ids{0, -1, 2, 1, 3, -1}));
}

TEST_F(IndexMaps, DedupByNode_ATokenOnceForEachNode) {
  const Ids ids{0, 1, 3, 1, 2, 3};
  const int send = add(Symbol::node_tokens, me(), me({Role::rail}), Order::by_dest);  // a node a rank: as above
  const HostMap m = build(whole(tokens_), whole(send), routed(1, ids), 1, ids);
  EXPECT_EQ(m.source_row, (Ids{0, 1, 1, 2}));
}

// Rank 0 holds experts 3 and 1, rank 1 expert 2, both expert 0 (copies 0 on rank 1, 1 on rank 0): copies 1, 2, 4 on
// rank 0, then 0, 3 on rank 1. Token 0 to copies 0 and 4, token 1 to 3 and nowhere, token 2 to 1 and 2.
TEST_F(IndexMaps, ScatteredReplicatedAndDropped_RowsStandByPlaceThenCopy) {
  placement_ = ExpertPlacement(4, 2, {{1, 0}, {0}, {1}, {0}});
  const Ids ids{0, 4, 3, ~2, 1, 2};
  const int send = add(Symbol::pairs, me(), me({Role::ep}), Order::by_dest);
  const HostMap m = build(whole(tokens_), whole(send), routed(0, ids), 0, ids);
  EXPECT_EQ(m.source_row, (Ids{2, 2, 0, 0, 1}));
  EXPECT_EQ(m.position, (Ids{3, 2, 4, -1, 0, 1}));
}

// Only the experts of the target's dests: rank 0's own.
TEST_F(IndexMaps, PackForSomeDests_LeavesOtherSlotsOut) {
  const Ids ids{0, 2, 3, 1, 2, 3};
  const int send = add(Symbol::pairs, me(), me({Role::ep}), Order::by_dest);
  const HostMap m = build(whole(tokens_), to_dest(send, me()), routed(0, ids), 0, ids);
  EXPECT_EQ(m.source_row.size(), 2U);
  EXPECT_EQ(m.position[1], -1);
  EXPECT_EQ(m.position[4], -1);
}

// Rows as they arrive at rank 0, source 0: expert 0 twice, 1 once; source 1: 1 and 2; to expert order:
// expert 0: 0 1 3, expert 1: 2 4 5.
TEST_F(IndexMaps, Repack_IsTheStablePermutationToExpertOrder) {
  const int recv = add(Symbol::pairs, me({Role::ep}), me(), Order::by_source);
  const int sorted = add(Symbol::pairs, me({Role::ep}), me(), Order::by_expert);
  RankCounts counts = routed(0, {0, 1, 0, 2});
  counts.write({Symbol::pairs, me(), peer()}, 1, 0, Ids{1, 2});
  const HostMap m = build_map(s_, {"m", whole(recv), whole(sorted), {}}, groups_, counts, 0, {}, kTopK);
  EXPECT_EQ(m.slots, 1);
  EXPECT_EQ(m.source_row, (Ids{0, 1, 3, 2, 4, 5}));
  EXPECT_EQ(m.position, (Ids{0, 1, 3, 2, 4, 5}));
}

TEST_F(IndexMaps, IdThatWasNotCounted_Throws) {
  const Ids ids{0, 2, 3, 1};
  const int send = add(Symbol::pairs, me(), me({Role::ep}), Order::by_dest);
  const RankCounts counts = routed(0, ids);
  EXPECT_NO_THROW(build(whole(tokens_), whole(send), counts, 0, ids));
  for (const std::int32_t wrong : {1, 2, 3})
    EXPECT_THROW(build(whole(tokens_), whole(send), counts, 0, {wrong, 2, 3, 1}), std::logic_error);
}

TEST_F(IndexMaps, IdOfNoExpert_Throws) {
  const Ids ids{0, 2, 3, 1};
  const int send = add(Symbol::pairs, me(), me({Role::ep}), Order::by_dest);
  const RankCounts counts = routed(0, ids);
  for (const std::int32_t wrong : {4, ~4, 1 << 30})
    EXPECT_THROW(build(whole(tokens_), whole(send), counts, 0, {0, 2, wrong, 1}), std::logic_error) << wrong;
}

TEST_F(IndexMaps, TooFewOrManyIds_Throw) {
  const Ids ids{0, 2, 3, 1};
  const int send = add(Symbol::pairs, me(), me({Role::ep}), Order::by_dest);
  const RankCounts counts = routed(0, ids);
  EXPECT_THROW(build(whole(tokens_), whole(send), counts, 0, {0, 2}), std::logic_error);
  EXPECT_THROW(build(whole(tokens_), whole(send), counts, 0, {0, 2, 3, 1, 0, 1}), std::logic_error);
}

// A relay was told of three tokens for rank 0, but the ids that came beside two of them say rank 1.
TEST_F(IndexMaps, CountThatIdsDoNotBearOut_Throws) {
  const int recv = add(Symbol::node_tokens, me({Role::rail}), me(), Order::by_source);
  const int fan = add(Symbol::rank_tokens, me({Role::rail}), me({Role::node}), Order::by_dest);
  RankCounts counts = routed(0, {});
  const auto told = [&](std::int32_t tokens, std::int32_t for_me) {
    counts.write({Symbol::node_tokens, me(), peer()}, 1, 0, Ids{tokens});
    counts.write({Symbol::rank_tokens, me(), peer({Role::node})}, 1, 0, Ids{for_me});
  };
  told(3, 3);
  EXPECT_NO_THROW(build(whole(recv), whole(fan), counts, 0, {0, 2, 1, 0, 3, 0}));
  EXPECT_THROW(build(whole(recv), whole(fan), counts, 0, {0, 2, 2, 3, 3, 2}), std::logic_error);
  told(3, 2);
  EXPECT_THROW(build(whole(recv), whole(fan), counts, 0, {0, 2, 1, 0, 3, 0}), std::logic_error);
  told(3, -1);
  EXPECT_THROW(build(whole(recv), whole(fan), counts, 0, {0, 2, 1, 0, 3, 0}), std::logic_error);
}

}  // namespace
}  // namespace topomoe
