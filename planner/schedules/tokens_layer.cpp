#include "planner/schedules/tokens_layer.hpp"

#include <array>

namespace topomoe {
namespace {

class TokensLayer {
 public:
  TokensLayer(const ScheduleRequest& request, TokensWay& way) : d(request, way.name()), way_(way) {}

  Schedule build() {
    forward();
    backward();
    return d.finish();
  }

 private:
  LayerDraft d;
  TokensWay& way_;
  struct Piece {
    int map, in, out, weights;  // what the forward saves
  };
  std::vector<Piece> pieces_;

  int experts_slot(int p) const { return d.piece(p).end - 1 + way_.ticks_out(); }
  int last_slot() const { return experts_slot(d.r() - 1) + 1 + way_.ticks_back(); }
  int pairs(const std::string& name, int p, Storage storage) {
    const RankSet sources = d.expert_sharded() && !d.alike_over_etp() ? me({Role::etp, Role::ep}) : me({Role::ep});
    return d.rows(numbered(name, p), Symbol::pairs, d.piece(p), sources, me(), Order::by_expert, storage);
  }

  void forward() {
    const Cargo row{""}, ids{"ids ", Columns::top_k, Element::i32}, weights{"weights ", Columns::top_k, Element::f32};
    d.open_forward();
    way_.exchange_counts(d);
    for (int p = 0; p < d.r(); ++p) {
      const int landed = way_.landed(d, row, "landed", p, Storage::pass),
                landed_ids = way_.landed(d, ids, "landed", p, Storage::pass),
                landed_weights = way_.landed(d, weights, "landed", p, Storage::saved);
      const std::array<TokensWay::Load, 3> loads{
          {{row, d.x, landed}, {ids, d.ids, landed_ids}, {weights, d.weights, landed_weights}}};
      for (int c = d.piece(p).begin; c < d.piece(p).end; ++c) way_.out(d, c, c, loads);
      const int slot = experts_slot(p), first = d.piece(p).begin;
      const int in = pairs("expert_in", p, Storage::saved);
      const int map = d.map(numbered("experts", p), whole(landed), whole(in), whole(landed_ids));
      d.index(slot, numbered("experts", p), first, map);
      d.move(slot, StepKind::pack, numbered("spread", p), first, Role::ep, whole(landed), whole(in), {.map = map});
      const int out = d.expert_forward(slot, p, in, Storage::saved);
      const int summed = way_.landed(d, row, "summed", p, Storage::pass);
      d.move(slot, StepKind::partial_combine, numbered("sum on rank", p), first, Role::ep, whole(out), whole(summed),
             {.map = map, .weights = whole(landed_weights)});
      pieces_.push_back({map, in, out, landed_weights});
      for (int c = d.piece(p).begin; c < d.piece(p).end; ++c) {
        way_.back(d, slot + 1, row, c, summed, d.mine(d.y, c));
        d.deliver(slot + 1 + way_.ticks_back(), d.y, c);
      }
    }
    d.close_forward(last_slot() + 1);
  }

  void backward() {
    const Cargo row{"b "}, weight{"dweights ", Columns::top_k, Element::f32};
    d.open_backward();
    for (int p = 0; p < d.r(); ++p) {
      const Piece& piece = pieces_[static_cast<std::size_t>(p)];
      const int landed = way_.landed(d, row, "landed", p, Storage::pass);
      for (int c = d.piece(p).begin; c < d.piece(p).end; ++c)
        way_.out(d, c, c, std::array{TokensWay::Load{row, d.dy, landed}});
      const int slot = experts_slot(p), first = d.piece(p).begin;
      const int dout = pairs("dexpert_out", p, Storage::pass);
      d.move(slot, StepKind::pack, numbered("b spread", p), first, Role::ep, whole(landed), whole(dout),
             {.map = piece.map, .weights = whole(piece.weights)});
      const int factors = way_.landed(d, weight, "of experts", p, Storage::pass);
      d.step(slot, {.name = numbered("weight grads", p),
                    .kind = StepKind::weight_grad,
                    .phase = StepPhase::dgrad,
                    .chunk = first,
                    .lane = Lane::copy,
                    .in = {whole(landed), whole(piece.out)},
                    .out = {whole(factors)},
                    .map = piece.map});
      const int din = d.expert_backward(slot, slot + 1, p, piece.in, dout);
      const int summed = way_.landed(d, row, "summed", p, Storage::pass);
      d.move(slot, StepKind::partial_combine, numbered("b sum on rank", p), first, Role::ep, whole(din), whole(summed),
             {.map = piece.map});
      for (int c = d.piece(p).begin; c < d.piece(p).end; ++c) {
        way_.back(d, slot + 1, row, c, summed, d.mine(d.dx, c));
        way_.back(d, slot + 1, weight, c, factors, d.mine(d.weight_grads, c));
      }
    }
    d.close_backward(last_slot() + 1);
  }
};

}  // namespace

Buffer rows_for(const Cargo& cargo, const std::string& name, int number, Buffer rows) {
  rows.name = numbered(cargo.tag + name, number);
  rows.columns = cargo.columns, rows.element = cargo.element;
  return rows;
}

Schedule build_tokens_layer(const ScheduleRequest& request, TokensWay& way) {
  return TokensLayer(request, way).build();
}

}  // namespace topomoe
