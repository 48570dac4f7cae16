// `node_dedup`: a token crosses to each node once, however many experts it has there (DESIGN 5).
//
// Out: exchange over the rail of each token once a node; the receiver repacks and passes it on inside the
// node, once for each rank with one of its experts. Back: each rank sums its experts' weighted outputs, the
// receiver sums over its node, the source over nodes. Expected rows are T d between nodes and T D inside,
// against T k for flat.
//
// With ETP = t `sliced` ranks all-gather what arrived over ETP, once a token and rank, and `replicated` ranks have the
// same; both sum up shards before the way back.

#include "planner/schedules/build.hpp"
#include "planner/schedules/tokens_layer.hpp"

namespace topomoe {
namespace {

class NodeDedup final : public TokensWay {
 public:
  explicit NodeDedup(const ScheduleRequest& r)
      : sharded_(r.etp > 1), gathers_(sharded_ && r.split == TokenSplit::sliced) {}

  std::string name() const override { return "node_dedup"; }
  int ticks_out() const override { return gathers_ ? 3 : 2; }
  int ticks_back() const override { return 2; }

  void exchange_counts(LayerDraft& d) override {
    d.exchange_counts("counts", Role::rail,
                      {{Symbol::pairs, me(), peer({Role::node})},
                       {Symbol::rank_tokens, me(), peer({Role::node})},
                       {Symbol::node_tokens, me(), peer()}});
    d.exchange_counts("counts in node", Role::node,
                      {{Symbol::pairs, me({Role::rail}), peer()}, {Symbol::rank_tokens, me({Role::rail}), peer()}});
    if (gathers_)
      d.exchange_counts("shard counts", Role::etp,
                        {{Symbol::pairs, me({Role::ep}), me()}, {Symbol::rank_tokens, me({Role::ep}), me()}});
  }

  int landed(LayerDraft& d, const Cargo& g, const std::string& name, int p, Storage storage) override {
    Buffer b = arriving(g, name, p, d.piece(p));
    if (gathers_) b.sources.spread.insert(b.sources.spread.begin(), Role::etp);
    b.storage = storage;
    return d.buffer(std::move(b));
  }

  void out(LayerDraft& d, double slot, int c, std::span<const Load> loads) override {
    const bool first = static_cast<int>(node_maps_.size()) == c;
    std::vector<int> relays;
    for (const Load& load : loads) {
      const int send = leaving(d, load.cargo, "rail send", c), recv = relayed(d, load.cargo, "rail recv", c);
      if (first && &load == loads.data()) {
        node_maps_.push_back(
            d.map(numbered(load.cargo.tag + "nodes", c), d.mine(load.tokens, c), whole(send), d.mine(d.ids, c)));
        d.index(slot, numbered(load.cargo.tag + "nodes", c), c, node_maps_.back());
      }
      d.move(slot, StepKind::pack, numbered(load.cargo.tag + "pack", c), c, Role::rail, d.mine(load.tokens, c),
             whole(send), {.map = node_maps_[at(c)], .metadata = load.cargo.metadata()});
      d.move(slot, StepKind::exchange, numbered(load.cargo.tag + "cross", c), c, Role::rail, to_dest(send, peer()),
             from_source(recv, d.chunk(c), peer()), {.metadata = load.cargo.metadata()});
      relays.push_back(recv);
    }
    for (std::size_t i = 0; i < loads.size(); ++i) {
      const Cargo& g = loads[i].cargo;
      const int send = fanned(d, g, "node send", c);
      if (first && i == 0) {
        rank_maps_.push_back(d.map(numbered(g.tag + "ranks", c), whole(relays[0]), whole(send), whole(relays[1])));
        d.index(slot + 1, numbered(g.tag + "ranks", c), c, rank_maps_.back());
      }
      d.move(slot + 1, StepKind::pack, numbered(g.tag + "fan out", c), c, Role::node, whole(relays[i]), whole(send),
             {.map = rank_maps_[at(c)], .metadata = g.metadata()});
      const int to = gathers_ ? d.buffer(arriving(g, "arrived", c, d.chunk(c))) : loads[i].landed;
      d.move(slot + 1, StepKind::exchange, numbered(g.tag + "deliver", c), c, Role::node, to_dest(send, peer()),
             from_source(to, d.chunk(c), peer({Role::rail})), {.metadata = g.metadata()});
      if (gathers_)
        d.move(slot + 2, StepKind::all_gather, numbered(g.tag + "gather rows", c), c, Role::etp, whole(to),
               from_source(loads[i].landed, d.chunk(c), peer({Role::node, Role::rail})), {.metadata = g.metadata()});
    }
  }

  void recut() override { node_maps_.clear(), rank_maps_.clear(); }

  // Sum in the node, cross, sum at the source.
  void back(LayerDraft& d, double slot, const Cargo& g, int c, int landed, const View& to) override {
    const int fan = fanned(d, g, "node back", c), relay = relayed(d, g, "rail back", c),
              home = leaving(d, g, "home", c);
    const bool metadata = g.metadata();
    if (sharded_) {
      const int summed = d.buffer(arriving(g, "all shards", c, d.chunk(c)));
      sum_over_etp(d, slot, g.tag, c, arriving(g, "shards", c, d.chunk(c)), landed, whole(summed), metadata);
      landed = summed;
    }
    d.move(slot, StepKind::exchange, numbered(g.tag + "collect", c), c, Role::node,
           from_source(landed, d.chunk(c), peer({Role::rail})), to_dest(fan, peer()), {.metadata = metadata});
    d.move(slot + 1, StepKind::partial_combine, numbered(g.tag + "sum in node", c), c, Role::node, whole(fan),
           whole(relay), {.map = rank_maps_[at(c)], .metadata = metadata});
    d.move(slot + 1, StepKind::exchange, numbered(g.tag + "cross back", c), c, Role::rail,
           from_source(relay, d.chunk(c), peer()), to_dest(home, peer()), {.metadata = metadata});
    d.move(slot + 2, StepKind::combine, numbered(g.tag + "combine", c), c, Role::rail, whole(home), to,
           {.map = node_maps_[at(c)], .metadata = metadata});
  }

 private:
  // A row for each token that comes to me from my EP group.
  static Buffer arriving(const Cargo& g, const std::string& name, int number, Chunks chunks) {
    return rows_for(g, name, number,
                    {.symbol = Symbol::rank_tokens,
                     .chunks = chunks,
                     .sources = me({Role::node, Role::rail}),
                     .dests = me(),
                     .order = Order::by_source});
  }
  // The stations between a token's source and its experts.
  static int station(LayerDraft& d, const Cargo& g, const std::string& name, int c, Symbol symbol, RankSet sources,
                     RankSet dests, Order order) {
    return d.buffer(rows_for(g, name, c,
                             {.symbol = symbol,
                              .chunks = d.chunk(c),
                              .sources = std::move(sources),
                              .dests = std::move(dests),
                              .order = order}));
  }
  static int leaving(LayerDraft& d, const Cargo& g, const std::string& name, int c) {
    return station(d, g, name, c, Symbol::node_tokens, me(), me({Role::rail}), Order::by_dest);
  }
  static int relayed(LayerDraft& d, const Cargo& g, const std::string& name, int c) {
    return station(d, g, name, c, Symbol::node_tokens, me({Role::rail}), me(), Order::by_source);
  }
  static int fanned(LayerDraft& d, const Cargo& g, const std::string& name, int c) {
    return station(d, g, name, c, Symbol::rank_tokens, me({Role::rail}), me({Role::node}), Order::by_dest);
  }
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }

  const bool sharded_, gathers_;
  std::vector<int> node_maps_, rank_maps_;  // by chunk
};

}  // namespace

Schedule build_node_dedup(const ScheduleRequest& request) {
  NodeDedup way(request);
  return build_tokens_layer(request, way);
}

}  // namespace topomoe
