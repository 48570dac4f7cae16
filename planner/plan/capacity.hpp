// How much memory a schedule's buffers get before any token exists: the planner's bucket and the runtime's arenas are
// this one calculation.
//
// Model: a TP group holds `tokens` in a pass; the experts of the rank asked for get `skew` times their even share of
// all routed rows, the others alike what is left, so that every rank is given what the busiest needs. On top comes room
// for the scatter of draws. Ignored: several busy ranks on one node, drift of the routing. What does not fit runs in
// further rounds.
#pragma once

#include <span>

#include "planner/plan/buffer_plan.hpp"
#include "topomoe/placement.hpp"

namespace topomoe {

struct Plan;

struct Capacity {
  double tokens = 0;
  double skew = 1;
  bool operator==(const Capacity&) const = default;
};

// Routed rows of the busiest place over the mean, as popularity has it; a token goes to an expert once, and the
// replicas of one share alike.
double routed_skew(std::span<const double> popularity, const ExpertPlacement& placement, int top_k);
// Of the MoE layers of one kind.
Capacity capacity_of(const Plan& plan, int kind = 0);

// At least a byte for every slot that a pass uses.
SlotBytes capacity_bytes(const Schedule& schedule, const RankGroups& groups, const RowWidths& widths,
                         const ExpertPlacement& placement, const Capacity& capacity, int rank);

// Of one layer: what its forward and its backward need while they run, each in turn in the same memory, and what one
// forward keeps for its backward.
struct LayerBytes {
  std::size_t forward = 0, backward = 0, saved = 0;
  std::size_t pass() const { return forward > backward ? forward : backward; }
};
LayerBytes layer_bytes(const Schedule& schedule, const RankGroups& groups, const RowWidths& widths,
                       const ExpertPlacement& placement, const Capacity& capacity, int rank = 0);

}  // namespace topomoe
