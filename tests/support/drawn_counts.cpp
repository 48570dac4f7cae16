#include "tests/support/drawn_counts.hpp"

#include <set>

namespace topomoe::testing {
namespace {

using Index = std::size_t;

Index at(int i) { return static_cast<Index>(i); }

}  // namespace

int Places::ep_index(int rank) const {
  return l.expert_order == ExpertOrder::ep_inner ? rank / l.etp % l.ep : rank / (l.etp * l.edp);
}

int Places::ep_member(int rank, int index) const {
  const int stride = l.expert_order == ExpertOrder::ep_inner ? l.etp : l.etp * l.edp;
  return rank + (index - ep_index(rank)) * stride;
}

int Places::relay(int rank, int on_node) const {
  int mine = 0, there = 0;
  for (int i = 0; i < ep_index(rank); ++i) mine += node(ep_member(rank, i)) == node(rank) ? 1 : 0;
  for (int i = 0; i < l.ep; ++i)
    if (node(ep_member(rank, i)) == on_node && there++ == mine) return ep_member(rank, i);
  return -1;
}

std::vector<int> Places::ep_group(int rank) const {
  std::vector<int> out;
  for (int i = 0; i < l.ep; ++i) out.push_back(ep_member(rank, i));
  return out;
}

std::vector<int> Places::on_node(int rank) const {
  std::vector<int> out;
  for (const int member : ep_group(rank))
    if (node(member) == node(rank)) out.push_back(member);
  return out;
}

std::vector<int> Places::on_rail(int rank) const {
  std::set<int> out;
  for (const int member : ep_group(rank)) out.insert(relay(rank, node(member)));
  return {out.begin(), out.end()};
}

Places places(const LayerCase& c) { return {c.layout, c.gpus_per_node, c.shape.experts}; }

int part_size(int total, int parts, int index) { return total * (index + 1) / parts - total * index / parts; }

Ids injected_ids(const LayerCase& c, const Ids& held, bool sliced) {
  const int t = c.layout.tp;
  if (t == 1 || sliced == c.layout.sequence_parallel) return held;
  Ids out;
  for (int rank = 0; rank < c.layout.world; ++rank) {
    auto& mine = out.emplace_back();
    if (sliced) {
      const auto& all = held[at(rank)];
      const int rows = static_cast<int>(all.size()) / c.shape.top_k, i = rank % t;
      mine.assign(all.begin() + rows * i / t * c.shape.top_k, all.begin() + rows * (i + 1) / t * c.shape.top_k);
    } else {
      for (int member = rank - rank % t; member < rank - rank % t + t; ++member)
        mine.insert(mine.end(), held[at(member)].begin(), held[at(member)].end());
    }
  }
  return out;
}

DrawnCounts::DrawnCounts(const LayerCase& c, const Ids& held, bool sliced, int chunks)
    : places_(places(c)), top_k_(c.shape.top_k), chunks_(chunks), injected_(injected_ids(c, held, sliced)) {
  for (const auto& ids : held) held_.push_back(static_cast<int>(ids.size()) / top_k_);
}

double DrawnCounts::count(Symbol symbol, int chunk, int source, int index) const {
  if (symbol == Symbol::held) return held_[at(source)];
  const auto& ids = injected_[at(source)];
  const int rows = static_cast<int>(ids.size()) / top_k_, first = rows * chunk / chunks_,
            end = rows * (chunk + 1) / chunks_;
  if (symbol == Symbol::tokens) return end - first;
  int n = 0;
  for (int row = first; row < end; ++row) {
    int matches = 0;
    for (int slot = 0; slot < top_k_; ++slot) {
      const int expert = ids[at(row * top_k_ + slot)], owner = places_.owner(source, expert);
      matches += (symbol == Symbol::pairs         ? expert == index
                  : symbol == Symbol::rank_tokens ? places_.ep_index(owner) == places_.ep_index(index)
                                                  : places_.node(owner) == places_.node(index))
                     ? 1
                     : 0;
    }
    n += symbol == Symbol::pairs ? matches : matches > 0 ? 1 : 0;
  }
  return n;
}

}  // namespace topomoe::testing
