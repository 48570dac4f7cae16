// Reading a schedule: which rows a declaration means and where a view of them lies, computed by hand.
//
// All on one small world: 4 ranks, TP 2, ETP 2, EP 2. ETP groups {0,1} {2,3}, EP groups {0,2} {1,3}; four
// experts, of which EP index 0 holds 0 and 1, EP index 1 holds 2 and 3.
//   C[c][s][e] = c + s + e rows, T[c][s] = c + s + 1 tokens, H[s] = s + 1.

#include <gtest/gtest.h>

#include "planner/schedules/draft.hpp"
#include "topomoe/schedule.hpp"

namespace topomoe {
namespace {

class Formula : public CountSource {
 public:
  Formula() : CountSource({4, 2}) {}
  double count(Symbol symbol, int chunk, int source, int index) const override {
    switch (symbol) {
      case Symbol::held: return source + 1;
      case Symbol::tokens: return chunk + source + 1;
      case Symbol::pairs: return chunk + source + index;
      case Symbol::rank_tokens:
      case Symbol::node_tokens: return 10 * source + index;
    }
    return 0;
  }
};

class Expectation final : public Formula {
 public:
  double count(Symbol, int, int, int) const override { return 0.625; }
};

class ReadingASchedule : public ::testing::Test {
 protected:
  Schedule s_;
  RankGroups groups_{make_layout(4, 2, 1, 1, 2, 2), 4};
  Formula counts_;

  int add(Buffer b) {
    s_.buffers.push_back(std::move(b));
    return static_cast<int>(s_.buffers.size()) - 1;
  }
  int pairs(Chunks chunks, RankSet sources, RankSet dests, Order order) {
    return add({.name = "rows",
                .symbol = Symbol::pairs,
                .chunks = chunks,
                .sources = std::move(sources),
                .dests = std::move(dests),
                .order = order});
  }
  // rows_of must always agree with resolve.
  void expect_range(const View& v, int me, int peer, double offset, double rows) {
    const RowRange range = resolve(s_, v, groups_, counts_, me, peer);
    EXPECT_EQ(range.offset, offset);
    EXPECT_EQ(range.rows, rows);
    EXPECT_EQ(rows_of(s_, v, groups_, counts_, me, peer), rows);
  }
  std::vector<double> offsets(int buffer, int me) {
    std::vector<double> out;
    for (const Segment& s : segments_of(s_.buffers[static_cast<std::size_t>(buffer)], groups_, counts_, me))
      out.push_back(s.offset);
    return out;
  }
};

TEST_F(ReadingASchedule, RankSetsSpreadInOrder_OuterRoleFirst) {
  std::vector<int> ranks;
  groups_.expand(me(), 3, 1, ranks);
  EXPECT_EQ(ranks, (std::vector{3}));
  groups_.expand(peer({Role::ep}), 3, 0, ranks);
  EXPECT_EQ(ranks, (std::vector{0, 2}));
  groups_.expand(me({Role::etp, Role::ep}), 3, 0, ranks);  // ETP group {2,3}, then the EP group of each
  EXPECT_EQ(ranks, (std::vector{0, 2, 1, 3}));
}

TEST(RankSets, NodeAndRail_AreThePartsOfAnEpGroup) {
  const RankGroups groups(make_layout(8, 1, 1, 1, 1, 4, ExpertOrder::edp_inner), 4);  // EP groups {0,2,4,6} {1,3,5,7}
  std::vector<int> ranks;
  groups.expand(me({Role::node}), 5, 0, ranks);
  EXPECT_EQ(ranks, (std::vector{5, 7}));
  groups.expand(me({Role::rail}), 5, 0, ranks);
  EXPECT_EQ(ranks, (std::vector{1, 5}));
  groups.expand(me({Role::node, Role::rail}), 5, 0, ranks);
  EXPECT_EQ(ranks, (std::vector{1, 5, 3, 7}));
  EXPECT_EQ(groups.node_index(3), 0);
  EXPECT_EQ(groups.node_index(5), 1);
}

// Rank 0, chunk 0, to itself 0 + 1 rows for experts 0 and 1, to rank 2 2 + 3 rows for experts 2 and 3.
TEST_F(ReadingASchedule, ByDest_RowsAsTheyLeave) {
  const int send = pairs({0, 1}, me(), me({Role::ep}), Order::by_dest);
  EXPECT_EQ(offsets(send, 0), (std::vector<double>{0, 0, 1, 3}));
  expect_range(whole(send), 0, 0, 0, 6);
  expect_range(to_dest(send, peer()), 0, 0, 0, 1);
  expect_range(to_dest(send, peer()), 0, 2, 1, 5);
}

// Rank 0 for experts 0 and 1: chunk 0 from rank 0: 0 + 1, from rank 2: 2 + 3; chunk 1 each one row more.
TEST_F(ReadingASchedule, BySource_RowsAsTheyArrive) {
  const int recv = pairs({0, 2}, me({Role::ep}), me(), Order::by_source);
  EXPECT_EQ(offsets(recv, 0), (std::vector<double>{0, 0, 1, 3, 6, 7, 9, 12}));
  expect_range(whole(recv), 0, 0, 0, 16);
  expect_range(from_source(recv, {0, 1}, peer()), 0, 2, 1, 5);
  expect_range(from_source(recv, {1, 2}, peer()), 0, 2, 9, 7);
  expect_range(from_source(recv, {1, 2}, me({Role::ep})), 0, 0, 6, 10);
  expect_range(from_source(recv, {0, 2}, me({Role::ep})), 0, 0, 0, 16);
}

// The same 16 rows: expert 0 from rank 0 by chunk 0 + 1, from rank 2 2 + 3; expert 1 1 + 2 and 3 + 4.
TEST_F(ReadingASchedule, ByExpert_RowsAsExpertsWantThem) {
  const int sorted = pairs({0, 2}, me({Role::ep}), me(), Order::by_expert);
  EXPECT_EQ(offsets(sorted, 0), (std::vector<double>{0, 0, 1, 3, 6, 7, 9, 12}));
  expect_range(whole(sorted), 0, 0, 0, 16);
  const auto segments = segments_of(s_.buffers[static_cast<std::size_t>(sorted)], groups_, counts_, 0);
  EXPECT_EQ(segments[3].expert, 0);
  EXPECT_EQ(segments[3].source, 2);
  EXPECT_EQ(segments[3].chunk, 1);
  EXPECT_EQ(segments[3].rows, 3);
}

// Both chunks travel as one: of rank 0 for expert 0 0 + 1 rows, for expert 1 1 + 2, then of rank 2 2 + 3 and 3 + 4;
// token order inside each, as if there were one chunk.
TEST_F(ReadingASchedule, BySourceTogether_ChunksOfAUnitStandInnermost) {
  const int recv = add({.name = "rows",
                        .symbol = Symbol::pairs,
                        .chunks = {0, 4},
                        .sources = me({Role::ep}),
                        .dests = me(),
                        .order = Order::by_source,
                        .together = 2});
  const auto all = offsets(recv, 0);
  EXPECT_EQ(std::vector<double>(all.begin(), all.begin() + 8), (std::vector<double>{0, 0, 1, 2, 4, 6, 9, 12}));
  expect_range(from_source(recv, {0, 2}, peer()), 0, 0, 0, 4);
  expect_range(from_source(recv, {0, 2}, peer()), 0, 2, 4, 12);
  // The second unit: 2 + 3, 3 + 4 of rank 0; 4 + 5, 5 + 6 of rank 2.
  expect_range(from_source(recv, {2, 4}, peer()), 0, 0, 16, 12);
  expect_range(from_source(recv, {2, 4}, peer()), 0, 2, 28, 20);
  EXPECT_THROW(resolve(s_, from_source(recv, {0, 1}, peer()), groups_, counts_, 0, 2), std::logic_error);
}

// Two pieces of two chunks each, by_expert inside: 16 rows of chunks 0 and 1, then 32 of 2 and 3.
TEST_F(ReadingASchedule, ByExpertTogether_OnePieceAfterAnother) {
  const int saved = add({.name = "rows",
                         .symbol = Symbol::pairs,
                         .chunks = {0, 4},
                         .sources = me({Role::ep}),
                         .dests = me(),
                         .order = Order::by_expert,
                         .together = 2});
  View piece = whole(saved);
  piece.chunks = Chunks{0, 2};
  expect_range(piece, 0, 0, 0, 16);
  piece.chunks = Chunks{2, 4};
  expect_range(piece, 0, 0, 16, 32);
  EXPECT_EQ(segments_of(s_.buffers[static_cast<std::size_t>(saved)], groups_, counts_, 0)[3].chunk, 1);
}

// Tokens of several ranks as they arrive: 1 + 3 of chunk 0 from ranks 0 and 2, then 2 + 4 of chunk 1.
TEST_F(ReadingASchedule, TokensBySource_OneChunkAfterAnother) {
  const int x = add(
      {.name = "x", .symbol = Symbol::tokens, .chunks = {0, 2}, .sources = me({Role::ep}), .order = Order::by_source});
  expect_range(whole(x), 0, 0, 0, 10);
  expect_range(from_source(x, {0, 1}, peer()), 0, 2, 1, 3);
  expect_range(from_source(x, {1, 2}, me({Role::ep})), 0, 0, 4, 6);
}

// One source's rows are there once an expert: 2..6 and 9..16 of the above. Their number is still known.
TEST_F(ReadingASchedule, RowsApartFromOneAnother_HaveANumberButNoPlace) {
  const int sorted = pairs({0, 2}, me({Role::ep}), me(), Order::by_expert);
  const View from_two = from_source(sorted, {0, 2}, peer());
  EXPECT_THROW(resolve(s_, from_two, groups_, counts_, 0, 2), std::logic_error);
  EXPECT_EQ(rows_of(s_, from_two, groups_, counts_, 0, 2), 2 + 3 + 3 + 4);
}

// Chunk 0 from EP group {0,2}, 1 + 5 rows for experts 0 and 1, then from {1,3}, 3 + 7.
TEST_F(ReadingASchedule, GatheredOverEtp_OneEpGroupAfterAnother) {
  const int gathered = pairs({0, 1}, me({Role::etp, Role::ep}), me(), Order::by_source);
  expect_range(from_source(gathered, {0, 1}, peer({Role::ep})), 0, 0, 0, 6);
  expect_range(from_source(gathered, {0, 1}, peer({Role::ep})), 0, 1, 6, 10);
}

// Rank 0 of a TP group {0,1}, three chunks: its own 1 + 2 + 3 tokens, then 2 + 3 + 4 of rank 1.
TEST_F(ReadingASchedule, ByToken_AllChunksOfASourceTogether) {
  const int x = add({.name = "x", .symbol = Symbol::tokens, .chunks = {0, 3}, .sources = me({Role::tp})});
  expect_range(whole(x), 0, 0, 0, 15);
  expect_range(from_source(x, {1, 2}, me()), 0, 0, 1, 2);
  expect_range(from_source(x, {0, 3}, me()), 0, 0, 0, 6);
  expect_range(from_source(x, {1, 2}, peer()), 0, 1, 8, 3);
  EXPECT_THROW(resolve(s_, from_source(x, {1, 2}, me({Role::tp})), groups_, counts_, 0, 0), std::logic_error);
}

TEST_F(ReadingASchedule, Held_HasNoChunks) {
  const int x = add({.name = "x", .symbol = Symbol::held, .chunks = {0, 4}, .sources = me({Role::tp})});
  expect_range(whole(x), 3, 3, 0, 3 + 4);
  expect_range(from_source(x, {0, 1}, peer()), 3, 3, 3, 4);
}

// 7 rows among 2: [0, 3) and [3, 7), beginning where the view does.
TEST_F(ReadingASchedule, Split_CutsTheViewEvenly) {
  const int recv = pairs({0, 2}, me({Role::ep}), me(), Order::by_source);
  View v = from_source(recv, {1, 2}, peer());  // 9, 7 rows
  v.split = Split{Role::etp, Who::me};
  expect_range(v, 0, 2, 9, 3);
  v = from_source(recv, {1, 2}, {Who::me, {}});  // rank 1: sources {1,3}; C[1][1][0..1] = 2 + 3 after 1 + 2 + 3 + 4
  expect_range(v, 1, 1, 10, 5);
  v.split = Split{Role::etp, Who::me};
  expect_range(v, 1, 1, 12, 3);  // of 5: [0,2) and [2,5)
  v.split = Split{Role::etp, Who::peer};
  expect_range(v, 1, 0, 10, 2);
}

// 6 rows, of which this rank sums 3, twice: one block of 3 a member of the ETP group.
TEST_F(ReadingASchedule, Blocks_RepeatTheRowsOnceAMember) {
  const int shards = add({.name = "shards",
                          .symbol = Symbol::pairs,
                          .chunks = {0, 1},
                          .sources = me({Role::ep}),
                          .dests = me(),
                          .order = Order::by_source,
                          .blocks = Role::etp,
                          .split = Split{Role::etp}});
  expect_range(whole(shards), 0, 0, 0, 6);
  View block = whole(shards);
  block.block = Who::peer;
  expect_range(block, 0, 0, 0, 3);
  expect_range(block, 0, 1, 3, 3);
  block.block = Who::me;  // rank 1: sources {1,3}, C[0] = 1 + 2 + 3 + 4, parts of 5
  expect_range(block, 1, 0, 5, 5);
}

TEST_F(ReadingASchedule, RankTokens_AreCountedByDest) {
  const int send = add({.name = "send",
                        .symbol = Symbol::rank_tokens,
                        .chunks = {0, 1},
                        .sources = me({Role::ep}),
                        .dests = me({Role::ep}),
                        .order = Order::by_dest});
  // R[s][d] = 10 s + d: to 0 from {0,2} 0 + 20, to 2 from {0,2} 2 + 22.
  expect_range(to_dest(send, peer()), 0, 0, 0, 20);
  expect_range(to_dest(send, peer()), 0, 2, 20, 24);
}

// Zero rows have no place to be wrong about.
TEST_F(ReadingASchedule, NothingSelected_IsNoRowsAtTheStart) {
  const int send = pairs({0, 1}, me(), me({Role::ep}), Order::by_dest);
  expect_range(to_dest(send, me()), 2, 2, 2 + 3, 4 + 5);  // rank 2 to itself: experts 2 and 3
  const RowRange of_another = resolve(s_, from_source(send, {0, 1}, peer()), groups_, counts_, 0, 3);
  EXPECT_EQ(of_another.rows, 0);
  EXPECT_EQ(of_another.offset, 0);
}

// Expectations are fractions and are cut as such: 0.625 rows of each of 2 experts, among 2.
TEST_F(ReadingASchedule, FractionsOfRows_AreSplitEvenly) {
  const int send = pairs({0, 1}, me(), me({Role::ep}), Order::by_dest);
  View v = to_dest(send, peer());
  v.split = Split{Role::etp, Who::me};
  const Expectation expected;
  EXPECT_EQ(resolve(s_, v, groups_, expected, 1, 3).rows, 0.625);
  EXPECT_EQ(rows_of(s_, v, groups_, expected, 1, 3), 0.625);
}

}  // namespace
}  // namespace topomoe
