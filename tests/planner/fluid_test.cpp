// The fluid core: values worked out by hand, and laws on random sets of flows.

#include "planner/fluid.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace topomoe {
namespace {

using Uses = std::vector<std::pair<int, double>>;

Flow flow(double work, std::vector<int> resources) {
  Flow f;
  f.work = work;
  for (const int r : resources) f.uses.emplace_back(r, 1);
  return f;
}

struct Random {
  std::mt19937 engine;
  int below(int n) { return static_cast<int>(engine() % static_cast<unsigned>(n)); }
  double uniform(double low, double high) { return low + (high - low) * static_cast<double>(engine()) / 4294967296.0; }
};

struct Case {
  std::vector<Flow> flows;
  std::vector<double> capacity;
};

// Weights, limits, queues and dependencies, all mixed; capacities of a few values, so that ties happen.
Case random_case(Random& random, bool order = true) {
  Case c;
  for (int r = 1 + random.below(6); r > 0; --r) c.capacity.push_back(1 + random.below(3));
  for (int i = 0, n = 1 + random.below(40); i < n; ++i) {
    Flow f;
    f.work = order && random.below(8) == 0 ? 0 : random.below(2) ? 1 + random.below(3) : random.uniform(0.1, 3);
    for (int r = 0; r < static_cast<int>(c.capacity.size()); ++r)
      if (random.below(2)) f.uses.emplace_back(r, random.below(2) ? 1 : random.uniform(0.01, 2));
    if (f.uses.empty() || random.below(3) == 0) f.limit = random.below(2) ? 0.5 : random.uniform(0.05, 2);
    if (order && random.below(3) == 0) f.queue = random.below(3);
    for (int j = 0; order && j < i; ++j)
      if (random.below(20) == 0) f.after.push_back(j);
    c.flows.push_back(std::move(f));
  }
  return c;
}

std::vector<double> rates(const Case& c, const std::vector<int>& active) {
  std::vector<double> rate;
  const auto flows = views(c.flows);
  MaxMin(flows, c.capacity).share(active, rate);
  return rate;
}

std::size_t at(int i) { return static_cast<std::size_t>(i); }

std::vector<int> all(const Case& c) {
  std::vector<int> active(c.flows.size());
  std::iota(active.begin(), active.end(), 0);
  return active;
}

double makespan(const std::vector<Interval>& intervals) {
  double end = 0;
  for (const Interval& i : intervals) end = std::max(end, i.end_s);
  return end;
}

TEST(MaxMin, ClassicLine_ByHand) {
  // Resource 0 (capacity 1) has flows 0 and 1, resource 1 (capacity 2) has 0 and 2. Resource 0 fills at 1/2 and
  // fixes 0 and 1; flow 2 gets what 0 leaves of resource 1: 2 - 1/2.
  const Case c{{flow(1, {0, 1}), flow(1, {0}), flow(1, {1})}, {1, 2}};
  const auto rate = rates(c, all(c));
  EXPECT_DOUBLE_EQ(rate[0], 0.5);
  EXPECT_DOUBLE_EQ(rate[1], 0.5);
  EXPECT_DOUBLE_EQ(rate[2], 1.5);
}

TEST(MaxMin, LimitedFlow_LeavesTheRestToOthers) {
  Case c{{flow(1, {0}), flow(1, {0}), flow(1, {0})}, {1}};
  c.flows[1].limit = 0.1;  // (1 - 0.1) / 2 for the others
  const auto rate = rates(c, all(c));
  EXPECT_DOUBLE_EQ(rate[0], 0.45);
  EXPECT_DOUBLE_EQ(rate[1], 0.1);
}

TEST(MaxMin, RandomSets_FillNothingBeyondItsCapacityAndNoRateCanRise) {
  Random random{std::mt19937(3)};
  for (int round = 0; round < 500; ++round) {
    const Case c = random_case(random, false);
    const auto rate = rates(c, all(c));
    std::vector<double> load(c.capacity.size()), fastest(c.capacity.size());
    for (std::size_t f = 0; f < c.flows.size(); ++f)
      for (const auto& [r, weight] : c.flows[f].uses) {
        load[at(r)] += weight * rate[f];
        fastest[at(r)] = std::max(fastest[at(r)], rate[f]);
      }
    for (std::size_t r = 0; r < load.size(); ++r) EXPECT_LE(load[r], c.capacity[r] * (1 + 1e-9));
    // A flow is at its limit, or on a full resource where none is faster: raising it would lower one that is not
    // larger.
    for (std::size_t f = 0; f < c.flows.size(); ++f) {
      EXPECT_LE(rate[f], c.flows[f].limit * (1 + 1e-9));
      bool held = rate[f] >= c.flows[f].limit * (1 - 1e-9);
      for (const auto& [r, weight] : c.flows[f].uses)
        held |= load[at(r)] >= c.capacity[at(r)] * (1 - 1e-9) && rate[f] >= fastest[at(r)] * (1 - 1e-9);
      EXPECT_TRUE(held) << "round " << round << ", flow " << f;
    }
  }
}

TEST(MaxMin, FlowsElsewhere_ChangeNothing) {
  // Few flows are shared out by rounds, many by a heap; both give the same rates.
  Random random{std::mt19937(4)};
  for (int round = 0; round < 300; ++round) {
    Case c = random_case(random, false);
    c.flows.resize(std::min<std::size_t>(c.flows.size(), 8));
    const auto alone = rates(c, all(c));
    for (int i = 0; i < 10; ++i) c.flows.push_back(flow(1, {static_cast<int>(c.capacity.size())}));
    c.capacity.push_back(5);
    const auto beside = rates(c, all(c));
    for (std::size_t f = 0; f < alone.size(); ++f) EXPECT_NEAR(beside[f], alone[f], 1e-9 * alone[f]);
    EXPECT_DOUBLE_EQ(beside.back(), 0.5);
  }
}

TEST(MaxMin, AllCapacitiesTimesC_RatesTimesC) {
  Random random{std::mt19937(5)};
  for (int round = 0; round < 200; ++round) {
    Case c = random_case(random, false);
    const auto before = rates(c, all(c));
    for (double& capacity : c.capacity) capacity *= 3;
    for (Flow& f : c.flows) f.limit *= 3;
    const auto after = rates(c, all(c));
    for (std::size_t f = 0; f < before.size(); ++f) EXPECT_NEAR(after[f], 3 * before[f], 1e-9 * after[f]);
  }
}

TEST(Fluid, RingOfQueues_ByHand) {
  // Both queues' first flows share resource 0 at 1/2. Flow 0 (work 1) ends at 2; flow 2 (its successor, on resource
  // 1) runs alone until 3. Flow 1 has 2 of 3 left at 2 and ends at 4; flow 3 waits for it and for flow 2.
  std::vector<Flow> flows{flow(1, {0}), flow(3, {0}), flow(1, {1}), flow(1, {1})};
  flows[0].queue = flows[2].queue = 0;
  flows[1].queue = flows[3].queue = 1;
  flows[3].after = {2};
  const auto t = run_fluid(flows, std::vector<double>{1, 1});
  EXPECT_NEAR(t[0].end_s, 2, 1e-9);
  EXPECT_NEAR(t[1].end_s, 4, 1e-9);
  EXPECT_NEAR(t[2].end_s, 3, 1e-9);
  EXPECT_NEAR(t[3].begin_s, 4, 1e-9);
  EXPECT_NEAR(t[3].end_s, 5, 1e-9);
}

TEST(Fluid, RandomSets_DoTheirWorkAtMaxMinRates) {
  // Replays the intervals: between two events the flows that run advance at the rates that MaxMin gives them.
  Random random{std::mt19937(6)};
  for (int round = 0; round < 300; ++round) {
    const Case c = random_case(random);
    const auto out = run_fluid(c.flows, c.capacity);
    std::vector<double> events, done(c.flows.size());
    for (const Interval& i : out) events.insert(events.end(), {i.begin_s, i.end_s});
    std::sort(events.begin(), events.end());
    for (std::size_t e = 0; e + 1 < events.size(); ++e) {
      const double span = events[e + 1] - events[e], middle = events[e] + span / 2;
      if (span <= 0) continue;
      std::vector<int> active;
      for (int f = 0; f < static_cast<int>(out.size()); ++f)
        if (out[at(f)].begin_s < middle && middle < out[at(f)].end_s) active.push_back(f);
      if (active.empty()) continue;
      const auto rate = rates(c, active);
      for (const int f : active) done[at(f)] += rate[at(f)] * span;
    }
    for (std::size_t f = 0; f < done.size(); ++f) EXPECT_NEAR(done[f], c.flows[f].work, 1e-6) << "round " << round;
    EXPECT_GE(makespan(out), fluid_bound(c.flows, c.capacity) * (1 - 1e-9));
    for (std::size_t f = 0; f < out.size(); ++f)
      for (const int a : c.flows[f].after) EXPECT_GE(out[f].begin_s, out[at(a)].end_s);
  }
}

TEST(Fluid, AllCapacitiesTimesC_TimesOverC) {
  Random random{std::mt19937(7)};
  for (int round = 0; round < 200; ++round) {
    Case c = random_case(random);
    const auto before = run_fluid(c.flows, c.capacity);
    for (double& capacity : c.capacity) capacity *= 4;  // a power of two: the same bits
    for (Flow& f : c.flows) f.limit *= 4;
    const auto after = run_fluid(c.flows, c.capacity);
    for (std::size_t f = 0; f < before.size(); ++f) EXPECT_DOUBLE_EQ(after[f].end_s * 4, before[f].end_s);
  }
}

TEST(Fluid, OneMoreFlow_NeverLowersTheBound) {
  Random random{std::mt19937(8)};
  for (int round = 0; round < 200; ++round) {
    Case c = random_case(random);
    double bound = fluid_bound(c.flows, c.capacity);
    while (!c.flows.empty()) {
      c.flows.pop_back();
      const double less = fluid_bound(c.flows, c.capacity);
      EXPECT_LE(less, bound);
      bound = less;
    }
  }
}

TEST(Fluid, OneResourceAlwaysBusy_EndsAtItsBound) {
  // However flows share it, a resource that all of them fill is done when volume / capacity is over.
  Random random{std::mt19937(9)};
  for (int round = 0; round < 100; ++round) {
    Case c{{}, {2}};
    for (int i = 1 + random.below(50); i > 0; --i) c.flows.push_back(flow(random.uniform(0.1, 3), {0}));
    EXPECT_NEAR(makespan(run_fluid(c.flows, c.capacity)), fluid_bound(c.flows, c.capacity), 1e-6);
  }
}

// Ranks on hosts of 4 behind one uplink each: out 0 .. n-1, in n .. 2n-1, up and down of the hosts after that.
Case all_to_all(int ranks, double uplink, Random* random = nullptr) {
  Case c;
  c.capacity.assign(at(2 * ranks), 1.0);
  c.capacity.insert(c.capacity.end(), at(2 * (ranks / 4)), uplink);
  for (int a = 0; a < ranks; ++a)
    for (int b = 0; b < ranks; ++b) {
      if (a == b) continue;
      c.flows.push_back(flow(random ? random->uniform(0.5, 2) : 1, {a, ranks + b}));
      if (a / 4 == b / 4) continue;
      c.flows.back().uses.emplace_back(2 * ranks + a / 4 * 2, 1);
      c.flows.back().uses.emplace_back(2 * ranks + b / 4 * 2 + 1, 1);
    }
  return c;
}

TEST(Fluid, SymmetricAllToAll_IsTwoClassesAndTwoEvents) {
  // 8 ranks on 2 hosts, uplink 1. A host sends 4 x 4 flows through its uplink: 1/16 each. Then a rank's own 3 flows
  // get (1 - 4/16) / 3 = 1/4 each. Inside ends at 4, outside at 16.
  const Case c = all_to_all(8, 1);
  const FlowClasses classes = flow_classes(c.flows, c.capacity);
  EXPECT_EQ(classes.flows.size(), 2u);
  EXPECT_EQ(classes.capacity.size(), 2u) << "ports of ranks; uplinks: in is out the other way round";
  const auto t = run_fluid(c.flows, c.capacity);
  for (std::size_t f = 0; f < t.size(); ++f) EXPECT_NEAR(t[f].end_s, c.flows[f].uses.size() == 2 ? 4 : 16, 1e-8);
  EXPECT_EQ(flow_classes(all_to_all(128, 1).flows, all_to_all(128, 1).capacity).flows.size(), 2u);
}

TEST(Fluid, BrokenSymmetry_IsSeen) {
  Case c = all_to_all(16, 1);
  c.capacity.back() = 0.5;  // one host receives at half the rate
  const auto t = run_fluid(c.flows, c.capacity);
  // 4 x 12 flows of work 1 through it.
  EXPECT_NEAR(makespan(t), 48 / 0.5, 1e-6);
  EXPECT_GT(flow_classes(c.flows, c.capacity).flows.size(), 2u);
}

TEST(Fluid, MergedFlows_EndWhenEachOnItsOwnWould) {
  Random random{std::mt19937(10)};
  for (int round = 0; round < 60; ++round) {
    Case c = round % 2 ? random_case(random, false) : all_to_all(8 + 4 * random.below(3), random.uniform(0.5, 5));
    if (round % 4 == 0) c.capacity[at(random.below(static_cast<int>(c.capacity.size())))] *= 0.5;
    const auto merged = run_fluid(c.flows, c.capacity);
    for (std::size_t f = 0; f < c.flows.size(); ++f) c.flows[f].queue = static_cast<int>(f);  // classes of their own
    const auto single = run_fluid(c.flows, c.capacity);
    for (std::size_t f = 0; f < single.size(); ++f) EXPECT_NEAR(merged[f].end_s, single[f].end_s, 1e-6);
  }
}

TEST(Fluid, SuccessorsOfMergedFlows_StartWhenTheyEnd) {
  Case c = all_to_all(8, 1);
  const int n = static_cast<int>(c.flows.size());
  for (int i = 0; i < 3; ++i) {
    c.flows.push_back(flow(1, {i}));
    c.flows.back().after = {n - 1 - i, i};
  }
  const auto t = run_fluid(c.flows, c.capacity);
  for (int i = 0; i < 3; ++i) EXPECT_DOUBLE_EQ(t[at(n + i)].begin_s, std::max(t[at(n - 1 - i)].end_s, t[at(i)].end_s));
}

TEST(Fluid, NothingThatLimitsAFlow_IsOurBug) {
  std::vector<Flow> flows{flow(1, {})};
  EXPECT_THROW(run_fluid(flows, {}), std::logic_error);
  flows[0].work = 0;
  EXPECT_EQ(run_fluid(flows, {})[0].end_s, 0);
  flows[0].after = {0};
  EXPECT_THROW(run_fluid(flows, {}), std::logic_error);
}

}  // namespace
}  // namespace topomoe
