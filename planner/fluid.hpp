// The fluid core: when each of many flows runs if resources are shared max-min fairly.
//
// A flow starts when those it waits for and its predecessor in its queue have finished, and then advances at
// its max-min fair rate (planner/max_min); an event is the next flow to finish. Flows that cannot be told
// apart (equal work, on resources that cannot be told apart either) are worked out once, so that a symmetric
// all-to-all has a handful of flows whatever its size. Without symmetry each event costs a pass over the flows
// that still run: 16,256 flows of 128 ranks take 4 ms when alike, 6 s when no two have the same size (measured, -O2).
// Ignored: what max_min ignores, and start-up times.
#pragma once

#include <compare>
#include <functional>
#include <span>
#include <vector>

#include "planner/max_min.hpp"

namespace topomoe {

struct Interval {
  double begin_s = 0, end_s = 0;
};

// Who waits for whom: for `after`, and for the predecessor in its queue. Of flows that run on many machines it is
// worked out once.
struct FlowOrder {
  std::vector<int> queue;            // by flow
  std::vector<int> waits_for;        // by flow, how many others
  std::vector<int> first, released;  // flow f releases released[first[f]] .. released[first[f + 1]]
};
// after(f): indices of earlier flows. Throws std::logic_error for others.
FlowOrder flow_order(std::vector<int> queue, const std::function<std::span<const int>(int flow)>& after);

// Runs flows in an order. Holds nothing but scratch space, so that one run after another allocates nothing.
class FluidRun {
 public:
  // By flow; valid until the next call.
  std::span<const Interval> operator()(std::span<const FlowView> flows, const FlowOrder& order,
                                       std::span<const double> capacity);

 private:
  struct Start {
    int round, queue, flow;
    auto operator<=>(const Start&) const = default;
  };
  void finish(const FlowOrder& order, int flow, int round, int queue);
  std::vector<Interval> out_;
  std::vector<int> waits_for_, active_;
  std::vector<double> left_, rate_;
  std::vector<Start> ready_;  // a heap
  MaxMin max_min_;
  double now_ = 0;
  std::size_t finished_ = 0;
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
