// Rows that the experts of one rank are given when tokens are spread in a named way: how the public kernel
// tables were made, so that what they timed can be worked out from their columns.
//
// balanced: expert choices go round, each expert within a row of the others.
// power law: each expert draws a size from x^-alpha between 1 and 0.8 tokens (0.01 and 2 where choices are fewer
// than experts), sizes are scaled to tokens x top_k and rounded, no expert gets more than every token; the rank
// whose experts have most rows is timed. As aiconfigurator's collectors describe it; their seed is not known, so
// a table's row is the mean over a few draws.
#pragma once

#include <cstdint>
#include <vector>

namespace topomoe {

struct SpreadRequest {
  int tokens = 1, experts = 1, top_k = 1, ep = 1;  // experts % ep == 0
};

std::vector<double> balanced_rows(const SpreadRequest&);
std::vector<double> power_law_rows(const SpreadRequest&, double alpha, std::uint64_t seed);

}  // namespace topomoe
