// `gather`: every rank gets every token, computes what its experts have to do with it, and all sum up (DESIGN 5).
//
// All-gather of tokens, ids and weights level by level: over the rail, then the node. Back the same levels in
// reverse, each an ordered reduce-scatter: an exchange and a sum in rank order, so that bits depend on nothing
// else. T P (N-1) bytes cross between nodes, T P N (g-1) inside, whatever k is.
//
// With ETP = t `sliced` gathers over ETP too; `replicated` ranks hold the same tokens there and all-reduce their
// partial sums. Where EP = 1 (MoEShard) the ETP group is all there is to gather over, in one level: the roles
// node and rail are parts of an EP group.

#include "planner/schedules/build.hpp"
#include "planner/schedules/tokens_layer.hpp"

namespace topomoe {
namespace {

class Gather final : public TokensWay {
 public:
  explicit Gather(const ScheduleRequest& r) : tp_gather_(r.split == TokenSplit::replicated && r.sequence_parallel) {
    all_reduces_ = r.etp > 1 && r.etp == r.tp && r.split == TokenSplit::replicated;
    if (r.ep > 1) levels_ = {Role::rail, Role::node};
    if (r.etp > 1 && !all_reduces_) levels_.push_back(Role::etp);
    if (levels_.empty()) levels_ = {Role::ep};  // of one rank
  }

  std::string name() const override { return "gather"; }
  int ticks_out() const override { return levels() + 1; }
  int ticks_back() const override { return levels(); }

  void exchange_counts(LayerDraft& d) override {
    for (int i = 0; i < levels(); ++i) {
      RankSet held = reached(Who::me, i);
      if (tp_gather_) held.spread.push_back(Role::tp);
      // What goes over the rail is meant for all of the peer's node; experts' shards are alike in their counts.
      const RankSet dests = level(i) == Role::rail ? peer({Role::node}) : peer();
      d.exchange_counts("counts over " + std::string(to_string(level(i))), level(i),
                        {{Symbol::held, held, {}}, {Symbol::pairs, reached(Who::me, i), dests}});
    }
  }

  int landed(LayerDraft& d, const Cargo& g, const std::string& name, int p, Storage storage) override {
    return tokens(d, g, name, p, d.piece(p), levels(), storage);
  }

  void out(LayerDraft& d, double slot, int c, std::span<const Load> loads) override {
    for (const Load& load : loads) {
      View from = d.mine(load.tokens, c);
      for (int i = 0; i < levels(); ++i) {
        const int to = i + 1 == levels() ? load.landed : tokens(d, load.cargo, "from " + of(i), c, d.chunk(c), i + 1);
        d.move(slot + i, StepKind::all_gather, numbered(load.cargo.tag + "gather over " + of(i), c), c, level(i), from,
               from_source(to, d.chunk(c), reached(Who::peer, i)), {.metadata = load.cargo.metadata()});
        from = whole(to);
      }
    }
  }

  void back(LayerDraft& d, double slot, const Cargo& g, int c, int landed, const View& to) override {
    const MoveBy by{.metadata = g.metadata()};
    int from = landed;
    if (all_reduces_) {
      from = tokens(d, g, "all shards", c, d.chunk(c), levels());
      sum_over_etp(d, slot, g.tag, c,
                   rows_for(g, "shards", c,
                            {.symbol = Symbol::tokens,
                             .chunks = d.chunk(c),
                             .sources = reached(Who::me, levels()),
                             .order = Order::by_source}),
                   landed, whole(from), by.metadata);
    }
    for (int i = levels() - 1; i >= 0; --i, ++slot) {
      Buffer rows = rows_for(g, "parts over " + of(i), c,
                             {.symbol = Symbol::tokens,
                              .chunks = d.chunk(c),
                              .sources = reached(Who::me, i),
                              .order = Order::by_source,
                              .blocks = level(i)});
      const int parts = d.buffer(std::move(rows));
      View block = whole(parts);
      block.block = Who::peer;
      d.move(slot, StepKind::exchange, numbered(g.tag + "scatter over " + of(i), c), c, level(i),
             from_source(from, d.chunk(c), reached(Who::peer, i)), block, by);
      from = i == 0 ? -1 : tokens(d, g, "sum over " + of(i), c, d.chunk(c), i);
      d.move(slot + 1, StepKind::ordered_sum, numbered(g.tag + "sum over " + of(i), c), c, level(i), whole(parts),
             i == 0 ? to : whole(from), by);
    }
  }

 private:
  int levels() const { return static_cast<int>(levels_.size()); }
  Role level(int i) const { return levels_[static_cast<std::size_t>(i)]; }
  std::string of(int i) const { return std::string(to_string(level(i))); }
  // Whose tokens a rank has after i levels.
  RankSet reached(Who base, int i) const { return {base, {levels_.rend() - i, levels_.rend()}}; }
  int tokens(LayerDraft& d, const Cargo& g, const std::string& name, int number, Chunks chunks, int after_levels,
             Storage storage = Storage::pass) const {
    return d.buffer(rows_for(g, name, number,
                             {.symbol = Symbol::tokens,
                              .chunks = chunks,
                              .sources = reached(Who::me, after_levels),
                              .order = Order::by_source,
                              .storage = storage}));
  }

  std::vector<Role> levels_;
  bool tp_gather_, all_reduces_ = false;
};

}  // namespace

Schedule build_gather(const ScheduleRequest& request) {
  Gather way(request);
  return build_tokens_layer(request, way);
}

}  // namespace topomoe
