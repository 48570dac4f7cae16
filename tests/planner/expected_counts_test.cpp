// Expectations against tokens that are drawn one by one, and against counting by hand.
#include "planner/expected_counts.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "planner/schedules/build.hpp"
#include "topomoe/routing.hpp"

namespace topomoe {
namespace {

struct Limit {
  int experts, k, groups, topk_groups;
};

RoutingOdds odds_of(const RoutingProfile& profile, const Limit& r) {
  return {expert_popularity(profile, r.experts), r.k, r.groups, r.topk_groups};
}

// Share of drawn tokens that have an expert in [first, end).
double drawn_reach(const std::vector<std::int32_t>& ids, int k, int first, int end) {
  int hits = 0;
  for (auto row = ids.begin(); row != ids.end(); row += k)
    hits += std::any_of(row, row + k, [&](int e) { return first <= e && e < end; });
  return hits / (static_cast<double>(ids.size()) / k);
}

TEST(ExpectedCounts, AnySkew_ATokenReachesAnExpertOnceAtMost) {
  for (const double skew : {0.0, 0.5, 1.0, 2.0, 4.0})
    for (const int k : {1, 2, 4, 8}) {
      RoutingProfile profile{RoutingProfile::Kind::zipf, skew, {}, "zipf"};
      const RankGroups groups(make_layout(4, 1, 1, 1, 1, 4), 2);
      const RoutingOdds odds(expert_popularity(profile, 8), k);
      const ExpectedCounts counts(groups, odds, 100, 100);
      double sum = 0;
      for (int e = 0; e < 8; ++e) {
        const double rows = counts.count(Symbol::pairs, 0, 0, e);
        EXPECT_LE(rows, 100 * (1 + 1e-12)) << "skew " << skew << " k " << k;
        sum += rows;
      }
      EXPECT_NEAR(sum, 100.0 * k, 1e-6);
      for (int rank = 0; rank < 4; ++rank) EXPECT_LE(counts.count(Symbol::rank_tokens, 0, 0, rank), 100);
    }
}

// 4 experts in 2 groups, one of which a token may reach, k = 1: a group is reached by every other token; with k = 2
// both of its experts are, so each expert is reached by every other token, where without limit it is 1 - C(3,2)/C(4,2)
// = 1/2 too, but half of the experts by 1 - C(2,2)/C(4,2) = 5/6.
TEST(GroupLimited, FourExperts_CountedByHand) {
  const RoutingOdds one = odds_of({}, {4, 1, 2, 1}), two = odds_of({}, {4, 2, 2, 1}), free = odds_of({}, {4, 2, 2, 2});
  EXPECT_DOUBLE_EQ(one.reached(0, 2), 0.5);
  EXPECT_DOUBLE_EQ(two.reached(0, 2), 0.5);
  EXPECT_DOUBLE_EQ(two.reached(2, 3), 0.5);
  EXPECT_DOUBLE_EQ(two.reached(1, 3), 1);  // one expert of each group
  EXPECT_DOUBLE_EQ(free.reached(0, 2), 5.0 / 6);
  EXPECT_DOUBLE_EQ(two.chosen(3), 0.5);
  // Weights 3 and 1, the first group is the allowed one with 3/4. Inside it the experts are 2 to 1.
  const RoutingOdds skewed = odds_of({RoutingProfile::Kind::histogram, 0, {2, 1, 1, 0}, "h"}, {4, 1, 2, 1});
  EXPECT_DOUBLE_EQ(skewed.chosen(0), 0.75 * 2 / 3);
  EXPECT_DOUBLE_EQ(skewed.chosen(2), 0.25);
  EXPECT_DOUBLE_EQ(skewed.reached(0, 2), 0.75);
}

// DeepSeek-V3 on 8 nodes, a group a node: 4 (1 - C(96,8)/C(128,8)) = 3.6 of the 4 allowed nodes, 5.3 of 8 without
// limit.
TEST(GroupLimited, DeepSeekV3OnEightNodes_ReachesFewerThanFour) {
  const RankGroups groups(make_layout(64, 1, 1, 1, 1, 64), 8);
  const auto nodes = [&](int topk_groups) {
    const RoutingOdds odds = odds_of({}, {256, 8, 8, topk_groups});
    const ExpectedCounts counts(groups, odds, 1, 1);
    EXPECT_TRUE(counts.alike());
    double sum = 0;
    for (int rank = 0; rank < 64; rank += 8) sum += counts.count(Symbol::node_tokens, 0, 0, rank);
    return sum;
  };
  double missed = 1;  // C(96,8)/C(128,8)
  for (int i = 0; i < 8; ++i) missed *= (96.0 - i) / (128.0 - i);
  EXPECT_NEAR(nodes(4), 4 * (1 - missed), 1e-12);
  EXPECT_NEAR(nodes(4), 3.63, 0.01);
  EXPECT_NEAR(nodes(8), expected_distinct_groups(256, 8, 8), 1e-12);
  EXPECT_NEAR(nodes(8), 5.29, 0.01);
}

// Counts of tokens that were drawn, every rank's own.
class Drawn final : public CountSource {
 public:
  Drawn(const RankGroups& groups, const Limit& r, int tokens, std::uint64_t seed)
      : CountSource({r.experts, groups.size(Role::ep)}), groups_(groups), r_(r), tokens_(tokens) {
    for (int rank = 0; rank < groups.layout().world; ++rank)
      ids_.push_back(draw_routing({}, r.experts, r.k, tokens, seed + static_cast<std::uint64_t>(rank) * 1000, r.groups,
                                  r.topk_groups));
  }
  double count(Symbol symbol, int, int source, int index) const override {
    const int each = r_.experts / groups_.size(Role::ep), per_node = groups_.size(Role::node);
    const auto& ids = ids_[static_cast<std::size_t>(source)];
    if (symbol == Symbol::held || symbol == Symbol::tokens) return tokens_;
    if (symbol == Symbol::pairs) return static_cast<double>(std::count(ids.begin(), ids.end(), index));
    const int place = groups_.index_in(Role::ep, index);
    const bool rank = symbol == Symbol::rank_tokens;
    const int first = (rank ? place : place / per_node * per_node) * each, width = rank ? each : each * per_node;
    return tokens_ * drawn_reach(ids, r_.k, first, first + width);
  }

 private:
  const RankGroups& groups_;
  Limit r_;
  int tokens_;
  std::vector<std::vector<std::int32_t>> ids_;
};

// Rows that rank 0 sends to others in all exchanges of a pass, to other nodes and inside its own.
std::array<double, 2> rows_sent(const Schedule& s, const std::vector<Step>& steps, const RankGroups& groups,
                                const CountSource& counts) {
  std::array<double, 2> out{};
  for (const Step& step : steps) {
    if ((step.kind != StepKind::exchange && step.kind != StepKind::all_gather) || step.metadata) continue;
    for (const int peer : groups.members(step.group, 0))
      if (peer != 0) out[peer < groups.gpus_per_node()] += rows_of(s, step.in[0], groups, counts, 0, peer);
  }
  return out;
}

// 8 ranks on 4 nodes of 2, 32 experts in 4 groups: a group a node. 60 draws of 100 tokens a rank.
TEST(GroupLimited, EveryTransport_MovesWhatDrawnTokensMove) {
  constexpr int kRounds = 60, kTokens = 100;
  const RankGroups groups(make_layout(8, 1, 1, 1, 1, 8), 2);
  for (const int topk_groups : {1, 2, 4}) {
    const Limit r{32, 4, 4, topk_groups};
    const RoutingOdds odds = odds_of({}, r);
    const ExpectedCounts expected(groups, odds, kTokens, kTokens);
    for (const Transport& t : transports()) {
      const Schedule s = build_schedule(t.name, {.split = TokenSplit::sliced, .ep = 8});
      for (const bool backward : {false, true}) {
        const auto& steps = backward ? s.backward : s.forward;
        const auto want = rows_sent(s, steps, groups, expected);
        std::array<double, 2> sum{}, squares{};
        for (int round = 0; round < kRounds; ++round) {
          const Drawn drawn(groups, r, kTokens, static_cast<std::uint64_t>(round) * 100'000);
          const auto rows = rows_sent(s, steps, groups, drawn);
          for (std::size_t i = 0; i < 2; ++i) sum[i] += rows[i], squares[i] += rows[i] * rows[i];
        }
        for (std::size_t i = 0; i < 2; ++i) {
          const double mean = sum[i] / kRounds, variance = std::max(0.0, squares[i] / kRounds - mean * mean);
          EXPECT_NEAR(mean, want[i], 3 * std::sqrt(variance / kRounds) + 1e-9)
              << t.name << (backward ? " backward" : "") << (i == 0 ? " between" : " inside") << " nodes, "
              << topk_groups << " groups";
        }
        // Out and back a row a node of a token: at most topk_groups nodes, each as likely this one as any other.
        if (t.name == "node_dedup" && !backward) {
          EXPECT_LE(want[0], kTokens * topk_groups * 3.0 / 4 * 2 + 1e-9);
        }
      }
    }
  }
}

// Any cut of the experts, aligned with groups or not.
TEST(GroupLimited, Uniform_DrawsAgreeWithinThreeSigma) {
  const int tokens = 20000;
  for (const Limit& r : {Limit{256, 8, 8, 4}, {64, 6, 8, 3}, {160, 6, 8, 3}, {32, 4, 4, 1}, {48, 2, 16, 5}}) {
    const RoutingOdds odds = odds_of({}, r);
    const auto ids = draw_routing({}, r.experts, r.k, tokens, 17, r.groups, r.topk_groups);
    for (const int parts : {2, 3, 8, 16})
      for (int i = 0; i < parts; i += 1 + parts / 4) {
        const int first = r.experts * i / parts, end = r.experts * (i + 1) / parts;
        const double p = odds.reached(first, end);
        EXPECT_NEAR(drawn_reach(ids, r.k, first, end), p, 3 * std::sqrt(p * (1 - p) / tokens) + 1e-12)
            << r.experts << " experts, " << i << " of " << parts;
      }
  }
}

// k = 1: the chance of an expert is exact, however skewed, also where sets of groups are drawn (of more than 12; then
// within their own error).
TEST(GroupLimited, Skewed_DrawsAgree) {
  const int tokens = 20000;
  for (const Limit& r : {Limit{32, 1, 8, 3}, {32, 1, 4, 2}, {32, 1, 16, 4}}) {
    const RoutingProfile zipf{RoutingProfile::Kind::zipf, 1, {}, "zipf"};
    const RoutingOdds odds = odds_of(zipf, r);
    const auto ids = draw_routing(zipf, r.experts, 1, tokens, 23, r.groups, r.topk_groups);
    double sum = 0;
    for (int e = 0; e < r.experts; ++e) {
      const double p = odds.chosen(e), samples = r.groups > 12 ? 1800 : tokens;  // 2,048 and 20,000 together
      EXPECT_NEAR(drawn_reach(ids, 1, e, e + 1), p, 3.5 * std::sqrt(p * (1 - p) / samples)) << e;
      EXPECT_NEAR(odds.reached(e, e + 1), p, 1e-9);
      sum += p;
    }
    EXPECT_NEAR(sum, 1, 1e-9);
  }
}

TEST(GroupLimited, DistinctNodes_AreAtMostTheGroups) {
  for (const double skew : {0.0, 0.6, 1.5})
    for (const int topk_groups : {1, 2, 4, 7}) {
      const RoutingProfile profile{RoutingProfile::Kind::zipf, skew, {}, "zipf"};
      const RoutingOdds odds = odds_of(profile, {64, 6, 8, topk_groups}), free = odds_of(profile, {64, 6, 8, 8});
      double nodes = 0, ids = 0;
      for (int node = 0; node < 8; ++node) nodes += odds.reached(8 * node, 8 * node + 8);
      for (int e = 0; e < 64; ++e) {
        ids += odds.chosen(e);
        EXPECT_LE(odds.chosen(e), 1 + 1e-12);
      }
      EXPECT_LE(nodes, topk_groups + 1e-9) << skew;
      EXPECT_GE(nodes, 1 - 1e-9);
      EXPECT_NEAR(ids, 6, 1e-9);
      EXPECT_FALSE(free.limited());
    }
}

TEST(GroupLimited, AllGroupsAllowed_IsNoLimit) {
  for (const double skew : {0.0, 0.8}) {
    const RoutingProfile profile{RoutingProfile::Kind::zipf, skew, {}, "zipf"};
    const RoutingOdds limited = odds_of(profile, {64, 6, 8, 8}), plain = odds_of(profile, {64, 6, 1, 1});
    for (int first = 0; first < 64; first += 5) EXPECT_EQ(limited.reached(first, 64), plain.reached(first, 64));
    for (int e = 0; e < 64; ++e) EXPECT_EQ(limited.chosen(e), plain.chosen(e));
  }
}

// 24 experts in 6 groups of 4; 8 ranks of 3: ranks 0 and 1 lie in one group and in two.
TEST(GroupLimited, RanksAcrossGroups_AreNotAlike) {
  const RankGroups eight(make_layout(8, 1, 1, 1, 1, 8), 4), six(make_layout(6, 1, 1, 1, 1, 6), 3);
  const RoutingOdds odds = odds_of({}, {24, 2, 6, 2}), free = odds_of({}, {24, 2, 6, 6});
  EXPECT_FALSE(ExpectedCounts(eight, odds, 1, 1).alike());
  EXPECT_TRUE(ExpectedCounts(six, odds, 1, 1).alike());
  EXPECT_TRUE(ExpectedCounts(eight, free, 1, 1).alike());
}

}  // namespace
}  // namespace topomoe
