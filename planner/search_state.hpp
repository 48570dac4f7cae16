// What a search shares among its parts: the request, what was worked out once for all layouts, and a candidate.
// Private to the files of the search.
#pragma once

#include <map>
#include <tuple>

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
  std::vector<double> popularity;
  AlgorithmOptions options;
  double limit_GiB;
  std::shared_ptr<PlanCache> cache;
  LayerPrices prices;

  int gpus_per_node() const { return request.topology.gpus_per_node(); }
  double tokens(const Job& job, const Layout& l) const { return tokens_per_micro_batch(job, l.cp); }
  // Of the worst stage.
  MemoryBreakdown memory(const Job& job, const Layout& l, TokenSplit split, std::span<const StageClass> stages);
  MemoryBreakdown memory(const Job& job, const Layout& l, TokenSplit split);
  const LayerCosts& layer_costs(const Job& job, const Layout& l);
  // A step's time with gradients placed.
  TimeBreakdown time(const Layout& l, const StepCosts& costs, const Algorithm& a);

 private:
  std::map<std::tuple<int, int, int, bool>, LayerCosts> layers_;  // by tp, cp, micro-batch, sequence parallelism
  std::map<std::tuple<int, int, int, int, int, ExpertOrder, bool>, StepCurves> curves_;  // of layouts timed so far
  std::map<std::pair<int, int>, double> skews_;                                          // by ep and etp
};

// A layout and how it is run, for people.
std::string run_name(const Layout& layout, const Job& job);

// The plan of a chosen candidate, without what the search knows about the others.
Plan describe(Search& s, const Candidate& c);

// Why nothing fits into memory, and the smallest change after which something does.
Infeasible too_large(Search& s, const std::vector<Layout>& layouts);

}  // namespace topomoe
