// Parts of a forward: what runs where somebody else routes or computes, or where only the exchange is wanted.
//
// A part is a choice among the steps of the one schedule, never another schedule: steps left out count as over, and
// whoever runs a part stands in for what they would have written.
#pragma once

#include <cstdint>
#include <vector>

#include "topomoe/schedule.hpp"

namespace topomoe {

enum class Part : std::uint8_t {
  whole,
  dispatch,  // all that does not wait for experts
  combine,   // all that waits for experts, but they
  // Of dispatch: packed rows on their way to the experts' ranks, with the ids and weights that must go along and with
  // what lies between two hops. Counts are known.
  exchange,
};

// The same schedule for a layer without a shared expert: what is marked `beside` is gone, and its gate with it.
Schedule without_shared(Schedule schedule);

// One flag a step of `schedule.forward`. The shared expert belongs to the whole only.
std::vector<std::uint8_t> steps_of(const Schedule& schedule, Part part);

}  // namespace topomoe
