// The fluid timeline against values worked out by hand.

#include "planner/timeline.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace topomoe {
namespace {

constexpr Lane A = Lane::compute, B = Lane::copy, C = Lane::intra_node, D = Lane::inter_node;

TEST(Timeline, OneLane_RunsInOrder) {
  const std::vector<Task> tasks{{A, 2, {}, {}}, {A, 3, {}, {}}};
  const auto t = run_timeline(tasks, 0);
  EXPECT_DOUBLE_EQ(t[0].end_s, 2);
  EXPECT_DOUBLE_EQ(t[1].begin_s, 2);
  EXPECT_DOUBLE_EQ(t[1].end_s, 5);
}

TEST(Timeline, TwoLanesNoSharing_Overlap) {
  const std::vector<Task> tasks{{A, 2, {{0, 2}}, {}}, {B, 3, {{1, 3}}, {}}};
  const auto t = run_timeline(tasks, 2);
  EXPECT_DOUBLE_EQ(t[0].end_s, 2);
  EXPECT_DOUBLE_EQ(t[1].end_s, 3);
}

TEST(Timeline, SameResource_SharesFairly) {
  // Both want resource 0 fully: half speed each. The shorter ends at 2, having done 1 s of work; the other
  // has 2 of 3 left and runs alone: 2 + 2 = 4.
  const std::vector<Task> tasks{{A, 1, {{0, 1}}, {}}, {B, 3, {{0, 3}}, {}}};
  const auto t = run_timeline(tasks, 1);
  EXPECT_NEAR(t[0].end_s, 2, 1e-9);
  EXPECT_NEAR(t[1].end_s, 4, 1e-9);
}

TEST(Timeline, MaxMin_LightUserIsNotSlowed) {
  // Task 0 uses 20 % of the resource, task 1 all of it. Filling together: at speed s the load is 1.2 s, full at
  // s = 5/6. Both are on the full resource, so both run at 5/6.
  const std::vector<Task> tasks{{A, 10, {{0, 2}}, {}}, {B, 10, {{0, 10}}, {}}};
  const auto t = run_timeline(tasks, 1);
  EXPECT_NEAR(t[0].end_s, 12, 1e-9);
  EXPECT_NEAR(t[1].end_s, 12, 1e-9);
}

TEST(Timeline, ThreeTasksTwoResources_FillsTheRest) {
  // 0 and 1 share resource 0 at 1/2; 2 shares resource 1 with task 1 (1/2 x 1), so it gets the other half... and
  // rises alone until resource 1 is full: 1 - 1/2 = 1/2.
  const std::vector<Task> tasks{{A, 4, {{0, 4}}, {}}, {B, 4, {{0, 4}, {1, 4}}, {}}, {C, 4, {{1, 4}}, {}}};
  const auto t = run_timeline(tasks, 2);
  EXPECT_NEAR(t[0].end_s, 8, 1e-9);
  EXPECT_NEAR(t[1].end_s, 8, 1e-9);
  EXPECT_NEAR(t[2].end_s, 8, 1e-9);
}

TEST(Timeline, Dependency_WaitsAcrossLanes) {
  const std::vector<Task> tasks{{D, 5, {}, {}}, {C, 1, {}, {0}}, {D, 5, {}, {}}, {C, 1, {}, {2}}};
  const auto t = run_timeline(tasks, 0);
  EXPECT_DOUBLE_EQ(t[1].begin_s, 5);  // gather of chunk 0 beside the exchange of chunk 1
  EXPECT_DOUBLE_EQ(t[2].end_s, 10);
  EXPECT_DOUBLE_EQ(t[3].end_s, 11);
}

TEST(Timeline, EmptyTasks_TakeNoTimeButOrder) {
  const std::vector<Task> tasks{{A, 0, {}, {}}, {B, 1, {}, {0}}, {A, 0, {}, {1}}};
  const auto t = run_timeline(tasks, 0);
  EXPECT_DOUBLE_EQ(t[2].end_s, 1);
  EXPECT_TRUE(run_timeline({}, 0).empty());
}

// Laws, on random task sets.
TEST(Timeline, RandomTasks_NeverBeatAnyBound) {
  std::mt19937 random(7);
  const auto uniform = [&](double low, double high) {
    return low + (high - low) * static_cast<double>(random()) / 4294967296.0;
  };
  for (int round = 0; round < 300; ++round) {
    const int resources = 1 + static_cast<int>(random() % 4), n = 1 + static_cast<int>(random() % 20);
    std::vector<Task> tasks;
    std::vector<double> volume(static_cast<std::size_t>(resources)), lane_sum(kLaneCount);
    for (int i = 0; i < n; ++i) {
      Task t{static_cast<Lane>(random() % kLaneCount), uniform(0.1, 2), {}, {}};
      for (int r = 0; r < resources; ++r)
        if (random() % 2) t.uses.emplace_back(r, t.alone_s * uniform(0, 1));
      for (int j = 0; j < i; ++j)
        if (random() % 6 == 0) t.after.push_back(j);
      for (const auto& [r, s] : t.uses) volume[static_cast<std::size_t>(r)] += s;
      lane_sum[static_cast<std::size_t>(t.lane)] += t.alone_s;
      tasks.push_back(std::move(t));
    }
    const auto out = run_timeline(tasks, resources);
    double end = 0, sum = 0;
    for (std::size_t i = 0; i < out.size(); ++i) {
      EXPECT_GE(out[i].end_s - out[i].begin_s, tasks[i].alone_s * (1 - 1e-6));
      for (const int a : tasks[i].after) EXPECT_GE(out[i].begin_s, out[static_cast<std::size_t>(a)].end_s);
      end = std::max(end, out[i].end_s);
      sum += tasks[i].alone_s;
    }
    for (const double v : volume) EXPECT_GE(end, v * (1 - 1e-6));
    for (const double v : lane_sum) EXPECT_GE(end, v * (1 - 1e-6));
    // All at full speed one after another is the worst that sharing can do... with up to four lanes it never
    // takes longer than that, since some resource that slows a task is always full.
    EXPECT_LE(end, sum * (1 + 1e-6));

    auto slower = tasks;
    for (Task& t : slower) {
      t.alone_s *= 3;
      for (auto& u : t.uses) u.second *= 3;
    }
    const auto scaled = run_timeline(slower, resources);
    for (std::size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(scaled[i].end_s, 3 * out[i].end_s, 1e-6 * end);
  }
}

}  // namespace
}  // namespace topomoe
