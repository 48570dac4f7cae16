#include "topology/detours.hpp"

#include <algorithm>
#include <utility>

namespace topomoe {
namespace {

// Most cases settle in two; the rest is a tie that goes round.
constexpr int kMostRounds = 8;

}  // namespace

void choose_detours(std::vector<Detour>& detours, const std::vector<double>& GBps_of_directed) {
  std::vector<double> pairs(GBps_of_directed.size(), 1);
  const auto load = [&](int link) {
    return pairs[static_cast<std::size_t>(link)] / GBps_of_directed[static_cast<std::size_t>(link)];
  };
  const auto add = [&](const std::array<int, 2>& way, double count) {
    for (const int link : way) pairs[static_cast<std::size_t>(link)] += count;
  };
  // With this pair on it: the worse of its links, then both.
  const auto cost = [&](const std::array<int, 2>& way) {
    add(way, 1);
    const double a = load(way[0]), b = load(way[1]);
    add(way, -1);
    return std::pair(std::max(a, b), a + b);
  };
  const auto best = [&](const Detour& own) {
    std::size_t least = own.chosen;
    for (std::size_t i = 0; i < own.ways.size(); ++i)
      if (cost(own.ways[i]) < cost(own.ways[least])) least = i;
    return least;
  };
  for (Detour& own : detours) {
    own.chosen = 0;
    own.chosen = best(own);
    add(own.ways[own.chosen], 1);
  }
  bool changed = true;
  for (int round = 0; changed && round < kMostRounds; ++round) {
    changed = false;
    for (Detour& own : detours) {
      add(own.ways[own.chosen], -1);
      const std::size_t next = best(own);
      changed = changed || next != own.chosen;
      own.chosen = next;
      add(own.ways[own.chosen], 1);
    }
  }
}

}  // namespace topomoe
