#include "runtime/counts.hpp"

#include <algorithm>
#include <string>

#include "topomoe/error.hpp"

namespace topomoe {

RankCounts::RankCounts(const Schedule& schedule, const RankGroups& groups, int me, const ExpertPlacement& placement)
    : CountSource(placement), schedule_(schedule), groups_(groups), me_(me), nodes_(0) {
  for (const int member : groups.members(Role::ep, me)) nodes_ = std::max(nodes_, groups.node_index(member) + 1);
}

int RankCounts::owner(int copy) const {
  const int copies = placement().copies();
  if (copy < ~(copies - 1) || copy >= copies)
    throw std::logic_error("topomoe bug: schedule " + schedule_.name + ": rank " + std::to_string(me_) + " met copy " +
                           std::to_string(copy) + " of " + std::to_string(copies));
  return copy < 0 ? -1 : groups_.members(Role::ep, me_)[static_cast<std::size_t>(placement().place_of(copy))];
}

void RankCounts::reset() {
  for (auto& [source, rows] : held_) rows = -1;
  for (auto& [source, table] : tables_)
    for (const Symbol s : {Symbol::pairs, Symbol::rank_tokens, Symbol::node_tokens})
      std::fill(of(table, s).begin(), of(table, s).end(), -1);
}

std::int64_t RankCounts::held(int source) const {
  const auto it = held_.find(source);
  if (it == held_.end() || it->second < 0)
    throw std::logic_error("topomoe bug: rank " + std::to_string(me_) + " does not know the tokens of rank " +
                           std::to_string(source));
  return it->second;
}

std::int64_t RankCounts::tokens(int chunk, int source) const {
  std::int64_t all = 0, first = 0;
  switch (schedule_.intake) {
    case Intake::as_held: all = held(source); break;
    case Intake::tp_slice: {
      const int t = groups_.size(Role::tp), index = groups_.index_in(Role::tp, source);
      const std::int64_t held_by_group = held(source);
      first = part_begin(held_by_group, t, index);
      all = part_begin(held_by_group, t, index + 1) - first;
      break;
    }
    case Intake::tp_gather:
      for (const int member : groups_.members(Role::tp, source)) all += held(member);
      break;
  }
  return part_begin(all, schedule_.chunks, chunk + 1) - part_begin(all, schedule_.chunks, chunk);
}

std::size_t RankCounts::width(Symbol symbol) const {
  if (symbol == Symbol::pairs) return static_cast<std::size_t>(placement().copies());
  return symbol == Symbol::rank_tokens ? groups_.members(Role::ep, me_).size() : static_cast<std::size_t>(nodes_);
}

std::size_t RankCounts::column(Symbol symbol, int index) const {
  if (symbol == Symbol::pairs) return static_cast<std::size_t>(index);
  return static_cast<std::size_t>(symbol == Symbol::rank_tokens ? groups_.index_in(Role::ep, index)
                                                                : groups_.node_index(index));
}

std::vector<std::int64_t>& RankCounts::of(Table& t, Symbol symbol) {
  return symbol == Symbol::pairs ? t.pairs : symbol == Symbol::rank_tokens ? t.rank_tokens : t.node_tokens;
}

RankCounts::Table& RankCounts::table(int source) {
  Table& t = tables_[source];
  if (t.pairs.empty()) {
    const auto chunks = static_cast<std::size_t>(schedule_.chunks);
    for (const Symbol s : {Symbol::pairs, Symbol::rank_tokens, Symbol::node_tokens})
      of(t, s).assign(chunks * width(s), -1);
  }
  return t;
}

double RankCounts::count(Symbol symbol, int chunk, int source, int index) const {
  if (symbol == Symbol::held) return static_cast<double>(held(source));
  if (symbol == Symbol::tokens) return static_cast<double>(tokens(chunk, source));
  const auto it = tables_.find(source);
  const std::int64_t n = it == tables_.end()
                             ? -1
                             : of(const_cast<Table&>(it->second),
                                  symbol)[static_cast<std::size_t>(chunk) * width(symbol) + column(symbol, index)];
  if (n < 0)
    throw std::logic_error("topomoe bug: schedule " + schedule_.name + ": rank " + std::to_string(me_) +
                           " does not know " + std::string(name(symbol)) + "[" + std::to_string(chunk) + "][" +
                           std::to_string(source) + "][" + std::to_string(index) + "]");
  return static_cast<double>(n);
}

void RankCounts::set_routing(std::span<const std::int32_t> ids, int top_k) {
  std::int64_t rows = 0;
  for (int c = 0; c < schedule_.chunks; ++c) rows += tokens(c, me_);
  TOPOMOE_ASSERT(ids.size() == static_cast<std::size_t>(rows * top_k));
  Table& t = table(me_);
  for (const Symbol s : {Symbol::pairs, Symbol::rank_tokens, Symbol::node_tokens})
    std::fill(of(t, s).begin(), of(t, s).end(), 0);
  std::vector<std::size_t>&ranks = ranks_, &nodes = nodes_of_;
  std::size_t row = 0;
  for (int c = 0; c < schedule_.chunks; ++c) {
    const auto chunk = static_cast<std::size_t>(c);
    for (std::int64_t i = 0; i < tokens(c, me_); ++i, ++row) {
      ranks.clear(), nodes.clear();
      for (std::size_t slot = 0; slot < static_cast<std::size_t>(top_k); ++slot) {
        const int copy = ids[row * static_cast<std::size_t>(top_k) + slot], rank = owner(copy);
        if (rank < 0) continue;
        ++t.pairs[chunk * width(Symbol::pairs) + static_cast<std::size_t>(copy)];
        ranks.push_back(column(Symbol::rank_tokens, rank));
        nodes.push_back(column(Symbol::node_tokens, rank));
      }
      for (const auto& [symbol, places] : {std::pair{Symbol::rank_tokens, &ranks}, {Symbol::node_tokens, &nodes}}) {
        std::sort(places->begin(), places->end());
        places->erase(std::unique(places->begin(), places->end()), places->end());
        for (const std::size_t place : *places) ++of(t, symbol)[chunk * width(symbol) + place];
      }
    }
  }
}

// As RankGroups::expand, in vectors that are kept.
void RankCounts::expand(const RankSet& set, int me, int peer, std::vector<int>& out) const {
  out.assign(1, set.base == Who::me ? me : peer);
  for (const Role role : set.spread) {
    wider_.clear();
    for (const int rank : out) {
      const auto group = groups_.members(role, rank);
      wider_.insert(wider_.end(), group.begin(), group.end());
    }
    std::swap(out, wider_);
  }
}

template <class Visit>
void RankCounts::each(const CountSlice& slice, int me, int peer, Visit visit) const {
  expand(slice.sources, me, peer, sources_);
  if (slice.symbol != Symbol::held) expand(slice.dests, me, peer, dests_);
  for (const int source : sources_) {
    if (slice.symbol == Symbol::held) {
      visit(0, source, 0);
      continue;
    }
    for (int c = 0; c < schedule_.chunks; ++c)
      for (const int dest : dests_) {
        if (slice.symbol != Symbol::pairs) {
          visit(c, source, dest);
          continue;
        }
        for (const int copy : placement().held_by(groups_.index_in(Role::ep, dest))) visit(c, source, copy);
      }
  }
}

void RankCounts::read(const CountSlice& slice, int me, int peer, std::vector<std::int32_t>& out) const {
  each(slice, me, peer, [&](int c, int source, int index) {
    out.push_back(static_cast<std::int32_t>(count(slice.symbol, c, source, index)));
  });
}

std::size_t RankCounts::write(const CountSlice& slice, int me, int peer, std::span<const std::int32_t> in) {
  std::size_t used = 0;
  each(slice, me, peer, [&](int c, int source, int index) {
    const std::int32_t n = in[used++];
    if (slice.symbol == Symbol::held) {
      held_[source] = n;
    } else {
      of(table(source), slice.symbol)[static_cast<std::size_t>(c) * width(slice.symbol) + column(slice.symbol, index)] =
          n;
    }
  });
  return used;
}

std::size_t RankCounts::size_of(const CountSlice& slice, int me, int peer) const {
  std::size_t n = 0;
  each(slice, me, peer, [&](int, int, int) { ++n; });
  return n;
}

}  // namespace topomoe
