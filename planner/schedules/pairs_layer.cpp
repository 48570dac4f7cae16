#include "planner/schedules/pairs_layer.hpp"

namespace topomoe {
namespace {

class PairsLayer {
 public:
  PairsLayer(const ScheduleRequest& request, PairsWay& way) : d(request, way.name()), way_(way) {}

  Schedule build() {
    forward();
    backward();
    return d.finish();
  }

 private:
  LayerDraft d;
  PairsWay& way_;
  std::vector<int> pack_maps_, sort_maps_;  // by chunk, by piece
  struct Returned {
    Chunks chunks;
    int rows, map;
  };
  std::vector<Returned> returned_;  // what the forward saves for the weights' gradients, by chunk

  static std::size_t at(int i) { return static_cast<std::size_t>(i); }
  bool gathers() const { return d.expert_sharded() && d.sliced(); }
  RankSet arriving() const { return me({Role::ep}); }
  int experts_slot(int p) const { return d.chunks_of_piece(p).end - 1 + way_.hops() + 1; }
  int combine_slot(int p) const { return experts_slot(p) + 1 + way_.hops(); }

  // Rows leaving for the experts' ranks (or coming back from them), chunk c.
  int packed(const std::string& name, int c, Storage storage = Storage::pass, Element element = Element::payload) {
    return d.rows(numbered(name, c), Symbol::pairs, d.chunk(c), me(), way_.leaving(), Order::by_dest, storage, element);
  }
  // Rows for my experts from `sources`, piece p, in the order in which they arrive.
  int arrived(const std::string& name, int p, const RankSet& sources, Element element = Element::payload) {
    return d.rows(numbered(name, p), Symbol::pairs, d.piece(p), sources, me(), Order::by_source, Storage::pass,
                  element);
  }

  // Tokens of piece p to `sorted`, rows by_expert; the first pass that is cut like this also builds the maps.
  void dispatch(const std::string& tag, int p, int tokens, bool weighted, const View& sorted) {
    const Element element = d.element_of(tokens);
    const int recv = arrived(tag + "recv", p, arriving(), element);
    const int gathered = gathers() ? arrived(tag + "gathered", p, d.computing(), element) : recv;
    const Chunks chunks = d.chunks_of_piece(p);
    for (int c = chunks.begin; c < chunks.end; ++c) {
      const int send = packed(tag + "send", c, Storage::pass, element);
      if (element == Element::fp8) d.to_fp8(c, c);
      if (static_cast<int>(pack_maps_.size()) == c) {
        pack_maps_.push_back(d.map(numbered(tag + "pack", c), d.mine(tokens, c), whole(send), d.mine(d.ids, c)));
        d.index(c, numbered(tag + "pack", c), c, pack_maps_.back());
      }
      d.move(c, StepKind::pack, numbered(tag + "pack", c), c, Role::ep, d.mine(tokens, c), whole(send),
             {.map = pack_maps_[at(c)], .weights = weighted ? d.mine(d.weights, c) : View{}});
      way_.out(d, c, tag, c, send, recv);
      if (gathers())
        d.move(c + way_.hops(), StepKind::all_gather, numbered(tag + "gather rows", c), c, Role::etp,
               from_source(recv, d.chunk(c), me({Role::ep})), from_source(gathered, d.chunk(c), peer({Role::ep})));
    }
    const int slot = experts_slot(p);
    if (static_cast<int>(sort_maps_.size()) == p) {
      sort_maps_.push_back(d.map(numbered(tag + "sort", p), whole(gathered), sorted));
      d.index(slot, numbered(tag + "sort", p), chunks.begin, sort_maps_.back());
    }
    d.move(slot, StepKind::repack, numbered(tag + "sort", p), chunks.begin, Role::ep, whole(gathered), sorted,
           {.map = sort_maps_[at(p)]});
  }
  int by_expert(const std::string& name, int p) {
    return d.rows(numbered(name, p), Symbol::pairs, d.piece(p), d.computing(), me(), Order::by_expert);
  }

  // Rows sorted by expert back to the ranks they came from: one buffer a chunk, in packed order.
  void give_back(const std::string& tag, int p, int sorted, Storage storage, std::vector<int>& out) {
    const int slot = experts_slot(p), partial = arrived(tag + "partial", p, d.computing());
    const Chunks chunks = d.chunks_of_piece(p);
    d.move(slot, StepKind::repack, numbered(tag + "unsort", p), chunks.begin, Role::ep, whole(sorted), whole(partial),
           {.map = sort_maps_[at(p)], .transpose = true});
    const int done = d.expert_sharded() ? arrived(tag + "summed", p, arriving()) : partial;
    for (int c = chunks.begin; c < chunks.end; ++c) {
      if (d.expert_sharded())
        sum_over_etp(d, slot, tag, c,
                     {.name = numbered(tag + "shards", c),
                      .symbol = Symbol::pairs,
                      .chunks = d.chunk(c),
                      .sources = arriving(),
                      .dests = me(),
                      .order = Order::by_source},
                     partial, from_source(done, d.chunk(c), arriving()));
      out.push_back(packed(tag + "returned", c, storage));
      way_.back(d, slot + 1, tag, c, done, out.back());
    }
  }

  void forward() {
    d.open_forward();
    way_.exchange_counts(d);
    if (gathers()) d.exchange_counts("shard counts", Role::etp, {{Symbol::pairs, me({Role::ep}), me()}});
    d.shared_forward(experts_slot(0) - 0.5);
    std::vector<int> returned;
    for (int p = 0; p < d.r(); ++p) {
      const View sorted = d.arrives_in(p, d.element_of(d.outgoing()));
      dispatch("", p, d.outgoing(), false, sorted);
      d.from_fp8(experts_slot(p), p, sorted);
      const int out = by_expert("expert_out", p);
      d.expert_forward(experts_slot(p), p, whole(out));
      give_back("", p, out, Storage::saved, returned);
    }
    for (int c = 0; c < d.n(); ++c) {
      const int slot = combine_slot(d.piece_of(c));
      d.move(slot, StepKind::combine, numbered("combine", c), c, Role::ep, whole(returned[at(c)]), d.mine(d.y, c),
             {.map = pack_maps_[at(c)], .weights = d.mine(d.weights, c)});
      d.deliver(slot, d.y, c);
      returned_.push_back({d.chunk(c), returned[at(c)], pack_maps_[at(c)]});
    }
    d.close_forward(combine_slot(d.r() - 1) + 1);
  }

  void backward() {
    d.open_backward();
    if (d.recuts()) pack_maps_.clear(), sort_maps_.clear(), way_.recut();
    d.shared_backward(experts_slot(0) - 0.5);
    std::vector<int> dreturned;
    for (int p = 0; p < d.r(); ++p) {
      const int dout = by_expert("dexpert_out", p), slot = experts_slot(p);
      dispatch("b ", p, d.dy, true, whole(dout));
      // The weights' gradients have all the rest of the pass to hide communication behind.
      const int din = d.expert_backward(slot, slot + 1, p, dout);
      give_back("b ", p, din, Storage::pass, dreturned);
    }
    // As the forward was cut: the rows that it saved are in that order.
    const int forward_chunks = static_cast<int>(returned_.size());
    for (int c = 0; c < forward_chunks; ++c) {
      const auto& [chunks, rows, map] = returned_[at(c)];
      d.step(c * d.n() / forward_chunks, {.name = numbered("weight grads", c),
                                          .kind = StepKind::weight_grad,
                                          .phase = StepPhase::dgrad,
                                          .chunk = chunks.begin,
                                          .lane = Lane::copy,
                                          .in = {from_source(d.dy, chunks, me()), whole(rows)},
                                          .out = {from_source(d.weight_grads, chunks, me())},
                                          .map = map});
    }
    for (int c = 0; c < d.n(); ++c)
      d.move(combine_slot(d.piece_of(c)), StepKind::combine, numbered("b combine", c), c, Role::ep,
             whole(dreturned[at(c)]), d.mine(d.dx, c), {.map = pack_maps_[at(c)]});
    d.close_backward(combine_slot(d.r() - 1) + 1);
  }
};

}  // namespace

Schedule build_pairs_layer(const ScheduleRequest& request, PairsWay& way) { return PairsLayer(request, way).build(); }

}  // namespace topomoe
