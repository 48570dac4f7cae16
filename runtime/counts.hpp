// The counts that one rank knows: of its own tokens from its router, of others' from counts_exchange.
// Reading a count that never came is a bug of the schedule and throws std::logic_error by name.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "topomoe/schedule.hpp"

namespace topomoe {

class RankCounts final : public CountSource {
 public:
  RankCounts(const Schedule& schedule, const RankGroups& groups, int me, const ExpertPlacement& placement);

  double count(Symbol symbol, int chunk, int source, int index) const override;

  // Forgets all counts.
  void reset();
  void set_held(int source, std::int64_t rows) { held_[source] = rows; }
  // Counts where my tokens go. ids: copies of experts, [rows of tokens that I inject, top_k]; negative: nowhere.
  void set_routing(std::span<const std::int32_t> ids, int top_k);

  // The entries of a slice, in one order on both sides; `peer` as inside the exchange's group.
  void read(const CountSlice& slice, int me, int peer, std::vector<std::int32_t>& out) const;
  // Returns how many it took.
  std::size_t write(const CountSlice& slice, int me, int peer, std::span<const std::int32_t> in);
  std::size_t size_of(const CountSlice& slice, int me, int peer) const;

  // Rank of my EP group that holds the copy; -1 for ~copy, which goes nowhere. Throws std::logic_error for an id of no
  // copy: ids travel.
  int owner(int copy) const;

 private:
  struct Table {                                                // of one source
    std::vector<std::int64_t> pairs, rank_tokens, node_tokens;  // [chunk][copy | EP member | node], -1: unknown
  };
  std::int64_t tokens(int chunk, int source) const;
  std::int64_t held(int source) const;
  Table& table(int source);
  std::size_t width(Symbol symbol) const;
  std::size_t column(Symbol symbol, int index) const;
  static std::vector<std::int64_t>& of(Table& t, Symbol symbol);
  void expand(const RankSet& set, int me, int peer, std::vector<int>& out) const;
  template <class Visit>
  void each(const CountSlice& slice, int me, int peer, Visit visit) const;

  const Schedule& schedule_;
  const RankGroups& groups_;
  int me_, nodes_;
  std::unordered_map<int, std::int64_t> held_;  // -1: unknown
  std::unordered_map<int, Table> tables_;
  // Kept so that no step allocates them: of each(), and of one token's places.
  mutable std::vector<int> sources_, dests_, wider_;
  std::vector<std::size_t> ranks_, nodes_of_;
};

}  // namespace topomoe
