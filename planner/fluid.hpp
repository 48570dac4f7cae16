// The fluid core: when each of many flows runs if resources are shared max-min fairly.
//
// A flow starts when those it waits for and its predecessor in its queue have finished, and then advances at
// its max-min fair rate (planner/max_min); an event is the next flow to finish. Flows that cannot be told
// apart (equal work, on resources that cannot be told apart either) are worked out once, so that a symmetric
// all-to-all has a handful of flows whatever its size. Without symmetry each event costs a pass over the flows
// that still run: 16,256 flows of 128 ranks take 4 ms when alike, 6 s when no two have the same size (measured, -O2).
// Ignored: what max_min ignores, and start-up times.
#pragma once

#include <span>
#include <vector>

#include "planner/max_min.hpp"

namespace topomoe {

struct Interval {
  double begin_s = 0, end_s = 0;
};

// Queue ids are small numbers. Seconds, where work / rate and capacities are per second. Throws std::logic_error when
// flows wait for each other in a circle or one could never end.
std::vector<Interval> run_fluid(std::span<const Flow> flows, std::span<const double> capacity);

// No timeline ends earlier: the largest of work on a resource over its capacity, of the work of a queue at each
// flow's own best rate, and of the longest chain of flows that wait for each other.
double fluid_bound(std::span<const Flow> flows, std::span<const double> capacity);

// Flows that take the same rate at all times, worked out as one each: an equitable partition of flows and
// resources (colour refinement). Flows that queue or wait are classes of their own. Resources that can never be
// the one that decides are left out of `uses`.
struct FlowClasses {
  std::vector<Flow> flows;  // one a class; weights add up those of the whole class on one resource
  std::vector<double> capacity;
  std::vector<int> of_flow;  // flow -> class
};
FlowClasses flow_classes(std::span<const Flow> flows, std::span<const double> capacity);

}  // namespace topomoe
