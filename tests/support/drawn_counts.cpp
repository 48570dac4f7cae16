#include "tests/support/drawn_counts.hpp"

#include <array>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

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
                  : symbol == Symbol::rank_tokens ? owner == index
                                                  : places_.node(owner) == places_.node(index))
                     ? 1
                     : 0;
    }
    n += symbol == Symbol::pairs ? matches : matches > 0 ? 1 : 0;
  }
  return n;
}

namespace {

using Matrix = std::vector<std::vector<Traffic>>;

// All of it by hand; see DESIGN 5 for the same in closed form.
struct TrafficCount {
  const LayerCase& c;
  const bool sliced;
  const PassChunks cut;
  const int chunks = std::lcm(cut.forward, cut.backward);  // of the counts
  const Ids held, injected;
  const Places p = places(c);
  const int t = c.layout.tp, k = c.shape.top_k;
  const double row = c.shape.hidden * (c.dtype == DType::bf16 ? 2.0 : 4.0);
  TrafficMatrix out;

  TrafficCount(const LayerCase& layer_case, const Ids& held_ids, bool is_sliced, const PassChunks& passes)
      : c(layer_case),
        sliced(is_sliced),
        cut(passes),
        held(held_ids),
        injected(injected_ids(layer_case, held_ids, is_sliced)) {
    out.forward.assign(at(c.layout.world), std::vector<Traffic>(at(c.layout.world)));
    out.backward = out.forward;
  }

  static void payload(Matrix& m, int from, int to, double bytes) {
    if (from != to) m[at(from)][at(to)].payload_bytes += bytes;
  }
  static void metadata(Matrix& m, int from, int to, double bytes) {
    if (from != to) m[at(from)][at(to)].metadata_bytes += bytes;
  }
  int tokens_of(const Ids& ids, int rank) const { return static_cast<int>(ids[at(rank)].size()) / k; }
  int chunk_of(int rank, int token, int of_chunks) const {
    int chunk = 0;
    while (tokens_of(injected, rank) * (chunk + 1) / of_chunks <= token) ++chunk;
    return chunk;
  }
  struct Pass {
    Matrix* sent;
    int chunks;
  };
  std::array<Pass, 2> passes() { return {{{&out.forward, cut.forward}, {&out.backward, cut.backward}}}; }
  template <class Visit>
  void each_tp_peer(int rank, Visit visit) const {
    for (int peer = rank - rank % t; peer < rank - rank % t + t; ++peer)
      if (peer != rank) visit(peer);
  }

  // Under TP, before and after the transport.
  void around() {
    for (int rank = 0; rank < c.layout.world; ++rank)
      each_tp_peer(rank, [&](int peer) {
        if (!sliced && c.layout.sequence_parallel) {  // all see all: x out, dy out, and how many there are
          payload(out.forward, rank, peer, row * tokens_of(held, rank));
          payload(out.backward, rank, peer, row * tokens_of(held, rank));
          metadata(out.forward, rank, peer, 4);
        }
        if (sliced && !c.layout.sequence_parallel) {  // each gives its slice of y, of dx
          payload(out.forward, rank, peer, row * tokens_of(injected, rank));
          payload(out.backward, rank, peer, row * tokens_of(injected, rank));
        }
      });
  }

  // k rows a token; in two levels they pass the member of my node with the owner's index on its own.
  void pairs(bool two_level) {
    const int local = c.shape.experts / c.layout.ep;
    for (int rank = 0; rank < c.layout.world; ++rank) {
      const auto nodes = static_cast<int>(p.on_rail(rank).size()), in_node = static_cast<int>(p.on_node(rank).size());
      if (two_level) {
        for (const int peer : p.on_node(rank)) metadata(out.forward, rank, peer, 4.0 * chunks * nodes * local);
        for (const int peer : p.on_rail(rank)) metadata(out.forward, rank, peer, 4.0 * chunks * in_node * local);
      } else {
        for (const int peer : p.ep_group(rank)) metadata(out.forward, rank, peer, 4.0 * chunks * local);
      }
      for (int token = 0; token < tokens_of(injected, rank); ++token)
        for (int slot = 0; slot < k; ++slot) {
          const int owner = p.owner(rank, injected[at(rank)][at(token * k + slot)]);
          const int relay = two_level ? p.relay(owner, p.node(rank)) : rank;
          for (const auto& [from, to] : {std::pair{rank, relay}, {relay, owner}})
            for (Matrix* pass : {&out.forward, &out.backward}) {
              payload(*pass, from, to, row);  // x and dy there
              payload(*pass, to, from, row);  // y and dx back
            }
        }
    }
    if (c.layout.etp == 1) return;
    if (sliced)
      for (int rank = 0; rank < c.layout.world; ++rank)
        each_tp_peer(rank, [&](int peer) { metadata(out.forward, rank, peer, 4.0 * chunks * c.shape.experts); });
    for (const Pass& pass : passes()) sum_shards(pass);
  }

  // The ETP group is the TP group: both are t consecutive ranks.
  void sum_shards(const Pass& pass) {
    // Rows that arrive at a rank, by chunk.
    std::vector<std::vector<int>> arrived(at(c.layout.world), std::vector<int>(at(pass.chunks)));
    for (int rank = 0; rank < c.layout.world; ++rank)
      for (int token = 0; token < tokens_of(injected, rank); ++token)
        for (int slot = 0; slot < k; ++slot)
          ++arrived[at(p.owner(rank, injected[at(rank)][at(token * k + slot)]))]
                   [at(chunk_of(rank, token, pass.chunks))];
    for (int rank = 0; rank < c.layout.world; ++rank)
      each_tp_peer(rank, [&](int peer) {
        for (int chunk = 0; chunk < pass.chunks; ++chunk) {
          const int mine = arrived[at(rank)][at(chunk)], theirs = arrived[at(peer)][at(chunk)];
          if (sliced) {
            payload(*pass.sent, rank, peer, row * mine);    // all-gather of what arrived
            payload(*pass.sent, rank, peer, row * theirs);  // partial sums of the peer's rows
          } else {  // the same rows arrived at both: reduce-scatter, then all-gather, of slices
            payload(*pass.sent, rank, peer, row * part_size(mine, t, peer % t));
            payload(*pass.sent, rank, peer, row * part_size(mine, t, rank % t));
          }
        }
      });
  }

  // Whose tokens each rank has, before a gather over `group`: it passes them all on to each member, and gets sums
  // of as many back.
  using Sources = std::vector<std::vector<int>>;
  template <class Group>
  void gather_over(Sources& has, double experts_of_peer, const Group& group) {
    const Sources before = has;
    const bool own_tokens = !sliced && c.layout.sequence_parallel && t > 1;  // of each member of a TP group
    for (int rank = 0; rank < c.layout.world; ++rank) {
      has[at(rank)].clear();
      const auto& mine = before[at(rank)];
      double tokens = 0;
      for (const int source : mine) tokens += tokens_of(injected, source);
      for (const int peer : group(rank)) {
        has[at(rank)].insert(has[at(rank)].end(), before[at(peer)].begin(), before[at(peer)].end());
        for (Matrix* pass : {&out.forward, &out.backward}) {
          payload(*pass, rank, peer, row * tokens);
          payload(*pass, peer, rank, row * tokens);
        }
        metadata(out.forward, rank, peer, 8.0 * k * tokens);  // ids and weights
        if (cut.recut) metadata(out.backward, rank, peer, 8.0 * k * tokens);
        metadata(out.backward, peer, rank, 4.0 * k * tokens);  // gradients of weights
        metadata(out.forward, rank, peer,
                 4.0 * static_cast<double>(mine.size()) * ((own_tokens ? t : 1) + chunks * experts_of_peer));
      }
    }
  }

  void gather() {
    const int etp = c.layout.etp, local = c.shape.experts / c.layout.ep;
    const bool alike = etp > 1 && etp == t && !sliced;  // the ETP group is a TP group that injects the same tokens
    Sources has;
    for (int rank = 0; rank < c.layout.world; ++rank) has.push_back({rank});
    gather_over(has, static_cast<double>(p.on_node(0).size()) * local, [&](int rank) { return p.on_rail(rank); });
    gather_over(has, local, [&](int rank) { return p.on_node(rank); });
    const auto shards = [&](int rank) {
      std::vector<int> group;
      for (int i = 0; i < etp; ++i) group.push_back(rank - rank % etp + i);
      return group;
    };
    if (!alike) return gather_over(has, local, shards);
    for (const Pass& pass : passes())
      for (int rank = 0; rank < c.layout.world; ++rank)
        for (int chunk = 0; chunk < pass.chunks; ++chunk) {
          int tokens = 0;
          for (const int source : has[at(rank)]) tokens += part_size(tokens_of(injected, source), pass.chunks, chunk);
          for (const int peer : shards(rank)) {  // reduce-scatter, then all-gather, of slices
            const int rows = part_size(tokens, t, peer % t) + part_size(tokens, t, rank % t);
            payload(*pass.sent, rank, peer, row * rows);
            if (pass.sent == &out.backward) metadata(out.backward, rank, peer, 4.0 * k * rows);
          }
        }
  }

  void node_dedup() {
    const int local = c.shape.experts / c.layout.ep;
    for (int rank = 0; rank < c.layout.world; ++rank) {
      std::set<int> nodes;
      int in_node = 0;
      for (int i = 0; i < c.layout.ep; ++i) {
        nodes.insert(p.node(p.ep_member(rank, i)));
        in_node += p.node(p.ep_member(rank, i)) == p.node(rank) ? 1 : 0;
      }
      // Counts: over the rail of each expert and rank of the peer's node, and of the node; then, for all
      // sources of my rail, those of each expert of the peer and of the peer.
      for (const int node : nodes)
        metadata(out.forward, rank, p.relay(rank, node), 4.0 * chunks * (in_node * local + in_node + 1));
      for (int i = 0; i < c.layout.ep; ++i)
        if (p.node(p.ep_member(rank, i)) == p.node(rank))
          metadata(out.forward, rank, p.ep_member(rank, i),
                   4.0 * chunks * static_cast<double>(nodes.size()) * (local + 1));
      for (int token = 0; token < tokens_of(injected, rank); ++token) {
        std::set<int> reached_nodes, reached_ranks;
        for (int slot = 0; slot < k; ++slot) {
          const int owner = p.owner(rank, injected[at(rank)][at(token * k + slot)]);
          reached_ranks.insert(owner), reached_nodes.insert(p.node(owner));
        }
        std::vector<std::pair<int, int>> hops;
        for (const int node : reached_nodes) hops.emplace_back(rank, p.relay(rank, node));
        for (const int owner : reached_ranks) hops.emplace_back(p.relay(rank, p.node(owner)), owner);
        for (const auto& [from, to] : hops) {
          for (Matrix* pass : {&out.forward, &out.backward}) {
            payload(*pass, from, to, row);
            payload(*pass, to, from, row);
          }
          metadata(out.forward, from, to, 8.0 * k);  // ids and weights
          if (cut.recut) metadata(out.backward, from, to, 8.0 * k);
          metadata(out.backward, to, from, 4.0 * k);  // gradients of weights
        }
      }
    }
  }
};

}  // namespace

Way way_of(std::string_view transport) {
  if (transport == "flat") return Way::flat;
  if (transport == "two_level") return Way::two_level;
  if (transport == "node_dedup") return Way::node_dedup;
  if (transport == "gather") return Way::gather;
  throw std::logic_error("tests/support/drawn_counts: nobody counts the bytes of " + std::string(transport));
}

TrafficMatrix expect_traffic(const LayerCase& c, const Ids& held, bool sliced, Way way, const PassChunks& chunks) {
  TrafficCount count(c, held, sliced, chunks);
  count.around();
  switch (way) {
    case Way::flat: count.pairs(false); break;
    case Way::two_level: count.pairs(true); break;
    case Way::node_dedup: count.node_dedup(); break;
    case Way::gather: count.gather(); break;
  }
  return std::move(count.out);
}

}  // namespace topomoe::testing
