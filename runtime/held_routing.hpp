// Ids and weights of the tokens that a rank holds, which are the caller's, as those of the tokens that it injects into
// the exchange, which the schedule's are, and back: a slice of them, or those of the whole TP group (Intake). Four
// bytes for each token and choice.
#pragma once

#include "runtime/layer_parts.hpp"

namespace topomoe {

class HeldRouting {
 public:
  // Parts must outlive it.
  explicit HeldRouting(const LayerParts& parts) : parts_(parts), c_(parts.context) {}

  // `held`: [rows held, top_k]; `to` has room for those of the tokens that this rank injects. Collective in the TP
  // group.
  void inject(Lane lane, void* to, const void* held, const RankCounts& counts) const;
  // The way back, on the compute lane. Collective likewise; returns what must end before.
  EventPtr eject(void* to, const void* injected, const RankCounts& counts) const;

 private:
  std::int64_t held_by(int rank, const RankCounts& counts) const {
    return static_cast<std::int64_t>(counts.count(Symbol::held, 0, rank, 0));
  }
  std::size_t row_bytes() const { return static_cast<std::size_t>(parts_.shape.top_k) * 4; }
  EventPtr gather(Lane lane, std::byte* to, const std::byte* mine, std::span<const std::int64_t> rows) const;

  const LayerParts& parts_;
  const ExecutorContext& c_;
};

}  // namespace topomoe
