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
  // Tokens of a piece as they came to me, and the map from them to the rows of my experts.
  struct Piece {
    int rows, weights, map;
  };
  std::vector<Piece> pieces_;

  int experts_slot(int p) const { return d.chunks_of_piece(p).end - 1 + way_.ticks_out(); }
  int last_slot() const { return experts_slot(d.r() - 1) + 1 + way_.ticks_back(); }

  // Piece p of `tokens` with ids and weights to the experts' ranks, and its map to `sorted`.
  Piece dispatch(const std::string& tag, int p, int tokens, Storage weights_storage, const View& sorted) {
    const Cargo row{tag, Columns::hidden, d.element_of(tokens)}, ids{tag + "ids ", Columns::top_k, Element::i32},
        weights{tag + "weights ", Columns::top_k, Element::f32};
    const int landed = way_.landed(d, row, "landed", p, Storage::pass),
              landed_ids = way_.landed(d, ids, "landed", p, Storage::pass),
              landed_weights = way_.landed(d, weights, "landed", p, weights_storage);
    travel(p, std::array<TokensWay::Load, 3>{
                  {{row, tokens, landed}, {ids, d.ids, landed_ids}, {weights, d.weights, landed_weights}}});
    const int map = d.map(numbered(tag + "experts", p), whole(landed), sorted, whole(landed_ids));
    d.index(experts_slot(p), numbered(tag + "experts", p), d.chunks_of_piece(p).begin, map);
    return {landed, landed_weights, map};
  }
  void travel(int p, std::span<const TokensWay::Load> loads) {
    const Chunks chunks = d.chunks_of_piece(p);
    for (int c = chunks.begin; c < chunks.end; ++c) {
      if (loads[0].cargo.element == Element::fp8) d.to_fp8(c, c);
      way_.out(d, c, c, loads);
    }
  }

  void forward() {
    d.open_forward();
    d.keep_expert_out();
    way_.exchange_counts(d);
    d.shared_forward(experts_slot(0) - 0.5);
    for (int p = 0; p < d.r(); ++p) {
      const Piece piece = dispatch("", p, d.outgoing(), d.recuts() ? Storage::pass : Storage::saved, d.expert_in(p));
      const Chunks chunks = d.chunks_of_piece(p);
      const int slot = experts_slot(p), summed = way_.landed(d, Cargo{""}, "summed", p, Storage::pass);
      const View spread = d.arrives_in(p, d.element_of(piece.rows));
      d.move(slot, StepKind::pack, numbered("spread", p), chunks.begin, Role::ep, whole(piece.rows), spread,
             {.map = piece.map});
      d.from_fp8(slot, p, spread);
      d.expert_forward(slot, p, d.expert_out(p));
      d.move(slot, StepKind::partial_combine, numbered("sum on rank", p), chunks.begin, Role::ep, d.expert_out(p),
             whole(summed), {.map = piece.map, .weights = whole(piece.weights)});
      pieces_.push_back(piece);
      for (int c = chunks.begin; c < chunks.end; ++c) {
        way_.back(d, slot + 1, Cargo{""}, c, summed, d.mine(d.y, c));
        d.deliver(slot + 1 + way_.ticks_back(), d.y, c);
      }
    }
    d.close_forward(last_slot() + 1);
  }

  void backward() {
    const Cargo row{"b "}, weight{"dweights ", Columns::top_k, Element::f32};
    d.open_backward();
    if (d.recuts()) pieces_.clear(), way_.recut();
    d.shared_backward(experts_slot(0) - 0.5);
    for (int p = 0; p < d.r(); ++p) {
      const Chunks chunks = d.chunks_of_piece(p);
      const int slot = experts_slot(p);
      const int dout =
          d.rows(numbered("dexpert_out", p), Symbol::pairs, d.piece(p), d.computing(), me(), Order::by_expert);
      if (d.recuts()) {  // ids and weights travel once more: in the forward they came in another order
        pieces_.push_back(dispatch("b ", p, d.dy, Storage::pass, whole(dout)));
      } else {
        pieces_[at(p)].rows = way_.landed(d, row, "landed", p, Storage::pass);
        travel(p, std::array{TokensWay::Load{row, d.dy, pieces_[at(p)].rows}});
      }
      const Piece& piece = pieces_[at(p)];
      d.move(slot, StepKind::pack, numbered("b spread", p), chunks.begin, Role::ep, whole(piece.rows), whole(dout),
             {.map = piece.map, .weights = whole(piece.weights)});
      const int factors = way_.landed(d, weight, "of experts", p, Storage::pass);
      d.step(slot, {.name = numbered("weight grads", p),
                    .kind = StepKind::weight_grad,
                    .phase = StepPhase::dgrad,
                    .chunk = d.piece(p).begin,
                    .lane = Lane::copy,
                    .in = {whole(piece.rows), d.expert_out(p)},
                    .out = {whole(factors)},
                    .map = piece.map});
      const int din = d.expert_backward(slot, slot + 1, p, dout);
      const int summed = way_.landed(d, row, "summed", p, Storage::pass);
      d.move(slot, StepKind::partial_combine, numbered("b sum on rank", p), chunks.begin, Role::ep, whole(din),
             whole(summed), {.map = piece.map});
      for (int c = chunks.begin; c < chunks.end; ++c) {
        way_.back(d, slot + 1, row, c, summed, d.mine(d.dx, c));
        way_.back(d, slot + 1, weight, c, factors, d.mine(d.weight_grads, c));
      }
    }
    d.close_backward(last_slot() + 1);
  }
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }
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
