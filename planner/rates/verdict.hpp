// Whether a measured time is normal, by the band and the bound of its estimate.
#pragma once

#include <string>

#include "planner/rates/estimate.hpp"

namespace topomoe {

struct Verdict {
  std::string word;  // "normal", "slow", "fast", "impossible"
  std::string text;  // the same in a sentence, and what to check
};

// measured_us > 0.
Verdict judge(const Estimate&, double measured_us);

}  // namespace topomoe
