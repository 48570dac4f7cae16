// What one rank knows of how many rows there are.

#include "runtime/counts.hpp"

#include <gtest/gtest.h>

#include "planner/schedules/draft.hpp"

namespace topomoe {
namespace {

using Ids = std::vector<std::int32_t>;

// Two ranks, EP 2, experts {0,1} and {2,3}, one node each.
struct TwoRanks {
  explicit TwoRanks(int chunks, int gpus_per_node = 1) : groups(make_layout(2, 1, 1, 1, 1, 2), gpus_per_node) {
    schedule.name = "test";
    schedule.chunks = chunks;
  }
  Schedule schedule;
  RankGroups groups;
};

template <class Call>
std::string message_of(Call call) {
  try {
    call();
  } catch (const std::logic_error& e) {
    return e.what();
  }
  return "no error";
}

TEST(RankCounts, UnknownCount_ThrowsByName) {
  const TwoRanks w(2);
  RankCounts counts(w.schedule, w.groups, 0, {4, 2});
  EXPECT_NE(message_of([&] { counts.count(Symbol::held, 0, 1, 0); }).find("rank 0 does not know the tokens of rank 1"),
            std::string::npos);
  EXPECT_NE(message_of([&] { counts.count(Symbol::pairs, 1, 1, 3); }).find("rank 0 does not know pairs[1][1][3]"),
            std::string::npos);
  counts.set_held(0, 2);
  counts.set_routing(Ids{0, 1}, 1);
  EXPECT_EQ(counts.count(Symbol::pairs, 0, 0, 0), 1);
  EXPECT_NE(message_of([&] { counts.count(Symbol::rank_tokens, 0, 1, 0); }).find("does not know rank_tokens[0][1][0]"),
            std::string::npos);
}

// Five tokens in two chunks: 2 and 3. Experts (0,1) (0,2) | (3,2) (1,0) (2,1).
TEST(RankCounts, Routing_CountsPairsAndDistinctRanksAndNodes) {
  const TwoRanks w(2);
  RankCounts counts(w.schedule, w.groups, 0, {4, 2});
  counts.set_held(0, 5);
  counts.set_routing(Ids{0, 1, 0, 2, 3, 2, 1, 0, 2, 1}, 2);
  const auto row = [&](Symbol s, int chunk, int places) {
    std::vector<double> out;
    for (int i = 0; i < places; ++i) out.push_back(counts.count(s, chunk, 0, i));
    return out;
  };
  EXPECT_EQ(counts.count(Symbol::tokens, 0, 0, 0), 2);
  EXPECT_EQ(counts.count(Symbol::tokens, 1, 0, 0), 3);
  EXPECT_EQ(row(Symbol::pairs, 0, 4), (std::vector<double>{2, 1, 1, 0}));
  EXPECT_EQ(row(Symbol::pairs, 1, 4), (std::vector<double>{1, 2, 2, 1}));
  EXPECT_EQ(row(Symbol::rank_tokens, 0, 2), (std::vector<double>{2, 1}));  // both to rank 0, the second to rank 1 too
  EXPECT_EQ(row(Symbol::rank_tokens, 1, 2), (std::vector<double>{2, 2}));
  EXPECT_EQ(row(Symbol::node_tokens, 1, 2), (std::vector<double>{2, 2}));  // a node a rank
}

TEST(RankCounts, BothRanksOnOneNode_TokenReachesItOnce) {
  const TwoRanks w(1, 2);
  RankCounts counts(w.schedule, w.groups, 1, {4, 2});
  counts.set_held(1, 3);
  counts.set_routing(Ids{0, 2, 3, 1, 0, 1}, 2);
  EXPECT_EQ(counts.count(Symbol::node_tokens, 0, 1, 0), 3);
  EXPECT_EQ(counts.count(Symbol::node_tokens, 0, 1, 1), 3);
  EXPECT_EQ(counts.count(Symbol::rank_tokens, 0, 1, 0), 3);
  EXPECT_EQ(counts.count(Symbol::rank_tokens, 0, 1, 1), 2);
}

// TP 3 hold 7 tokens: slices of 2, 2, 3 ([0,2) [2,4) [4,7)), each in two chunks 1+1, 1+1, 1+2.
TEST(RankCounts, TpSlice_EachInjectsItsPart) {
  Schedule s;
  s.chunks = 2, s.intake = Intake::tp_slice;
  const RankGroups groups(make_layout(3, 3, 1, 1, 1, 1), 4);
  RankCounts counts(s, groups, 1, {1, 1});
  for (int r = 0; r < 3; ++r) counts.set_held(r, 7);
  EXPECT_EQ(counts.count(Symbol::tokens, 0, 1, 0) + counts.count(Symbol::tokens, 1, 1, 0), 2);
  EXPECT_EQ(counts.count(Symbol::tokens, 0, 2, 0), 1);
  EXPECT_EQ(counts.count(Symbol::tokens, 1, 2, 0), 2);
}

TEST(RankCounts, TpGather_EachInjectsAll) {
  Schedule s;
  s.chunks = 2, s.intake = Intake::tp_gather;
  const RankGroups groups(make_layout(2, 2, 1, 1, 1, 1), 4);
  RankCounts counts(s, groups, 0, {1, 1});
  counts.set_held(0, 4), counts.set_held(1, 1);
  for (const int source : {0, 1}) {
    EXPECT_EQ(counts.count(Symbol::tokens, 0, source, 0), 2);
    EXPECT_EQ(counts.count(Symbol::tokens, 1, source, 0), 3);
  }
}

TEST(RankCounts, SliceReadAndWritten_CarriesExactlyThatPart) {
  const TwoRanks w(2);
  RankCounts sender(w.schedule, w.groups, 0, {4, 2}), receiver(w.schedule, w.groups, 1, {4, 2});
  sender.set_held(0, 4);
  sender.set_routing(Ids{2, 3, 3, 0}, 1);
  const CountSlice slice{Symbol::pairs, me(), peer()};
  Ids wire;
  sender.read(slice, 0, 1, wire);
  EXPECT_EQ(wire, (Ids{1, 1, 0, 1}));  // chunk 0: experts 2, 3; chunk 1
  EXPECT_EQ(receiver.size_of(slice, 0, 1), wire.size());
  EXPECT_EQ(receiver.write(slice, 0, 1, wire), wire.size());
  EXPECT_EQ(receiver.count(Symbol::pairs, 1, 0, 3), 1);
  EXPECT_THROW(receiver.count(Symbol::pairs, 1, 0, 0), std::logic_error);  // for the sender's own experts: never told
}

// Rank 0 holds experts 1 and 3, rank 1 expert 0, and both expert 2: copies 0 | 1 | 2, 3 | 4 of experts 0 | 1 | 2, 2
// | 3. Of the tokens (1,3) (0,2) (2,-) the last one's second choice was dropped.
TEST(RankCounts, ScatteredExpertsReplicasAndDrops_CountedByCopy) {
  const TwoRanks w(1);
  const ExpertPlacement placement(4, 2, {{1}, {0}, {1, 0}, {0}});
  RankCounts counts(w.schedule, w.groups, 0, placement);
  counts.set_held(0, 3);
  counts.set_routing(Ids{1, 4, 0, 3, 2, ~1}, 2);
  std::vector<double> pairs;
  for (int copy = 0; copy < placement.copies(); ++copy) pairs.push_back(counts.count(Symbol::pairs, 0, 0, copy));
  EXPECT_EQ(pairs, (std::vector<double>{1, 1, 1, 1, 1}));
  EXPECT_EQ(counts.count(Symbol::rank_tokens, 0, 0, 0), 2);  // the first token, and the second for copy 3
  EXPECT_EQ(counts.count(Symbol::rank_tokens, 0, 0, 1), 2);
  Ids wire;
  counts.read({Symbol::pairs, me(), peer()}, 0, 1, wire);
  EXPECT_EQ(wire, (Ids{1, 1}));  // copies 0 and 2
  EXPECT_EQ(counts.size_of({Symbol::pairs, me(), peer()}, 1, 0), 3U);
}

TEST(RankCounts, IdsNotOfTheTokensOrExpertsThereAre_Throw) {
  const TwoRanks w(1);
  RankCounts counts(w.schedule, w.groups, 0, {4, 2});
  counts.set_held(0, 2);
  for (const Ids& wrong : {Ids{0, 1, 2}, Ids{0}, Ids{}}) EXPECT_THROW(counts.set_routing(wrong, 1), std::logic_error);
  for (const std::int32_t wrong : {4, ~4, 1 << 30})
    EXPECT_THROW(counts.set_routing(Ids{0, wrong}, 1), std::logic_error) << wrong;
}

}  // namespace
}  // namespace topomoe
