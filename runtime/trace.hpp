// A run as a Chrome/Perfetto trace (ui.perfetto.dev, chrome://tracing): a process a rank, a thread a lane, a
// slice a step, with what the plan predicted for it.
//
// A lane is a queue: a transfer that was issued while its predecessor on the lane was still under way is drawn
// from the predecessor's end on, and says when it was issued. Times are microseconds since the ranks set off.
#pragma once

#include <string>

#include "runtime/rehearsal.hpp"

namespace topomoe {

// JSON text. Steps of `report` and of the plan's schedule correspond by place.
std::string write_trace(const Plan& plan, const RehearsalReport& report);

}  // namespace topomoe
