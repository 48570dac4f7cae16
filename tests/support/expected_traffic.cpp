// Bytes by sender, receiver and pass, counted token by token; see DESIGN 5 for the same in closed form.

#include <array>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

#include "tests/support/drawn_counts.hpp"

namespace topomoe::testing {
namespace {

using Index = std::size_t;

Index at(int i) { return static_cast<Index>(i); }

using Matrix = std::vector<std::vector<Traffic>>;

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

  // Copies at all of some ranks.
  double local(const std::vector<int>& ranks) const {
    double all = 0;
    for (const int rank : ranks) all += p.local(rank);
    return all;
  }
  // Calls visit(owner) for each copy that a token of the rank goes to.
  template <class Visit>
  void each_owner(int rank, int token, Visit visit) const {
    for (int slot = 0; slot < k; ++slot)
      if (const int copy = injected[at(rank)][at(token * k + slot)]; copy >= 0) visit(p.owner(rank, copy));
  }

  // k rows a token; in two levels they pass the member of my node with the owner's index on its own.
  void pairs(bool two_level) {
    for (int rank = 0; rank < c.layout.world; ++rank) {
      const auto in_node = static_cast<int>(p.on_node(rank).size());
      if (two_level) {
        for (const int peer : p.on_node(rank)) metadata(out.forward, rank, peer, 4.0 * chunks * local(p.on_rail(peer)));
        for (const int peer : p.on_rail(rank))
          metadata(out.forward, rank, peer, 4.0 * chunks * in_node * p.local(peer));
      } else {
        for (const int peer : p.ep_group(rank)) metadata(out.forward, rank, peer, 4.0 * chunks * p.local(peer));
      }
      for (int token = 0; token < tokens_of(injected, rank); ++token)
        each_owner(rank, token, [&](int owner) {
          const int relay = two_level ? p.relay(owner, p.node(rank)) : rank;
          for (const auto& [from, to] : {std::pair{rank, relay}, {relay, owner}})
            for (Matrix* pass : {&out.forward, &out.backward}) {
              payload(*pass, from, to, row);  // x and dy there
              payload(*pass, to, from, row);  // y and dx back
            }
        });
    }
    if (c.layout.etp == 1) return;
    if (sliced)
      for (int rank = 0; rank < c.layout.world; ++rank)
        each_tp_peer(rank,
                     [&](int peer) { metadata(out.forward, rank, peer, 4.0 * chunks * c.layout.ep * p.local(rank)); });
    for (const Pass& pass : passes()) shards(pass, false);
  }

  // The ETP group is the TP group: both are t consecutive ranks. `once`: a row for each token that has an expert here,
  // its ids and weights beside it; else one for each of its experts.
  void shards(const Pass& pass, bool once) {
    // Rows that arrive at a rank, by chunk.
    std::vector<std::vector<int>> arrived(at(c.layout.world), std::vector<int>(at(pass.chunks)));
    for (int rank = 0; rank < c.layout.world; ++rank)
      for (int token = 0; token < tokens_of(injected, rank); ++token) {
        std::multiset<int> owners;
        each_owner(rank, token, [&](int owner) { owners.insert(owner); });
        for (auto owner = owners.begin(); owner != owners.end(); owner = once ? owners.upper_bound(*owner) : ++owner)
          ++arrived[at(*owner)][at(chunk_of(rank, token, pass.chunks))];
      }
    const bool backward = pass.sent == &out.backward;
    const double sidecars_out = once && (!backward || cut.recut) ? 8.0 * k : 0,  // ids and weights
        sidecars_back = once && backward ? 4.0 * k : 0;                          // gradients of weights
    for (int rank = 0; rank < c.layout.world; ++rank)
      each_tp_peer(rank, [&](int peer) {
        for (int chunk = 0; chunk < pass.chunks; ++chunk) {
          const int mine = arrived[at(rank)][at(chunk)], theirs = arrived[at(peer)][at(chunk)];
          if (sliced) {  // all-gather of what arrived, partial sums of the peer's rows
            payload(*pass.sent, rank, peer, row * (mine + theirs));
            metadata(*pass.sent, rank, peer, sidecars_out * mine + sidecars_back * theirs);
          } else {  // the same rows arrived at both: reduce-scatter, then all-gather, of slices
            const int rows = part_size(mine, t, peer % t) + part_size(mine, t, rank % t);
            payload(*pass.sent, rank, peer, row * rows);
            metadata(*pass.sent, rank, peer, sidecars_back * rows);
          }
        }
      });
  }

  // Whose tokens each rank has, before a gather over `group`: it passes them all on to each member, and gets sums
  // of as many back.
  using Sources = std::vector<std::vector<int>>;
  template <class Copies, class Group>
  void gather_over(Sources& has, const Copies& copies_of_peer, const Group& group) {
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
                 4.0 * static_cast<double>(mine.size()) * ((own_tokens ? t : 1) + chunks * copies_of_peer(peer)));
      }
    }
  }

  void gather() {
    const int etp = c.layout.etp;
    const auto of_peer = [&](int peer) { return static_cast<double>(p.local(peer)); };
    const bool alike = etp > 1 && etp == t && !sliced;  // the ETP group is a TP group that injects the same tokens
    Sources has;
    for (int rank = 0; rank < c.layout.world; ++rank) has.push_back({rank});
    gather_over(
        has, [&](int peer) { return local(p.on_node(peer)); }, [&](int rank) { return p.on_rail(rank); });
    gather_over(has, of_peer, [&](int rank) { return p.on_node(rank); });
    const auto shards = [&](int rank) {
      std::vector<int> group;
      for (int i = 0; i < etp; ++i) group.push_back(rank - rank % etp + i);
      return group;
    };
    if (!alike) return gather_over(has, of_peer, shards);
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
        metadata(out.forward, rank, p.relay(rank, node),
                 4.0 * chunks * (local(p.on_node(p.relay(rank, node))) + in_node + 1));
      for (int i = 0; i < c.layout.ep; ++i)
        if (p.node(p.ep_member(rank, i)) == p.node(rank))
          metadata(out.forward, rank, p.ep_member(rank, i),
                   4.0 * chunks * static_cast<double>(nodes.size()) * (p.local(p.ep_member(rank, i)) + 1));
      for (int token = 0; token < tokens_of(injected, rank); ++token) {
        std::set<int> reached_nodes, reached_ranks;
        each_owner(rank, token, [&](int owner) { reached_ranks.insert(owner), reached_nodes.insert(p.node(owner)); });
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
    if (c.layout.etp == 1) return;
    if (sliced)  // for each source of my EP group
      for (int rank = 0; rank < c.layout.world; ++rank)
        each_tp_peer(rank, [&](int peer) {
          metadata(out.forward, rank, peer, 4.0 * chunks * c.layout.ep * (p.local(rank) + 1));
        });
    for (const Pass& pass : passes()) shards(pass, true);
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
