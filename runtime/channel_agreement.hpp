// Whether all ranks that open a channel mean the same members, found by one sum over all of them: ranks that disagree
// would send to the wrong one, or wait for each other, in silence.
//
// Each rank adds a number that stands for its channel's members in their order; the first member takes all of these
// away again. The sum is 0 where they agree, and else but for one case in 2^64.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>

#include "topomoe/error.hpp"

namespace topomoe {

inline std::uint64_t agreement_share(std::span<const int> members, int rank) {
  const auto mix = [](std::uint64_t x) {  // splitmix64
    x += 0x9e3779b97f4a7c15U;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    return x ^ (x >> 31);
  };
  std::uint64_t number = mix(members.size());
  for (const int m : members) number = mix(number + static_cast<std::uint64_t>(m));
  if (std::find(members.begin(), members.end(), rank) == members.end()) return mix(number) | 1;
  return members[0] == rank ? number - number * members.size() : number;
}

// `sum`: of all ranks' shares.
inline void require_agreement(std::uint64_t sum, std::span<const int> members, int rank) {
  if (sum == 0) return;
  const bool inside = std::find(members.begin(), members.end(), rank) != members.end();
  throw InvalidInput("members", std::to_string(members.size()) + " ranks",
                     inside ? "ranks disagree about who is in the channels, and in which order"
                            : "must hold rank " + std::to_string(rank));
}

}  // namespace topomoe
