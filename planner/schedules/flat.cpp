// `flat`: pack, one exchange over the EP group, experts, and the same way back (DESIGN 5).
//
// With ETP = t a rank holds 1/t of each of its experts. `sliced` ranks then received different tokens:
// they all-gather rows over ETP before the experts and reduce-scatter partial sums after. `replicated`
// ranks received the same: they all-reduce the partial sums, as reduce-scatter and all-gather of
// slices. Both add the t shards of a row in rank order, which is why their outputs agree bit for bit.
// MoNTA is sliced, ETP = t, n chunks: the gather of chunk i (inside the node) runs beside the exchange
// of chunk i+1 (between nodes).

#include "planner/schedules/build.hpp"

namespace topomoe {
namespace {

struct Flat {
  explicit Flat(const ScheduleRequest& request) : d(request, "flat"), n(request.chunks), r(request.pieces) {}

  LayerDraft d;
  const int n, r;
  std::vector<int> pack_maps, sort_maps;  // by chunk, by piece
  std::vector<int> expert_in, returned;   // saved: by piece, by chunk

  bool gathers() const { return d.expert_sharded() && d.sliced(); }
  bool all_reduces() const { return d.expert_sharded() && !d.sliced(); }
  RankSet arriving() const { return me({Role::ep}); }
  RankSet computing() const { return gathers() ? me({Role::etp, Role::ep}) : me({Role::ep}); }
  int piece_of(int c) const { return c * r / n; }

  // Rows leaving for the experts' ranks (or coming back from them), chunk c.
  int packed(const std::string& name, int c, Storage storage = Storage::pass) {
    return d.rows(name + "." + std::to_string(c), Symbol::pairs, d.one(c), me(), me({Role::ep}), Order::by_dest,
                  storage);
  }
  // Rows for my experts from `sources`, piece p, in the order in which they arrive.
  int arrived(const std::string& name, int p, const RankSet& sources) {
    return d.rows(name + "." + std::to_string(p), Symbol::pairs, d.piece(p), sources, me(), Order::by_source);
  }
  int for_experts(const std::string& name, int p, Storage storage) {
    return d.rows(name + "." + std::to_string(p), Symbol::pairs, d.piece(p), computing(), me(), Order::by_expert,
                  storage);
  }

  void communicate(double slot, const std::string& name, StepKind kind, StepPhase phase, int c, Lane lane, Role group,
                   View in, View out) {
    d.step(slot, {.name = name + "." + std::to_string(c),
                  .kind = kind,
                  .phase = phase,
                  .chunk = c,
                  .lane = lane,
                  .group = group,
                  .in = {std::move(in)},
                  .out = {std::move(out)}});
  }

  // Packed rows of all chunks of piece p to rows sorted by expert; the first pass also builds the maps.
  int dispatch(const std::string& tag, StepPhase phase, int p, int tokens, bool weighted, Storage storage) {
    const int recv = arrived(tag + "recv", p, arriving());
    const int gathered = gathers() ? arrived(tag + "gathered", p, computing()) : recv;
    const int sorted = for_experts(tag + "expert_in", p, storage);
    const bool first = phase == StepPhase::forward;
    for (int c = d.piece(p).begin; c < d.piece(p).end; ++c) {
      const int send = packed(tag + "send", c);
      if (first) {
        pack_maps.push_back(d.map("pack." + std::to_string(c), d.mine(tokens, c), whole(send), d.mine(d.ids, c)));
        d.step(c, {.name = "index pack." + std::to_string(c),
                   .kind = StepKind::index,
                   .phase = StepPhase::metadata,
                   .chunk = c,
                   .metadata = true,
                   .map = pack_maps.back()});
      }
      d.step(c, {.name = tag + "pack." + std::to_string(c),
                 .kind = StepKind::pack,
                 .phase = phase,
                 .chunk = c,
                 .lane = Lane::copy,
                 .in = {d.mine(tokens, c)},
                 .out = {whole(send)},
                 .map = pack_maps[static_cast<std::size_t>(c)],
                 .weights = weighted ? d.mine(d.weights, c) : View{}});
      communicate(c, tag + "dispatch", StepKind::exchange, phase, c, Lane::inter_node, Role::ep, to_dest(send, peer()),
                  from_source(recv, d.one(c), peer()));
      if (gathers())
        communicate(c + 1, tag + "gather rows", StepKind::all_gather, phase, c, Lane::intra_node, Role::etp,
                    from_source(recv, d.one(c), me({Role::ep})), from_source(gathered, d.one(c), peer({Role::ep})));
    }
    const int slot = d.piece(p).end - 1 + 2;
    if (first) {
      sort_maps.push_back(d.map("sort." + std::to_string(p), whole(gathered), whole(sorted)));
      d.step(slot, {.name = "index sort." + std::to_string(p),
                    .kind = StepKind::index,
                    .phase = StepPhase::metadata,
                    .chunk = d.piece(p).begin,
                    .metadata = true,
                    .map = sort_maps.back()});
    }
    d.step(slot, {.name = tag + "sort." + std::to_string(p),
                  .kind = StepKind::repack,
                  .phase = phase,
                  .chunk = d.piece(p).begin,
                  .lane = Lane::copy,
                  .in = {whole(gathered)},
                  .out = {whole(sorted)},
                  .map = sort_maps[static_cast<std::size_t>(p)]});
    return sorted;
  }

  // Rows sorted by expert back to the ranks they came from: one buffer a chunk, in packed order.
  void give_back(const std::string& tag, StepPhase phase, int p, int sorted, Storage storage, std::vector<int>& out) {
    const int slot = d.piece(p).end - 1 + 2;
    const int partial = arrived(tag + "partial", p, computing());
    d.step(slot, {.name = tag + "unsort." + std::to_string(p),
                  .kind = StepKind::repack,
                  .phase = phase,
                  .chunk = d.piece(p).begin,
                  .lane = Lane::copy,
                  .in = {whole(sorted)},
                  .out = {whole(partial)},
                  .map = sort_maps[static_cast<std::size_t>(p)],
                  .transpose = true});
    const int done = d.expert_sharded() ? arrived(tag + "summed", p, arriving()) : partial;
    for (int c = d.piece(p).begin; c < d.piece(p).end; ++c) {
      if (d.expert_sharded()) sum_shards(tag, phase, slot, c, partial, done);
      out.push_back(packed(tag + "returned", c, storage));
      communicate(slot + 1, tag + "return", StepKind::exchange, phase, c, Lane::inter_node, Role::ep,
                  from_source(done, d.one(c), peer()), to_dest(out.back(), peer()));
    }
  }

  // The t partial sums of each row, added in rank order, to the rank(s) that will return it.
  void sum_shards(const std::string& tag, StepPhase phase, int slot, int c, int partial, int done) {
    const auto chunk = from_source(partial, d.one(c), gathers() ? peer({Role::ep}) : me({Role::ep}));
    Buffer b{.name = tag + "shards." + std::to_string(c),
             .symbol = Symbol::pairs,
             .chunks = d.one(c),
             .sources = me({Role::ep}),
             .dests = me(),
             .order = Order::by_source,
             .blocks = Role::etp};
    if (all_reduces()) b.split = Split{Role::etp};
    const int shards = d.buffer(std::move(b));
    const auto part = [&](View v, Who who) {
      if (all_reduces()) v.split = Split{Role::etp, who};
      return v;
    };
    View block = whole(shards);
    block.block = Who::peer;
    communicate(slot, tag + "scatter shards", StepKind::exchange, phase, c, Lane::intra_node, Role::etp,
                part(chunk, Who::peer), block);
    const auto mine = part(from_source(done, d.one(c), me({Role::ep})), Who::me);
    communicate(slot, tag + "sum shards", StepKind::ordered_sum, phase, c, Lane::copy, Role::etp, whole(shards), mine);
    if (all_reduces())
      communicate(slot, tag + "gather sums", StepKind::all_gather, phase, c, Lane::intra_node, Role::etp, mine,
                  part(from_source(done, d.one(c), me({Role::ep})), Who::peer));
  }

  void exchange_counts() {
    d.step(-1, {.name = "counts",
                .kind = StepKind::counts_exchange,
                .phase = StepPhase::metadata,
                .lane = Lane::inter_node,
                .group = Role::ep,
                .metadata = true,
                .slices = {{Symbol::pairs, me(), peer()}}});
    if (gathers())
      d.step(-1, {.name = "shard counts",
                  .kind = StepKind::counts_exchange,
                  .phase = StepPhase::metadata,
                  .lane = Lane::intra_node,
                  .group = Role::etp,
                  .metadata = true,
                  .slices = {{Symbol::pairs, me({Role::ep}), me()}}});
  }
};

}  // namespace

Schedule build_flat(const ScheduleRequest& request) {
  Flat f(request);
  LayerDraft& d = f.d;
  const int n = f.n;

  d.open_forward(-2);
  f.exchange_counts();
  for (int p = 0; p < f.r; ++p) {
    f.expert_in.push_back(f.dispatch("", StepPhase::forward, p, d.x, false, Storage::saved));
    const int slot = d.piece(p).end - 1 + 2;
    const int out = d.expert_forward(slot, p, f.expert_in.back());
    f.give_back("", StepPhase::forward, p, out, Storage::saved, f.returned);
  }
  for (int c = 0; c < n; ++c) {
    const int slot = d.piece(f.piece_of(c)).end - 1 + 4;
    d.step(slot, {.name = "combine." + std::to_string(c),
                  .kind = StepKind::combine,
                  .chunk = c,
                  .lane = Lane::copy,
                  .in = {whole(f.returned[static_cast<std::size_t>(c)])},
                  .out = {d.mine(d.y, c)},
                  .map = f.pack_maps[static_cast<std::size_t>(c)],
                  .weights = d.mine(d.weights, c)});
    d.deliver(slot, d.y, c);
  }
  d.close_forward(n + 4);

  d.open_backward(-2);
  std::vector<int> dreturned;
  for (int p = 0; p < f.r; ++p) {
    const int dout = f.dispatch("b ", StepPhase::dgrad, p, d.dy, true, Storage::pass);
    const int slot = d.piece(p).end - 1 + 2;
    // The weights' gradients have all the rest of the pass to hide communication behind.
    const int din = d.expert_backward(slot, slot + 1, p, f.expert_in[static_cast<std::size_t>(p)], dout);
    f.give_back("b ", StepPhase::dgrad, p, din, Storage::pass, dreturned);
  }
  for (int c = 0; c < n; ++c) {
    const int slot = d.piece(f.piece_of(c)).end - 1 + 4;
    View factors = d.mine(d.weight_grads, c);
    d.step(c, {.name = "weight grads." + std::to_string(c),
               .kind = StepKind::weight_grad,
               .phase = StepPhase::dgrad,
               .chunk = c,
               .lane = Lane::copy,
               .in = {d.mine(d.dy, c), whole(f.returned[static_cast<std::size_t>(c)])},
               .out = {factors},
               .map = f.pack_maps[static_cast<std::size_t>(c)]});
    d.step(slot, {.name = "b combine." + std::to_string(c),
                  .kind = StepKind::combine,
                  .phase = StepPhase::dgrad,
                  .chunk = c,
                  .lane = Lane::copy,
                  .in = {whole(dreturned[static_cast<std::size_t>(c)])},
                  .out = {d.mine(d.dx, c)},
                  .map = f.pack_maps[static_cast<std::size_t>(c)]});
  }
  d.close_backward(n + 4);
  return d.finish();
}

}  // namespace topomoe
