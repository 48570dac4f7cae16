// Which other GPU the pairs without a link of their own go over. Internal to topology/.
//
// Model: each pair sends as much as each other; a link's load is the pair that it joins and the detours over it, over
// its rate. Ways are chosen so that the most loaded link is loaded least, pair by pair, until nothing changes: all of
// them over the first GPU that serves would make its links a bottleneck that the host has not.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

namespace topomoe {

struct Detour {
  std::vector<std::array<int, 2>> ways;  // directed links, over one GPU each; all of equal rate
  std::size_t chosen = 0;
};

// Sets `chosen` of each. The same answer for the same input.
void choose_detours(std::vector<Detour>& detours, const std::vector<double>& GBps_of_directed);

}  // namespace topomoe
