// Which schedules a bench times side by side, what a planner says of each, and which it would take.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/bench.hpp"
#include "topomoe/schedule.hpp"

namespace topomoe::cli {

struct ContestOptions {
  bool layer = false;  // the whole layer, not its exchange
  // Not given: sliced, flat and 1; beside a plan what the plan has; of "auto" and "all" any.
  std::vector<std::string> split, transport;
  std::vector<int> chunks;
  std::vector<std::string> variants;      // "sliced:flat:4", ...; or one of "auto", "all"
  std::string cluster;                    // a file; empty: nothing is predicted
  std::vector<std::string> calibrations;  // files
};

struct Contest {
  std::vector<Schedule> schedules;
  // Of each its passes, as the bench has rows of them; where there is a cluster file.
  std::vector<std::vector<double>> predicted_us;
  std::size_t picked = 0;
};

// Throws InvalidInput for a variant that does not apply to the layout: left out silently it would look as if it had
// been beaten; and for options beside each other of which one would have no say.
// planned: a plan's schedule, which comes first, and alone unless others are asked for; it is not listed twice.
// silent: another rank says what there is to say.
Contest contest_for(const ContestOptions& options, const BenchCase& bench, const std::optional<Schedule>& planned,
                    bool silent = false);

}  // namespace topomoe::cli
