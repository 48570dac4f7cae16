// How sure a step time is, and whether one candidate is really faster than another.
//
// A step's time is split by what it rests on: GEMMs and memory of a GPU, links inside nodes, links between nodes. Each
// kind has one relative error (of the source of its rates), shared by all candidates and independent of the other
// kinds'. So a band is the root of summed squares, and a difference between two candidates is judged by the errors of
// what they differ in: two that compute alike are told apart by their communication alone.
#pragma once

#include "planner/search_state.hpp"

namespace topomoe {

struct TimeParts {
  double compute_ms = 0, node_ms = 0, between_ms = 0;
};
TimeParts time_parts(const Search& s, const Candidate& c);

// Standard error times about 1.6: nine in ten lie within.
double error_ms(const Machine& machine, const TimeParts& parts);
// Closer than figures are printed: the same computation in another order, as a rule.
bool as_fast(double ms, double other_ms);
// True where the difference of the two is smaller than its error.
bool undecided(const Search& s, const Candidate& a, const Candidate& b);

}  // namespace topomoe
