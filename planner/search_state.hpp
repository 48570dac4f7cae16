// What a search shares among its parts: the request, what was worked out once for all layouts, and a candidate.
// Private to the files of the search.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "planner/gradients.hpp"
#include "planner/layer_prices.hpp"
#include "planner/layout_space.hpp"
#include "planner/memory.hpp"
#include "planner/step_time.hpp"
#include "topomoe/planner.hpp"

namespace topomoe {

// A layout and a way to run it; `job` has nothing left open.
struct Candidate {
  Layout layout;
  Job job;
  StepCosts costs;
  Algorithm algorithm;
  std::vector<Algorithm> later;  // of the kinds of MoE layers after the first
  TimeBreakdown time;
  double memory_GiB = 0;
  bool placed = false;  // time: with gradients placed, not only bounded
};

inline MoeTimes moe_times(const Algorithm& a) { return {a.forward_s, a.backward_s, a.idle_s, a.idle, a.wgrad_s}; }

struct PlanCache {
  ScheduleCache schedules;
};

struct Search {
  explicit Search(const PlanRequest& r);
  Search(const Search&) = delete;  // prices refer to other members
  Search& operator=(const Search&) = delete;

  const PlanRequest& request;
  LayoutConstraints constraints;
  Machine machine;
  Router router;
  TrafficModel traffic;
  RoutingOdds odds;
  AlgorithmOptions options;
  double limit_GiB;
  std::shared_ptr<PlanCache> cache;
  LayerPrices prices;  // odds and prices are of the first kind of MoE layers, these of the others
  std::deque<RoutingOdds> later_odds;
  std::deque<LayerPrices> later_prices;

  int gpus_per_node() const { return request.topology.gpus_per_node(); }
  double tokens(const Job& job, const Layout& l) const { return tokens_per_micro_batch(job, l.cp); }
  // Of the worst stage.
  MemoryBreakdown memory(const Job& job, const Layout& l, TokenSplit split, std::span<const StageClass> stages);
  MemoryBreakdown memory(const Job& job, const Layout& l, TokenSplit split);
  // The same of a candidate, its dispatch buffers as the runtime lays them out.
  MemoryBreakdown memory(const Candidate& c);
  double dispatch_scale = 1;  // largest ratio of these to the rule that memory() goes by elsewhere, of what did not fit
  const LayerCosts& layer_costs(const Job& job, const Layout& l);
  // A step's time with gradients placed.
  TimeBreakdown time(const Layout& l, const StepCosts& costs, const Algorithm& a, const std::vector<Algorithm>& later);

 private:
  std::map<std::tuple<int, int, int, bool>, LayerCosts> layers_;  // by tp, cp, micro-batch, sequence parallelism
  std::map<std::tuple<int, int, int, int, int, ExpertOrder, bool>, StepCurves> curves_;  // of layouts timed so far
  std::map<std::pair<int, int>, double> skews_;                                          // by ep and etp
};

// MoE layers that differ (later_kinds.cpp). Each kind has its own algorithm; a layer's time adds to the step whatever
// the others', so each takes its fastest.
std::string algorithms_name(const Candidate& c);  // of all kinds
std::vector<MoeTimes> moe_times(const Algorithm& first, const std::vector<Algorithm>& later);
// Of each kind after the first: what none of its algorithms beats, and its fastest one, of the token splits that fit
// into memory. Empty where one has none.
std::optional<std::vector<MoeTimes>> later_bounds(Search& s, const Candidate& c, const bool (&fits)[2]);
std::optional<std::vector<Algorithm>> fastest_later(Search& s, const Candidate& c, const bool (&fits)[2]);
// Among equally fast ones, those that ask least of the network.
void least_traffic_later(Search& s, Candidate& c, const bool (&fits)[2]);

// A layout and how it is run, for people.
std::string run_name(const Layout& layout, const Job& job);

// The plan of a chosen candidate, without what the search knows about the others.
Plan describe(Search& s, const Candidate& c);

// Why nothing fits into memory, and the smallest change after which something does.
Infeasible too_large(Search& s, const std::vector<Layout>& layouts);

}  // namespace topomoe
