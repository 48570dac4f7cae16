// Where the choice would change: the same layout with fewer tokens, down to one; and another layout or algorithm for
// routing of more skew. Between two points that choose differently, the threshold is found by bisection.
//
// Ignored: a choice that changes and changes back between two points; sensitivity to a measured histogram.
#pragma once

#include <vector>

#include "planner/search_state.hpp"

namespace topomoe {

// The first changes of split or transport, and of "in chunks" to "in one piece". Algorithms are compared by what
// they make of a whole step with sequences of that length.
std::vector<Flip> find_flips(Search& s, const Candidate& chosen);

// The first changes of EP, ETP, split or transport as routing grows more skewed (zipf) than the request's, up to 2
// more, to 1/20. Each point is a search of its own in which TP, CP and micro-batch stay: skew reaches neither, and what
// it does to memory may want other stages and recomputation. None for a histogram,
// and beyond 256 GPUs, where each search would take seconds.
std::vector<Flip> find_skew_flips(const Search& s, const Candidate& chosen);

}  // namespace topomoe
