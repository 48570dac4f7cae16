// Gradients in the slack: laws on random cases, and the fewest bytes left against every schedule of small cases.
#include "planner/gradient_slack.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

std::function<double(double)> line(double per_operation_s, double per_byte_s) {
  return [=](double bytes) { return bytes > 0 ? per_operation_s + per_byte_s * bytes : 0; };
}

TEST(GradientSlack, SendsInTheFirstWindowThatHasRoom) {
  // 1 s an operation, 1 s a byte. The window of 3 s takes 2 bytes of the 5, that of 10 s the rest: 1 + 3 s.
  const std::vector<Interval> windows{{0, 3}, {5, 15}};
  const std::vector<GradientPiece> pieces{{5, 0}};
  const SlackPlan plan = place_gradients(windows, pieces, line(1, 1));
  ASSERT_EQ(plan.operations.size(), 2u);
  EXPECT_DOUBLE_EQ(plan.operations[0].bytes, 2);
  EXPECT_DOUBLE_EQ(plan.operations[1].end_s, 9);
  EXPECT_EQ(plan.exposed_s, 0);
}

TEST(GradientSlack, WhatIsReadyTooLateIsExposed) {
  const std::vector<Interval> windows{{0, 10}};
  const std::vector<GradientPiece> pieces{{2, 0}, {4, 12}};
  const SlackPlan plan = place_gradients(windows, pieces, line(1, 1));
  EXPECT_DOUBLE_EQ(plan.hidden_bytes, 2);
  EXPECT_DOUBLE_EQ(plan.exposed_s, 5);
}

TEST(GradientSlack, WaitsForMore_WhereTwoOperationsWouldCostTooMuch) {
  // 4 s an operation, 1 s a byte, a window of 10 s. At once: 1 byte until 5 s, then 1 more until 10 s. After
  // waiting 1 s for the 5 bytes: 9 s take 5 of the 6.
  const std::vector<Interval> windows{{0, 10}};
  const std::vector<GradientPiece> pieces{{1, 0}, {5, 1}};
  const SlackPlan plan = place_gradients(windows, pieces, line(4, 1));
  ASSERT_EQ(plan.operations.size(), 1u);
  EXPECT_DOUBLE_EQ(plan.operations[0].begin_s, 1);
  EXPECT_DOUBLE_EQ(plan.hidden_bytes, 5);
  EXPECT_DOUBLE_EQ(plan.greedy_exposed_s, 4 + 4);
  EXPECT_DOUBLE_EQ(plan.exposed_s, 4 + 1);
}

struct Case {
  std::vector<Interval> windows;
  std::vector<GradientPiece> pieces;
  double per_operation = 0, end = 0;
};

// Whole seconds and bytes, so that every schedule can be tried.
Case random_case(std::mt19937& random) {
  const auto draw = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  Case c;
  c.per_operation = draw(0, 4);
  double now = 0;
  for (int w = draw(1, 3); w > 0; --w) {
    const double begin = now + draw(0, 3);
    now = begin + draw(0, 8);
    c.windows.push_back({begin, now});
  }
  c.end = now;
  for (int p = draw(1, 5); p > 0; --p)
    c.pieces.push_back({static_cast<double>(draw(0, 5)), static_cast<double>(draw(-1, static_cast<int>(now) + 1))});
  return c;
}

TEST(GradientSlack, Laws) {
  std::mt19937 random(21);
  for (int i = 0; i < 2000; ++i) {
    const Case c = random_case(random);
    const auto time_s = line(c.per_operation, 1);
    const SlackPlan plan = place_gradients(c.windows, c.pieces, time_s);
    std::vector<double> sent(c.pieces.size());
    double hidden = 0, all = 0, free = -10;
    for (const SlackOperation& op : plan.operations) {
      const Interval& w = c.windows[static_cast<std::size_t>(op.window)];
      EXPECT_GE(op.begin_s, std::max(w.begin_s, free));  // inside its window, one at a time
      EXPECT_LE(op.end_s, w.end_s);
      EXPECT_DOUBLE_EQ(op.end_s - op.begin_s, time_s(op.bytes));
      free = op.end_s;
      double parts = 0;
      for (const auto& [piece, bytes] : op.parts) {
        EXPECT_LE(c.pieces[static_cast<std::size_t>(piece)].ready_s, op.begin_s);  // causality
        EXPECT_GT(bytes, 0);
        sent[static_cast<std::size_t>(piece)] += bytes;
        parts += bytes;
      }
      EXPECT_DOUBLE_EQ(parts, op.bytes);
      hidden += op.bytes;
    }
    for (std::size_t p = 0; p < sent.size(); ++p) {
      EXPECT_LE(sent[p], c.pieces[p].bytes);
      all += c.pieces[p].bytes;
    }
    EXPECT_DOUBLE_EQ(plan.hidden_bytes, hidden);
    EXPECT_DOUBLE_EQ(plan.hidden_bytes + plan.exposed_bytes, all);  // bytes are conserved
    EXPECT_DOUBLE_EQ(plan.exposed_s, time_s(plan.exposed_bytes));
    EXPECT_LE(plan.exposed_s, plan.greedy_exposed_s);
    double room = 0;  // the slack bound: one operation a window
    for (const Interval& w : c.windows) room += bytes_in(w.end_s - w.begin_s, 1000, time_s);
    EXPECT_LE(plan.hidden_bytes, room);
  }
}

// The most bytes that any schedule hides from second `now` on, with `there` bytes ready and the lane free.
double most_hidden(const Case& c, int now, int there, std::map<std::pair<int, int>, double>& known) {
  if (now > c.end) return 0;
  const auto [at, fresh] = known.try_emplace({now, there}, 0);
  if (!fresh) return at->second;
  const auto arriving = [&](int after, int until) {
    int bytes = 0;
    for (const GradientPiece& p : c.pieces)
      if (p.ready_s > after && p.ready_s <= until) bytes += static_cast<int>(p.bytes);
    return bytes;
  };
  double best = most_hidden(c, now + 1, there + arriving(now, now + 1), known);
  for (const Interval& w : c.windows)
    for (int bytes = 1; bytes <= there; ++bytes) {
      const int end = now + static_cast<int>(c.per_operation) + bytes;
      if (now < w.begin_s || end > w.end_s) continue;
      best = std::max(best, bytes + most_hidden(c, end, there - bytes + arriving(now, end), known));
    }
  return known[{now, there}] = best;
}

TEST(GradientSlack, NoScheduleHidesMore_SmallCases) {
  std::mt19937 random(22);
  int beats_greedy = 0;
  for (int i = 0; i < 3000; ++i) {
    const Case c = random_case(random);
    std::map<std::pair<int, int>, double> known;
    int there = 0;
    for (const GradientPiece& p : c.pieces)
      if (p.ready_s <= 0) there += static_cast<int>(p.bytes);
    const SlackPlan plan = place_gradients(c.windows, c.pieces, line(c.per_operation, 1));
    EXPECT_DOUBLE_EQ(plan.hidden_bytes, most_hidden(c, 0, there, known)) << "case " << i;
    beats_greedy += plan.exposed_s < plan.greedy_exposed_s;
  }
  EXPECT_GT(beats_greedy, 10);  // moving operations together is seen at work
}

TEST(GradientSlack, BytesInASpan_AreTheMostToTheByte) {
  std::mt19937 random(23);
  const auto draw = [&](double low, double high) { return std::uniform_real_distribution<double>(low, high)(random); };
  for (int i = 0; i < 2000; ++i) {
    // Bends at 2 to 6 sizes, flat parts among them, as measured curves do.
    std::vector<std::pair<double, double>> knots{{1, draw(1, 20)}};
    for (int k = i % 5; k >= 0; --k)
      knots.emplace_back(knots.back().first * draw(2, 1000),
                         knots.back().second * (draw(0, 1) < 0.2 ? 1 : draw(1, 300)));
    const auto time_s = [&](double bytes) {
      if (bytes <= 0) return 0.0;
      std::size_t k = 1;
      while (k + 1 < knots.size() && bytes > knots[k].first) ++k;
      const auto &a = knots[k - 1], &b = knots[k];
      return a.second + std::max(0.0, bytes - a.first) / (b.first - a.first) * (b.second - a.second);
    };
    const double most = std::floor(draw(1, 2 * knots.back().first)), seconds = draw(0, 1.2 * time_s(most));
    const double bytes = bytes_in(seconds, most, time_s);
    EXPECT_LE(time_s(bytes), seconds);
    EXPECT_TRUE(bytes == most || time_s(bytes + 1) > seconds) << i;
  }
}

TEST(GradientSlack, RejectsByName) {
  const std::vector<GradientPiece> piece{{1, 0}};
  const std::vector<Interval> overlap{{0, 2}, {1, 3}}, fine{{0, 2}};
  EXPECT_THROW(place_gradients(overlap, piece, line(1, 1)), InvalidInput);
  EXPECT_THROW(place_gradients(fine, std::vector<GradientPiece>{{-1, 0}}, line(1, 1)), InvalidInput);
  EXPECT_THROW(place_gradients(std::vector<Interval>{{2, 0}}, piece, line(1, 1)), InvalidInput);
}

TEST(IdleWindows, AreWhatIsNotBusy) {
  const std::vector<Interval> busy{{1, 2}, {2, 3}, {5, 6}};
  const auto idle = idle_windows(busy, 0, 8);
  ASSERT_EQ(idle.size(), 3u);
  EXPECT_EQ(idle[0].end_s, 1);
  EXPECT_EQ(idle[1].begin_s, 3);
  EXPECT_EQ(idle[1].end_s, 5);
  EXPECT_EQ(idle[2].begin_s, 6);
  EXPECT_EQ(idle[2].end_s, 8);
  EXPECT_TRUE(idle_windows(std::vector<Interval>{{0, 9}}, 0, 8).empty());
  EXPECT_EQ(idle_windows({}, 0, 8).size(), 1u);
}

}  // namespace
}  // namespace topomoe
