// `node_dedup`: a token crosses to each node once, however many experts it has there (DESIGN 5).
//
// Out: exchange over the rail of each token once a node; the receiver repacks and passes it on inside the
// node, once for each rank with one of its experts; that rank spreads it to its experts. Ids and weights
// travel beside the rows. Back: each rank sums its experts' weighted outputs, the receiver sums over its
// node, the source over nodes; so weights are applied at the experts' rank, and the backward returns their
// gradients from there. Expected rows are T d between nodes and T D inside, against T k for flat.

#include "planner/schedules/build.hpp"

namespace topomoe {
namespace {

struct NodeDedup {
  explicit NodeDedup(const ScheduleRequest& request) : d(request, "node_dedup"), n(request.chunks), r(request.pieces) {}

  LayerDraft d;
  const int n, r;
  std::vector<int> node_maps, rank_maps, expert_maps;      // by chunk, by chunk, by piece
  std::vector<int> expert_in, expert_out, expert_weights;  // by piece

  // What travels beside a row on its way: the row itself or a sidecar.
  struct Cargo {
    std::string tag;
    Columns columns;
    Element element;
    bool metadata() const { return columns != Columns::hidden; }
  };

  int piece_of(int c) const { return c * r / n; }
  RankSet all_sources() const { return me({Role::node, Role::rail}); }

  int cargo_rows(const Cargo& cargo, const std::string& where, int suffix, Symbol symbol, Chunks chunks,
                 RankSet sources, RankSet dests, Order order, Storage storage = Storage::pass) {
    Buffer b{.name = cargo.tag + where + "." + std::to_string(suffix),
             .symbol = symbol,
             .chunks = chunks,
             .sources = std::move(sources),
             .dests = std::move(dests),
             .order = order,
             .columns = cargo.columns,
             .element = cargo.element,
             .storage = storage};
    return d.buffer(std::move(b));
  }
  // The four stations between tokens and experts.
  int leaving(const Cargo& g, int c) {
    return cargo_rows(g, "rail send", c, Symbol::node_tokens, d.one(c), me(), me({Role::rail}), Order::by_dest);
  }
  int relayed(const Cargo& g, int c) {
    return cargo_rows(g, "rail recv", c, Symbol::node_tokens, d.one(c), me({Role::rail}), me(), Order::by_source);
  }
  int fanned(const Cargo& g, int c) {
    return cargo_rows(g, "node send", c, Symbol::rank_tokens, d.one(c), me({Role::rail}), me({Role::node}),
                      Order::by_dest);
  }
  int landed(const Cargo& g, int p, Storage storage = Storage::pass) {
    return cargo_rows(g, "node recv", p, Symbol::rank_tokens, d.piece(p), all_sources(), me(), Order::by_source,
                      storage);
  }

  void add(double slot, const std::string& name, StepKind kind, StepPhase phase, int c, Lane lane, Role group, View in,
           View out, int map, bool metadata, View weights = {}) {
    d.step(slot, {.name = name + "." + std::to_string(c),
                  .kind = kind,
                  .phase = phase,
                  .chunk = c,
                  .lane = lane,
                  .group = group,
                  .metadata = metadata,
                  .in = {std::move(in)},
                  .out = {std::move(out)},
                  .map = map,
                  .weights = std::move(weights)});
  }
  void index(double slot, const std::string& name, int c, int map) {
    d.step(slot, {.name = "index " + name + "." + std::to_string(c),
                  .kind = StepKind::index,
                  .phase = StepPhase::metadata,
                  .chunk = c,
                  .metadata = true,
                  .map = map});
  }

  struct Hop {
    int send, recv;
  };
  // Chunk c of `tokens` to the relays of each node.
  Hop cross(double slot, const Cargo& g, StepPhase phase, int c, int tokens, bool build_map) {
    const auto i = static_cast<std::size_t>(c);
    const Hop hop{leaving(g, c), relayed(g, c)};
    if (build_map) {
      node_maps.push_back(d.map("nodes." + std::to_string(c), d.mine(tokens, c), whole(hop.send), d.mine(d.ids, c)));
      index(slot, "nodes", c, node_maps.back());
    }
    add(slot, g.tag + "pack", StepKind::pack, phase, c, Lane::copy, Role::rail, d.mine(tokens, c), whole(hop.send),
        node_maps[i], g.metadata());
    add(slot, g.tag + "cross", StepKind::exchange, phase, c, Lane::inter_node, Role::rail, to_dest(hop.send, peer()),
        from_source(hop.recv, d.one(c), peer()), -1, g.metadata());
    return hop;
  }
  // From the relay to the ranks of its node; `dest` is the piece's landing buffer.
  void fan_out(double slot, const Cargo& g, StepPhase phase, int c, int from, int dest) {
    const auto i = static_cast<std::size_t>(c);
    const int send = fanned(g, c);
    add(slot, g.tag + "fan out", StepKind::pack, phase, c, Lane::copy, Role::node, whole(from), whole(send),
        rank_maps[i], g.metadata());
    add(slot, g.tag + "deliver", StepKind::exchange, phase, c, Lane::intra_node, Role::node, to_dest(send, peer()),
        from_source(dest, d.one(c), peer({Role::rail})), -1, g.metadata());
  }
  // The way back of chunk c: sum in the node, cross, sum at the source into `to`.
  void way_back(double slot, const Cargo& g, StepPhase phase, int c, int landed_rows, View to) {
    const auto i = static_cast<std::size_t>(c);
    const Cargo back{g.tag + "back ", g.columns, g.element};  // the same rows, in memory of their own
    const int fan = fanned(back, c), relay = relayed(back, c), home = leaving(back, c);
    add(slot, g.tag + "collect", StepKind::exchange, phase, c, Lane::intra_node, Role::node,
        from_source(landed_rows, d.one(c), peer({Role::rail})), to_dest(fan, peer()), -1, g.metadata());
    add(slot + 1, g.tag + "sum in node", StepKind::partial_combine, phase, c, Lane::copy, Role::node, whole(fan),
        whole(relay), rank_maps[i], g.metadata());
    add(slot + 1, g.tag + "cross back", StepKind::exchange, phase, c, Lane::inter_node, Role::rail,
        from_source(relay, d.one(c), peer()), to_dest(home, peer()), -1, g.metadata());
    add(slot + 2, g.tag + "combine", StepKind::combine, phase, c, Lane::copy, Role::rail, whole(home), std::move(to),
        node_maps[i], g.metadata());
  }

  void exchange_counts() {
    const auto counts = [&](const std::string& name, Lane lane, Role group, std::vector<CountSlice> slices) {
      d.step(-1, {.name = name,
                  .kind = StepKind::counts_exchange,
                  .phase = StepPhase::metadata,
                  .lane = lane,
                  .group = group,
                  .metadata = true,
                  .slices = std::move(slices)});
    };
    counts("counts", Lane::inter_node, Role::rail,
           {{Symbol::pairs, me(), peer({Role::node})},
            {Symbol::rank_tokens, me(), peer({Role::node})},
            {Symbol::node_tokens, me(), peer()}});
    counts("counts in node", Lane::intra_node, Role::node,
           {{Symbol::pairs, me({Role::rail}), peer()}, {Symbol::rank_tokens, me({Role::rail}), peer()}});
  }
};

}  // namespace

Schedule build_node_dedup(const ScheduleRequest& request) {
  NodeDedup f(request);
  LayerDraft& d = f.d;
  const NodeDedup::Cargo row{"", Columns::hidden, Element::payload}, ids{"ids ", Columns::top_k, Element::i32},
      weights{"weights ", Columns::top_k, Element::f32}, grad{"b ", Columns::hidden, Element::payload},
      weight_grad{"dweights ", Columns::top_k, Element::f32};

  d.open_forward(-2);
  f.exchange_counts();
  for (int p = 0; p < f.r; ++p) {
    const int landed = f.landed(row, p), landed_ids = f.landed(ids, p),
              landed_weights = f.landed(weights, p, Storage::saved);
    f.expert_weights.push_back(landed_weights);
    for (int c = d.piece(p).begin; c < d.piece(p).end; ++c) {
      const auto rows = f.cross(c, row, StepPhase::forward, c, d.x, true);
      const auto hop_ids = f.cross(c, ids, StepPhase::metadata, c, d.ids, false);
      const auto hop_weights = f.cross(c, weights, StepPhase::metadata, c, d.weights, false);
      f.rank_maps.push_back(d.map("ranks." + std::to_string(c), whole(rows.recv),
                                  whole(f.fanned({"layout ", row.columns, row.element}, c)), whole(hop_ids.recv)));
      f.index(c + 1, "ranks", c, f.rank_maps.back());
      f.fan_out(c + 1, row, StepPhase::forward, c, rows.recv, landed);
      f.fan_out(c + 1, ids, StepPhase::metadata, c, hop_ids.recv, landed_ids);
      f.fan_out(c + 1, weights, StepPhase::metadata, c, hop_weights.recv, landed_weights);
    }
    const int slot = d.piece(p).end - 1 + 2;
    f.expert_in.push_back(d.rows("expert_in." + std::to_string(p), Symbol::pairs, d.piece(p), me({Role::ep}), me(),
                                 Order::by_expert, Storage::saved));
    f.expert_maps.push_back(
        d.map("experts." + std::to_string(p), whole(landed), whole(f.expert_in.back()), whole(landed_ids)));
    f.index(slot, "experts", d.piece(p).begin, f.expert_maps.back());
    f.add(slot, "spread", StepKind::pack, StepPhase::forward, d.piece(p).begin, Lane::copy, Role::ep, whole(landed),
          whole(f.expert_in.back()), f.expert_maps.back(), false);
    f.expert_out.push_back(d.expert_forward(slot, p, f.expert_in.back(), Storage::saved));
    const int summed = f.landed({"summed ", row.columns, row.element}, p);
    f.add(slot, "sum on rank", StepKind::partial_combine, StepPhase::forward, d.piece(p).begin, Lane::copy, Role::ep,
          whole(f.expert_out.back()), whole(summed), f.expert_maps.back(), false, whole(landed_weights));
    for (int c = d.piece(p).begin; c < d.piece(p).end; ++c) {
      f.way_back(slot + 1, row, StepPhase::forward, c, summed, d.mine(d.y, c));
      d.deliver(slot + 3, d.y, c);
    }
  }
  d.close_forward(f.n + 6);

  d.open_backward(-2);
  for (int p = 0; p < f.r; ++p) {
    const auto i = static_cast<std::size_t>(p);
    const int landed = f.landed(grad, p);
    for (int c = d.piece(p).begin; c < d.piece(p).end; ++c) {
      const auto rows = f.cross(c, grad, StepPhase::dgrad, c, d.dy, false);
      f.fan_out(c + 1, grad, StepPhase::dgrad, c, rows.recv, landed);
    }
    const int slot = d.piece(p).end - 1 + 2;
    const int dout =
        d.rows("dexpert_out." + std::to_string(p), Symbol::pairs, d.piece(p), me({Role::ep}), me(), Order::by_expert);
    f.add(slot, "b spread", StepKind::pack, StepPhase::dgrad, d.piece(p).begin, Lane::copy, Role::ep, whole(landed),
          whole(dout), f.expert_maps[i], false, whole(f.expert_weights[i]));
    const int factors = f.landed(weight_grad, p);
    d.step(slot, {.name = "weight grads." + std::to_string(p),
                  .kind = StepKind::weight_grad,
                  .phase = StepPhase::dgrad,
                  .chunk = d.piece(p).begin,
                  .lane = Lane::copy,
                  .in = {whole(landed), whole(f.expert_out[i])},
                  .out = {whole(factors)},
                  .map = f.expert_maps[i]});
    const int din = d.expert_backward(slot, slot + 1, p, f.expert_in[i], dout);
    const int summed = f.landed({"b summed ", row.columns, row.element}, p);
    f.add(slot, "b sum on rank", StepKind::partial_combine, StepPhase::dgrad, d.piece(p).begin, Lane::copy, Role::ep,
          whole(din), whole(summed), f.expert_maps[i], false);
    for (int c = d.piece(p).begin; c < d.piece(p).end; ++c) {
      f.way_back(slot + 1, grad, StepPhase::dgrad, c, summed, d.mine(d.dx, c));
      f.way_back(slot + 1, weight_grad, StepPhase::dgrad, c, factors, d.mine(d.weight_grads, c));
    }
  }
  d.close_backward(f.n + 6);
  return d.finish();
}

}  // namespace topomoe
