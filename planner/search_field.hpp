// The field of a search and its race: all ways to run the layouts, in order of a bound, and the times of those that may
// be the fastest. Private to the search, whose header comment (search.cpp) says what bounds there are.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "planner/search_state.hpp"

namespace topomoe {

// A candidate that fits, with the splits that do.
struct Open {
  Candidate base;
  double bound_ms = 0;
  bool fits[2] = {false, false};  // by TokenSplit
  double memory_GiB[2] = {0, 0};
};

struct TooLarge {
  Candidate candidate;
  TokenSplit split;
  double bound_ms;
};

// All ways to run the layouts.
struct Field {
  std::vector<Open> open;  // in order of their bounds
  std::vector<TooLarge> forbidden;
  std::int64_t enumerated = 0, too_big = 0;
};
Field enter(Search& s, const std::vector<Layout>& layouts);

// Prices what may be the fastest, in order of the bounds; `pruned` is increased by those whose bound was enough.
// In order of time.
std::vector<Candidate> race(Search& s, std::span<const Open> open, std::int64_t& pruned);

// Its time with gradients placed, unless it has that.
void place(Search& s, Candidate& c);
// Of the split that needs most, of those that its kinds of MoE layers take.
double candidate_GiB(Search& s, const Candidate& c);

}  // namespace topomoe
