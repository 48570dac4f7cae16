// Where the choice of an algorithm would change: the same layout with fewer tokens, down to one. Between
// two powers of two that choose differently, the threshold is found by bisection.
#pragma once

#include <cstdint>
#include <vector>

#include "planner/algorithm_choice.hpp"
#include "planner/step_time.hpp"

namespace topomoe {

struct FlipContext {
  TrafficModel& traffic;
  const Machine& machine;
  LayerWidths widths;
  const std::vector<double>& popularity;
  ScheduleCache& schedules;
  const AlgorithmOptions& options;
  const LayoutCosts& costs;  // of the layout: algorithms are compared by what they make of a whole step
};

// The first changes of split or transport, and of "in chunks" to "in one piece".
std::vector<Flip> find_flips(const FlipContext& c, const Layout& layout, int gpus_per_node, const Algorithm& chosen,
                             double tokens, std::int64_t& priced);

}  // namespace topomoe
