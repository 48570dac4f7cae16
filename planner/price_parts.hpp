// What the files of the pricer share: views told apart by a number, and shares of chunks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "planner/price.hpp"

namespace topomoe::pricing {

constexpr int kCompute = 0, kHbm = 1;  // among a pricer's resources
constexpr int kMostChunks = kChunkCounts[std::size(kChunkCounts) - 1];

// Rows grow with the number of chunks; prices are worked out for all chunks at once and scaled.
inline double chunk_fraction(const Schedule& s, const Buffer& b, const View& v) {
  if (b.symbol == Symbol::held) return 1;
  const Chunks c = v.chunks.value_or(b.chunks);
  return static_cast<double>(c.end - c.begin) / s.chunks;
}

// FNV-1a over small integers: what tells views apart, without a string a question.
struct Fingerprint {
  std::uint64_t hash = 0xcbf29ce484222325U;
  void put(int value) { hash = (hash ^ static_cast<std::uint32_t>(value + 1)) * 0x100000001b3U; }
  void put(const std::optional<RankSet>& set) {
    put(set ? static_cast<int>(set->base) : 9);
    if (set)
      for (const Role r : set->spread) put(static_cast<int>(r));
    put(-7);
  }
};

// What rows of a view depend on, apart from ranks and chunks.
inline Fingerprint view_key(const Schedule& s, const View& view) {
  const Buffer& b = s.buffers[static_cast<std::size_t>(view.buffer)];
  Fingerprint key;
  key.put(static_cast<int>(s.intake) * 8 + static_cast<int>(b.symbol));
  key.put(b.sources), key.put(b.dests), key.put(view.sources), key.put(view.dests);
  key.put(b.blocks ? static_cast<int>(*b.blocks) : 20), key.put(b.split ? static_cast<int>(b.split->role) : 20);
  key.put(view.split ? static_cast<int>(view.split->role) : 20);
  key.put(view.block ? static_cast<int>(*view.block) : 20);
  return key;
}

// The least of n t(1/n): what a step takes at best, cut as it may be.
template <class Time>
double least_in_cuts(Time time) {
  double least = time(1);
  for (const int n : kChunkCounts) least = std::min(least, n * time(n));
  return least;
}

inline double injected_tokens(const Schedule& s, const Layout& layout, double of_tp_group) {
  if (s.intake == Intake::tp_slice) return of_tp_group / layout.tp;
  return s.intake == Intake::as_held && layout.sequence_parallel ? of_tp_group / layout.tp : of_tp_group;
}

}  // namespace topomoe::pricing
