// Whether a number of GPUs that divides badly is worse than fewer that divide well.
#pragma once

#include <string>

#include "planner/search_state.hpp"

namespace topomoe {

// One line for people where the same work is done sooner by the next lower power of two of the plan's GPUs; else empty.
// One more search, and none where the number is a power of two, beyond 1024 GPUs (it would take long), or where the
// cluster cannot be cut down to that.
std::string faster_on_fewer(const Search& s, const Plan& plan);

}  // namespace topomoe
