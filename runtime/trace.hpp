// A run as a Chrome/Perfetto trace (ui.perfetto.dev, chrome://tracing): a process a rank, a thread a lane, a
// slice a step, with what the plan predicted for it.
//
// A lane is a queue: a transfer that was issued while its predecessor on the lane was still under way is drawn
// from the predecessor's end on, and says when it was issued. Times are microseconds since the ranks set off; of passes
// that an embedder ran, on its host's monotonic clock, which ranks of one host share. Steps of a pass and of the plan's
// schedule correspond in order; those that were not run are left out.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/rehearsal.hpp"

namespace topomoe {

// JSON text.
std::string write_trace(const Plan& plan, const RehearsalReport& report);

struct TracedPass {
  const Plan* plan;  // by whose schedule it went
  int kind = 0;      // of layer
  PassTrace trace;
};
// JSON text: passes of one rank, one after another; `plan` is the first's. Throws InvalidInput for a kind that a plan
// does not have.
std::string write_trace(const Plan& plan, int rank, std::span<const TracedPass> passes);

}  // namespace topomoe
