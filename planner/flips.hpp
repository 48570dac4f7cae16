// Where the choice of an algorithm would change: the same layout with fewer tokens, down to one. Between
// two powers of two that choose differently, the threshold is found by bisection.
#pragma once

#include <vector>

#include "planner/search_state.hpp"

namespace topomoe {

// The first changes of split or transport, and of "in chunks" to "in one piece". Algorithms are compared by what
// they make of a whole step with sequences of that length.
std::vector<Flip> find_flips(Search& s, const Candidate& chosen);

}  // namespace topomoe
