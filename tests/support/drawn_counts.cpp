#include "tests/support/drawn_counts.hpp"

#include <algorithm>
#include <cmath>
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

int Places::local(int rank) const {
  return static_cast<int>(std::count(place_of.begin(), place_of.end(), ep_index(rank)));
}

Places places(const LayerCase& c) {
  Places p{c.layout, c.gpus_per_node, {}};
  for (int e = 0; e < c.shape.experts && c.owners.empty(); ++e)
    p.place_of.push_back(e / (c.shape.experts / c.layout.ep));
  for (const auto& its : c.owners) p.place_of.insert(p.place_of.end(), its.begin(), its.end());
  return p;
}

int part_size(int total, int parts, int index) { return total * (index + 1) / parts - total * index / parts; }

namespace {

Ids injected_experts(const LayerCase& c, const Ids& held, bool sliced) {
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

}  // namespace

Ids injected_ids(const LayerCase& c, const Ids& held, bool sliced) {
  Ids out = injected_experts(c, held, sliced);
  const int k = c.shape.top_k;
  for (auto& ids : out) {
    const int tokens = static_cast<int>(ids.size()) / k;
    const double capacity = std::ceil(c.shape.capacity_factor * k * tokens / c.shape.experts);
    std::vector<int> taken(at(c.shape.experts), 0);
    for (int slot = 0; slot < k; ++slot)
      for (int token = 0; token < tokens; ++token) {
        std::int32_t& id = ids[at(token * k + slot)];
        const int expert = id;
        if (c.shape.capacity_factor > 0 && taken[at(expert)]++ >= capacity) {
          id = -1;
        } else if (!c.owners.empty()) {
          id = token % static_cast<int>(c.owners[at(expert)].size());
          for (int before = 0; before < expert; ++before) id += static_cast<int>(c.owners[at(before)].size());
        }
      }
  }
  return out;
}

DrawnCounts::DrawnCounts(const LayerCase& c, const Ids& held, bool sliced, int chunks)
    : CountSource({c.shape.experts, c.layout.ep, c.owners}),
      places_(places(c)),
      top_k_(c.shape.top_k),
      chunks_(chunks),
      injected_(injected_ids(c, held, sliced)) {
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
      const int copy = ids[at(row * top_k_ + slot)];
      if (copy < 0) continue;
      const int owner = places_.owner(source, copy);
      matches += (symbol == Symbol::pairs         ? copy == index
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
