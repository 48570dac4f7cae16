// Popularity, draws and histograms.
#include "topomoe/routing.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>

#include "planner/plan/json.hpp"
#include "tests/planner/helpers.hpp"

namespace topomoe {
namespace {

using Kind = RoutingProfile::Kind;
RoutingProfile zipf(double s) { return {Kind::zipf, s, {}, "zipf"}; }
RoutingProfile histogram(std::vector<double> counts) { return {Kind::histogram, 0, std::move(counts), "counts"}; }

std::vector<double> shares(const std::vector<std::int32_t>& ids, int experts, int k) {
  std::vector<double> share(static_cast<std::size_t>(experts), 0.0);
  for (const auto id : ids) share[static_cast<std::size_t>(id)] += 1.0 * k / static_cast<double>(ids.size());
  return share;
}

TEST(Routing, Popularity_SumsToOne) {
  for (const auto& profile : {RoutingProfile{}, zipf(0), zipf(1.2), zipf(10), histogram({5, 0, 1, 2})}) {
    const auto p = expert_popularity(profile, 4);
    EXPECT_NEAR(std::accumulate(p.begin(), p.end(), 0.0), 1, 1e-12);
  }
  EXPECT_EQ(expert_popularity(RoutingProfile{}, 4), std::vector<double>(4, 0.25));
  const auto p = expert_popularity(zipf(1), 2);  // 1 : 1/2
  EXPECT_NEAR(p[0], 2.0 / 3, 1e-15);
  EXPECT_EQ(expert_popularity(histogram({1, 3}), 2), (std::vector<double>{0.25, 0.75}));
}

TEST(Routing, Histogram_WrongSize_SaysSo) {
  EXPECT_HAS(message_of([] {
               expert_popularity(histogram({1, 2}), 4);
             }),
             "2 counts: must have one count for each of the 4");
}

TEST(Routing, Draws_DistinctInRangeAndDeterministic) {
  for (const auto& profile : {RoutingProfile{}, zipf(1.5), zipf(10), histogram({0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0})})
    for (const int k : {1, 2, 5, 12}) {
      const auto ids = draw_routing(profile, 12, k, 200, 42);
      ASSERT_EQ(ids.size(), static_cast<std::size_t>(200 * k));
      EXPECT_EQ(ids, draw_routing(profile, 12, k, 200, 42));
      for (std::size_t token = 0; token < 200; ++token) {
        const auto row = ids.begin() + static_cast<std::ptrdiff_t>(token) * k;
        EXPECT_EQ(std::set<int>(row, row + k).size(), static_cast<std::size_t>(k));
        for (auto id = row; id != row + k; ++id) EXPECT_TRUE(*id >= 0 && *id < 12);
      }
    }
  EXPECT_NE(draw_routing({}, 64, 4, 100, 1), draw_routing({}, 64, 4, 100, 2));
}

// Pins the generator: plans made elsewhere from the same seed must be the same.
TEST(Routing, Draws_KnownSeed_KnownIds) {
  EXPECT_EQ(draw_routing({}, 8, 2, 3, 0), (std::vector<std::int32_t>{7, 2, 0, 5, 3, 0}));
  EXPECT_EQ(draw_routing(histogram({1, 2, 3, 4}), 4, 2, 3, 0), (std::vector<std::int32_t>{3, 2, 0, 3, 1, 2}));
}

TEST(Routing, Draws_SharesFollowPopularity) {
  // Binomial error of a share p over n tokens: below 5 sqrt(p / n).
  const int n = 40000;
  for (const auto& profile : {RoutingProfile{}, zipf(1), histogram({1, 0, 3, 4})}) {
    const auto p = expert_popularity(profile, 4);
    const auto share = shares(draw_routing(profile, 4, 1, n, 9), 4, 1);
    for (std::size_t e = 0; e < 4; ++e) EXPECT_NEAR(share[e], p[e], 5 * std::sqrt(p[e] / n));
  }
  // Two of three experts of weights 2, 1, 1. Expert 0 is left out when
  // one of the others comes first (1/2) and then the third (1 of weights 2 and 1): 1/6.
  const auto share = shares(draw_routing(histogram({2, 1, 1}), 3, 2, n, 9), 3, 2);
  EXPECT_NEAR(share[0], 5.0 / 6, 5 * std::sqrt(1.0 / n));
}

TEST(Routing, Draws_DeadExperts_ComeLast) {
  const auto ids = draw_routing(histogram({0, 1, 0, 0}), 4, 2, 500, 3);
  std::set<int> second;
  for (std::size_t token = 0; token < 500; ++token) {
    EXPECT_EQ(ids[2 * token], 1);
    second.insert(ids[2 * token + 1]);
  }
  EXPECT_EQ(second, (std::set<int>{0, 2, 3}));
}

TEST(Routing, Draws_GroupLimited_StayInTheirGroups) {
  for (const auto& profile : {RoutingProfile{}, zipf(1)}) {
    const auto ids = draw_routing(profile, 32, 6, 300, 5, 8, 3);
    for (std::size_t token = 0; token < 300; ++token) {
      std::set<int> groups, experts;
      for (std::size_t i = 0; i < 6; ++i) groups.insert(ids[6 * token + i] / 4), experts.insert(ids[6 * token + i]);
      EXPECT_LE(groups.size(), 3u);
      EXPECT_EQ(experts.size(), 6u);
    }
  }
}

TEST(Routing, Draws_BadArguments_AreNamed) {
  EXPECT_HAS(message_of([] { draw_routing({}, 8, 9, 1, 0); }), "routing: k: 9: must be 1 to 8");
  EXPECT_HAS(message_of([] { draw_routing({}, 8, 5, 1, 0, 4, 2); }), "routing: k: 5: must be 1 to 4");
  EXPECT_HAS(message_of([] { draw_routing({}, 8, 1, 1, 0, 3, 1); }), "routing: groups: 3");
  EXPECT_HAS(message_of([] { draw_routing({}, 8, 1, -1, 0); }), "routing: tokens: -1");
  EXPECT_TRUE(draw_routing({}, 8, 1, 0, 0).empty());
}

TEST(Routing, DistinctGroups_FormulaAgreesWithDraws) {
  EXPECT_DOUBLE_EQ(expected_distinct_groups(8, 1, 2), 1);
  EXPECT_DOUBLE_EQ(expected_distinct_groups(8, 8, 2), 2);        // a group an expert
  EXPECT_DOUBLE_EQ(expected_distinct_groups(4, 2, 2), 5.0 / 3);  // 2 (1 - C(2,2)/C(4,2)) = 2 (1 - 1/6)
  EXPECT_DOUBLE_EQ(expected_distinct_groups(4, 2, 4), 2);
  const auto ids = draw_routing({}, 256, 8, 20000, 11);
  double sum = 0;
  for (std::size_t token = 0; token < 20000; ++token) {
    std::set<int> groups;
    for (std::size_t i = 0; i < 8; ++i) groups.insert(ids[8 * token + i] / 32);
    sum += static_cast<double>(groups.size());
  }
  EXPECT_NEAR(sum / 20000, expected_distinct_groups(256, 8, 8), 0.03);
}

TEST(RoutingHistogram, JsonCsvAndSingleLine_AreTheSame) {
  const std::vector<double> counts = {10, 0, 2.5};
  for (const char* text : {"[10, 0, 2.5]", "10\n0\n2.5\n", "expert,count\n0,10\r\n1,0\r\n2,2.5\r\n", "10, 0, 2.5\n",
                           "# measured\n10\n\n0\n2.5"})
    EXPECT_EQ(read_histogram(text, "h").histogram, counts) << text;
}

TEST(RoutingHistogram, Broken_NamesPlace) {
  const auto message = [](const char* text) { return message_of([&] { read_histogram(text, "h.csv"); }); };
  EXPECT_HAS(message("1\n2\nx\n"), "h.csv: line 3: \"x\": must be a count");
  EXPECT_HAS(message("1\n-2\n"), "h.csv: histogram[1]");
  EXPECT_HAS(message("1\nnan\n"), "line 2");
  EXPECT_HAS(message("[1, \"2\"]"), "h.csv: [1]: \"2\": must be a count");
  EXPECT_HAS(message("[1, 2"), "h.csv: line 1, byte 6");
  EXPECT_HAS(message("{}"), "must be an array");
  EXPECT_HAS(message(""), "sums to 0");
  EXPECT_HAS(message("[0, 0]"), "sums to 0");
  std::mt19937 random(3);
  for (int round = 0; round < 500; ++round) {
    std::string noise(random() % 40, '[');
    for (char& c : noise) c = "0123456789,.\n[]{}eE+-\"x\xff"[random() % 24];
    try {
      check(read_histogram(noise, "x"));
    } catch (const InvalidInput&) {
    }
  }
}

TEST(RoutingJson, RoundTrip_IsIdentical) {
  for (const auto& profile : {RoutingProfile{}, zipf(0.7), histogram({1, 2.5, 0})}) {
    const std::string text = to_json(profile).dump(2);
    EXPECT_EQ(routing_from_json(parse_json(text, "x")), profile);
    EXPECT_EQ(to_json(routing_from_json(parse_json(text, "x"))).dump(2), text);
  }
  EXPECT_HAS(message_of([] { routing_from_json({{"kind", "zipf"}, {"name", ""}}); }), "routing: zipf_s: missing");
  EXPECT_HAS(message_of([] { routing_from_json({{"kind", "uniform"}, {"name", ""}, {"zipf_s", 1}}); }), "unknown key");
  EXPECT_HAS(message_of([] { routing_from_json({{"kind", "flat"}, {"name", ""}}); }), "must be one of uniform, zipf");
  EXPECT_HAS(message_of([] { check(zipf(std::numeric_limits<double>::quiet_NaN())); }), "zipf_s");
}

}  // namespace
}  // namespace topomoe
