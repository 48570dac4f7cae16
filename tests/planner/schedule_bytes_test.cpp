// Bytes that a schedule moves under uniform routing against the closed forms of the design (DESIGN 5), per GPU and
// direction: T' tokens are injected, top k of E experts, P bytes a token, W ranks on N nodes, g on each, t of a TP
// group. All schedules here bring their rows back, and the backward does it all once more.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "planner/expected_counts.hpp"
#include "planner/schedules/build.hpp"

namespace topomoe {
namespace {

constexpr double kHeld = 32;               // T: tokens of a TP group, also where a group is one rank
constexpr int kExperts = 16, kTopK = 3;    // E, k
constexpr double kHidden = 5, kBytes = 2;  // P = 10

struct Moved {
  double between = 0, inside = 0;   // payload bytes
  std::size_t peers_elsewhere = 0;  // most ranks of other nodes that one step sends to
};

Moved moved(const Schedule& s, const std::vector<Step>& steps, const Layout& layout, int gpus_per_node,
            double hidden = kHidden) {
  const RankGroups groups(layout, gpus_per_node);
  const double injected = s.intake == Intake::tp_slice ? kHeld / layout.tp : kHeld;
  // Expectations do not know chunks: these are of one.
  const RoutingOdds odds(std::vector<double>(kExperts, 1.0 / kExperts), kTopK);
  const ExpectedCounts counts(groups, odds, kHeld, injected / s.chunks);
  Moved out;
  const int me = 0;
  for (const Step& step : steps) {
    if ((step.kind != StepKind::exchange && step.kind != StepKind::all_gather) || step.metadata) continue;
    std::size_t elsewhere = 0;
    for (const int peer : groups.members(step.group, me)) {
      if (peer == me) continue;
      const double bytes = rows_of(s, step.in[0], groups, counts, me, peer) *
                           row_bytes(s.buffers[static_cast<std::size_t>(step.in[0].buffer)],
                                     {.hidden = hidden, .element_bytes = kBytes});
      const bool same_node = peer / gpus_per_node == me / gpus_per_node;
      (same_node ? out.inside : out.between) += bytes;
      elsewhere += same_node ? 0 : 1;
    }
    out.peers_elsewhere = std::max(out.peers_elsewhere, elsewhere);
  }
  return out;
}

// In any number of chunks and pieces, forward and backward alike.
void expect_moves(std::string_view transport, TokenSplit split, const Layout& l, int gpus_per_node, double between,
                  double inside, std::size_t peers_elsewhere) {
  for (const auto& [n, r, n_back, r_back] : {std::array{1, 1, 1, 1}, {4, 1, 4, 1}, {4, 2, 4, 2}, {4, 2, 3, 3}}) {
    const Schedule s = build_schedule(transport, {split, l.tp, l.etp, l.ep, l.sequence_parallel, n, r, n_back, r_back});
    SCOPED_TRACE(s.name + ", " + name(l));
    for (const auto* steps : {&s.forward, &s.backward}) {
      const Moved m = moved(s, *steps, l, gpus_per_node);
      EXPECT_NEAR(m.between, between, 1e-9 * between);
      EXPECT_NEAR(m.inside, inside, 1e-9 * inside);
      EXPECT_EQ(m.peers_elsewhere, peers_elsewhere);
    }
  }
}

// TP 1, so T' = T = 32, T' P = 320. W = 8 on N = 2 nodes, g = 4.
TEST(ScheduleBytes, UniformRouting_EachTransportMovesWhatTheTableSays) {
  const Layout l = make_layout(8, 1, 1, 1, 1, 8);
  const auto there_and_back = [&](std::string_view transport, double between, double inside, std::size_t peers) {
    expect_moves(transport, TokenSplit::sliced, l, 4, 2 * between, 2 * inside, peers);
  };
  // T' k P (N-1)/N = 960 / 2 to W-g = 4 ranks; T' k P (g-1)/W = 960 * 3/8.
  there_and_back("flat", 480, 360, 4);
  // The same to N-1 = 1 rank; T' k P (g-1)/g = 960 * 3/4.
  there_and_back("two_level", 480, 720, 1);
  // d = 2 (1 - C(8,3)/C(16,3)) = 2 (1 - 56/560) = 1.8, D = 8 (1 - C(14,3)/C(16,3)) = 8 (1 - 364/560) = 2.8:
  // T' P d (N-1)/N = 320 * 0.9, T' P D (g-1)/g = 320 * 2.1.
  there_and_back("node_dedup", 288, 672, 1);
  // T' P (N-1), T' P N (g-1) = 320 * 6.
  there_and_back("gather", 320, 1920, 1);
}

// One node: W = g = 8, and two levels are one. T' P (g-1).
TEST(ScheduleBytes, GatherOnOneNode_StaysInside) {
  expect_moves("gather", TokenSplit::sliced, make_layout(8, 1, 1, 1, 1, 8), 8, 0, 2 * 320 * 7, 0);
}

// TP = ETP = t = 4, EP 2 over N = 2 nodes with g = 1: nothing of the transport stays inside. `sliced` has T' = 8,
// gathers rows over ETP and scatters sums, T m P (t-1)/t each way, and ends with an all-gather of outputs,
// T P (t-1)/t = 240. `replicated` has T' = 32 and all-reduces, 2 T m P (t-1)/t.
TEST(ScheduleBytes, ShardedExperts_AddWhatTheTableSays) {
  const Layout l = make_layout(8, 4, 1, 1, 4, 2);
  for (const std::string_view transport : {"flat", "two_level"}) {  // m = k = 3: T m P (t-1)/t = 720
    expect_moves(transport, TokenSplit::sliced, l, 4, 2 * 120, 2 * 720 + 240, 1);
    expect_moves(transport, TokenSplit::replicated, l, 4, 2 * 480, 2 * 720, 1);
  }
  // m = D = d = 2 (1 - C(8,3)/C(16,3)) = 1.8: 432. Out: T' P d (N-1)/N.
  expect_moves("node_dedup", TokenSplit::sliced, l, 4, 2 * 72, 2 * 432 + 240, 1);
  expect_moves("node_dedup", TokenSplit::replicated, l, 4, 2 * 288, 2 * 432, 1);
  // m = W = 2: 480. Out: T' P (N-1).
  expect_moves("gather", TokenSplit::sliced, l, 4, 2 * 80, 2 * 480 + 240, 1);
  expect_moves("gather", TokenSplit::replicated, l, 4, 2 * 320, 2 * 480, 1);
}

// 512 wide: 1,024 bytes a row, and as fp8 512 + 4 * 4 = 528. Out as fp8 and back as before: (528 + 1024) / 2048 of the
// bytes; a backward as before. No more messages.
TEST(ScheduleBytes, Fp8Out_TakesHalfAnd1Of32OfWhatGoesOut) {
  const Layout l = make_layout(8, 1, 1, 1, 1, 8);
  for (const std::string_view transport : {"flat", "two_level", "node_dedup", "gather"})
    for (const auto& [n, r] : {std::pair{1, 1}, {4, 2}}) {
      ScheduleRequest request{.ep = 8, .chunks = n, .pieces = r};
      const Schedule plain = build_schedule(transport, request);
      request.fp8_dispatch = true;
      const Schedule fp8 = build_schedule(transport, request);
      SCOPED_TRACE(fp8.name);
      const Moved there = moved(plain, plain.forward, l, 4, 512), with = moved(fp8, fp8.forward, l, 4, 512);
      EXPECT_NEAR(with.between, there.between * (528.0 + 1024) / 2048, 1e-9 * there.between);
      EXPECT_NEAR(with.inside, there.inside * (528.0 + 1024) / 2048, 1e-9 * there.inside);
      EXPECT_EQ(with.peers_elsewhere, there.peers_elsewhere);
      EXPECT_EQ(moved(fp8, fp8.backward, l, 4, 512).between, moved(plain, plain.backward, l, 4, 512).between);
      const auto exchanges = [](const Schedule& s) {
        return std::count_if(s.forward.begin(), s.forward.end(), [](const Step& t) {
          return t.kind == StepKind::exchange || t.kind == StepKind::all_gather;
        });
      };
      EXPECT_EQ(exchanges(fp8), exchanges(plain));
    }
}

// MoEShard: EP 1, ETP = W = 8 over two nodes of 4, one level. T P (W-g) and T P (g-1); k plays no part.
TEST(ScheduleBytes, ShardsOfAllExpertsOnAllRanks_EachTokenGoesOnceToEveryRank) {
  expect_moves("gather", TokenSplit::sliced, make_layout(8, 1, 1, 1, 8, 1), 4, 2 * 320 * 4, 2 * 320 * 3, 4);
  // Of a TP group of 2, each injects half and gathers the other half of the output: T P (t-1)/t = 160.
  expect_moves("gather", TokenSplit::sliced, make_layout(8, 2, 1, 1, 8, 1), 4, 2 * 160 * 4, 2 * 160 * 3 + 160, 4);
  expect_moves("gather", TokenSplit::replicated, make_layout(8, 2, 1, 1, 8, 1), 4, 2 * 320 * 4, 2 * 320 * 3, 4);
}

}  // namespace
}  // namespace topomoe
