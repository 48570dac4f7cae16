#include "planner/schedules/draft.hpp"

#include <algorithm>
#include <numeric>

#include "planner/plan/schedule_rules.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

namespace {

constexpr double kOpenSlot = -2, kCountsSlot = -1;

}  // namespace

std::string_view name(TokenSplit s) { return s == TokenSplit::sliced ? "sliced" : "replicated"; }

Cut cut_of(const ScheduleRequest& r, bool backward) {
  const Cut forward{r.chunks, r.pieces};
  const Cut back{r.backward_chunks > 0 ? r.backward_chunks : r.chunks, r.backward_pieces > 0   ? r.backward_pieces
                                                                       : r.backward_chunks > 0 ? r.backward_chunks
                                                                                               : r.pieces};
  for (const Cut& cut : {forward, back}) {
    if (cut.chunks < 1) throw InvalidInput("chunks", std::to_string(cut.chunks), "must be positive");
    if (cut.pieces < 1 || cut.chunks % cut.pieces != 0)
      throw InvalidInput("pieces", std::to_string(cut.pieces), "must divide chunks = " + std::to_string(cut.chunks));
  }
  if (std::lcm(forward.chunks, back.chunks) > kMaxCountChunks)
    throw InvalidInput(
        "chunks", std::to_string(forward.chunks) + " and " + std::to_string(back.chunks),
        "forward and backward may have at most " + std::to_string(kMaxCountChunks) + " as their least common multiple");
  return backward ? back : forward;
}

LayerDraft::LayerDraft(const ScheduleRequest& request, std::string transport)
    : request_(request), cut_(cut_of(request, false)) {
  TOPOMOE_ASSERT(request.etp == 1 || request.etp == request.tp || request.ep == 1);
  const Cut back = cut_of(request, true);
  const auto words = [](const Cut& cut) {
    return "n=" + std::to_string(cut.chunks) + (cut.pieces != cut.chunks ? " r=" + std::to_string(cut.pieces) : "");
  };
  schedule_.split = name(request.split);
  schedule_.name = schedule_.split + " " + transport + " " + words(cut_);
  if (recuts()) schedule_.name += ", back " + words(back);
  if (request.fp8_dispatch) schedule_.name += ", fp8 out";
  schedule_.transport = std::move(transport);
  schedule_.chunks = std::lcm(cut_.chunks, back.chunks);
  schedule_.pieces = cut_.pieces;
  if (request.tp > 1) {
    if (sliced() && !request.sequence_parallel) schedule_.intake = Intake::tp_slice;
    if (!sliced() && request.sequence_parallel) schedule_.intake = Intake::tp_gather;
  }
  x = token_buffer("x", true);
  y = token_buffer("y", false);
  dy = token_buffer("dy", false);
  dx = token_buffer("dx", false);
  const int like = x;
  ids = sidecar("ids", like, Columns::top_k, Element::i32, Storage::saved);
  weights = sidecar("weights", like, Columns::top_k, Element::f32, Storage::saved);
  logits_ = sidecar("logits", like, Columns::experts, Element::f32, Storage::saved);
  weight_grads = sidecar("dweights", like, Columns::top_k, Element::f32);
  if (request.fp8_dispatch) x_fp8_ = sidecar("x as fp8", like, Columns::hidden, Element::fp8);
  saved_.in = all_pieces("expert_in", Columns::hidden, Storage::saved);
  if (request.gated) saved_.gate = all_pieces("gate", Columns::ffn, Storage::saved);
  saved_.up = all_pieces("up", Columns::ffn, Storage::saved);
  if (!request.gated) saved_.gate = saved_.up;
}

int LayerDraft::buffer(Buffer b) {
  // What travels in chunks of this pass.
  if ((b.order == Order::by_source || b.order == Order::by_dest) && unit() > 1) b.together = unit();
  schedule_.buffers.push_back(std::move(b));
  return static_cast<int>(schedule_.buffers.size()) - 1;
}

int LayerDraft::map(std::string name, View from, View to, View of_ids) {
  schedule_.maps.push_back({std::move(name), std::move(from), std::move(to), std::move(of_ids)});
  return static_cast<int>(schedule_.maps.size()) - 1;
}

void LayerDraft::step(double slot, Step s) {
  // Steps that both passes share say `forward`.
  if (pass_ == &backward_ && s.phase == StepPhase::forward) s.phase = StepPhase::dgrad;
  s.beside = beside_;
  pass_->push_back({slot, std::move(s)});
}

// A group that may span nodes is served by the inter-node lane, wherever its members happen to be.
Lane LayerDraft::lane_of(Role group) const {
  const bool wide_shards = group == Role::etp && request_.etp > request_.tp;
  return group == Role::ep || group == Role::rail || wide_shards ? Lane::inter_node : Lane::intra_node;
}

void LayerDraft::move(double slot, StepKind kind, std::string name, int c, Role group, View in, View out, MoveBy by) {
  const bool communicates = kind == StepKind::exchange || kind == StepKind::all_gather;
  step(slot, {.name = std::move(name),
              .kind = kind,
              .phase = by.metadata && pass_ == &forward_ ? StepPhase::metadata : StepPhase::forward,
              .chunk = c < 0 ? c : chunk(c).begin,
              .lane = communicates ? lane_of(group) : Lane::copy,
              .group = group,
              .metadata = by.metadata,
              .in = {std::move(in)},
              .out = {std::move(out)},
              .map = by.map,
              .transpose = by.transpose,
              .weights = std::move(by.weights)});
}

void LayerDraft::index(double slot, std::string name, int c, int map) {
  step(slot, {.name = "index " + std::move(name),
              .kind = StepKind::index,
              .phase = StepPhase::metadata,
              .chunk = c < 0 ? c : chunk(c).begin,
              .metadata = true,
              .map = map});
}

void LayerDraft::exchange_counts(std::string name, Role group, std::vector<CountSlice> slices) {
  step(kCountsSlot, {.name = std::move(name),
                     .kind = StepKind::counts_exchange,
                     .phase = StepPhase::metadata,
                     .lane = lane_of(group),
                     .group = group,
                     .metadata = true,
                     .slices = std::move(slices)});
}

int LayerDraft::rows(std::string name, Symbol symbol, Chunks chunks, RankSet sources, RankSet dests, Order order,
                     Storage storage, Element element) {
  return buffer({.name = std::move(name),
                 .symbol = symbol,
                 .chunks = chunks,
                 .sources = std::move(sources),
                 .dests = std::move(dests),
                 .order = order,
                 .element = element,
                 .storage = storage});
}

int LayerDraft::sidecar(std::string name, int like, Columns columns, Element element, Storage storage) {
  Buffer b = schedule_.buffers[static_cast<std::size_t>(like)];
  b.name = std::move(name), b.columns = columns, b.element = element, b.storage = storage, b.alias = -1;
  // Sidecars of tokens exist for the tokens that I inject, not for those that my group holds.
  if (b.symbol == Symbol::tokens) b.sources = me();
  return buffer(std::move(b));
}

// The caller's tensor, and the same rows as chunks of injected tokens.
int LayerDraft::token_buffer(const std::string& name, bool saved) {
  const Buffer held{
      .name = name, .symbol = Symbol::held, .sources = me(), .order = Order::by_token, .storage = Storage::caller};
  int memory = buffer(held);
  Buffer tokens = held;
  tokens.symbol = Symbol::tokens;
  tokens.chunks = {0, schedule_.chunks};
  tokens.name = name + ".tokens";
  if (schedule_.intake == Intake::tp_slice) tokens.sources = me({Role::tp});
  if (schedule_.intake == Intake::tp_gather) {
    Buffer gathered = held;
    gathered.name = name + ".gathered";
    gathered.sources = me({Role::tp});
    gathered.storage = saved ? Storage::saved : Storage::pass;
    memory = buffer(std::move(gathered));
    tokens.storage = saved ? Storage::saved : Storage::pass;
  }
  tokens.alias = memory;
  return buffer(std::move(tokens));
}

void LayerDraft::gather_intake(const std::string& name, int token_buffer) {
  if (schedule_.intake != Intake::tp_gather) return;
  const int gathered = schedule_.buffers[static_cast<std::size_t>(token_buffer)].alias;
  move(kOpenSlot, StepKind::all_gather, "gather " + name, -1, Role::tp, whole(gathered - 1),
       from_source(gathered, {0, 1}, peer()));
}

void LayerDraft::open_forward() {
  const double slot = kOpenSlot;
  if (schedule_.intake == Intake::tp_gather) {
    step(slot, {.name = "held counts",
                .kind = StepKind::counts_exchange,
                .phase = StepPhase::metadata,
                .lane = Lane::intra_node,
                .group = Role::tp,
                .metadata = true,
                .slices = {{Symbol::held, me(), {}}}});
  }
  gather_intake("x", x);
  const View all = from_source(x, {0, schedule_.chunks}, me());
  step(slot,
       {.name = "route", .kind = StepKind::route, .in = {all}, .out = {whole(ids), whole(weights), whole(logits_)}});
}

void LayerDraft::deliver(double slot, int token_buffer, int c) {
  if (token_buffer == y) join(slot, c);
  if (schedule_.intake != Intake::tp_slice) return;
  const std::string tensor = token_buffer == y ? "y" : "dx";
  move(slot, StepKind::all_gather, numbered("gather " + tensor, c), c, Role::tp, mine(token_buffer, c),
       from_source(token_buffer, chunk(c), peer()));
}

void LayerDraft::close_forward(double slot) {
  if (schedule_.intake != Intake::tp_gather) return;
  const int gathered = schedule_.buffers[static_cast<std::size_t>(y)].alias;
  step(slot, {.name = "keep my y",
              .kind = StepKind::copy,
              .in = {from_source(gathered, {0, 1}, me())},
              .out = {whole(gathered - 1)}});
}

void LayerDraft::open_backward() {
  pass_ = &backward_;
  const Cut forward = cut_;
  cut_ = cut_of(request_, true);
  gather_intake("dy", dy);
  open_mix();
  if (cut_.pieces == forward.pieces) return;
  const int in = all_pieces("recut expert_in", Columns::hidden, Storage::pass);
  const int map = this->map("recut", whole(saved_.in), whole(in));
  index(kOpenSlot, "recut", -1, map);
  const auto recut = [&](int& saved, int to) {
    move(kOpenSlot, StepKind::repack, schedule_.buffers[static_cast<std::size_t>(to)].name, -1, Role::ep, whole(saved),
         whole(to), {.map = map});
    saved = to;
  };
  recut(saved_.in, in);
  if (request_.gated) recut(saved_.gate, all_pieces("recut gate", Columns::ffn, Storage::pass));
  recut(saved_.up, all_pieces("recut up", Columns::ffn, Storage::pass));
  if (!request_.gated) saved_.gate = saved_.up;
  if (saved_.out >= 0) recut(saved_.out, all_pieces("recut expert_out", Columns::hidden, Storage::pass));
}

void LayerDraft::close_backward(double slot) {
  const View all = from_source(x, {0, schedule_.chunks}, me());
  join_gradients(slot);
  step(slot, {.name = "route backward",
              .kind = StepKind::route_backward,
              .phase = StepPhase::dgrad,
              .in = {all, whole(weight_grads), whole(ids), whole(logits_)},
              .out = {from_source(dx, {0, schedule_.chunks}, me())},
              .shared_by_tp = !sliced() && request_.tp > 1});
  for (int c = 0; c < n(); ++c) deliver(slot, dx, c);
  if (schedule_.intake == Intake::tp_gather) {
    const int gathered = schedule_.buffers[static_cast<std::size_t>(dx)].alias;
    step(slot, {.name = "keep my dx",
                .kind = StepKind::copy,
                .phase = StepPhase::dgrad,
                .in = {from_source(gathered, {0, 1}, me())},
                .out = {whole(gathered - 1)}});
  }
}

RankSet LayerDraft::computing() const {
  return expert_sharded() && !alike_over_etp() ? me({Role::etp, Role::ep}) : me({Role::ep});
}

// One piece after another, each by_expert.
int LayerDraft::all_pieces(const std::string& name, Columns columns, Storage storage) {
  return buffer({.name = name,
                 .symbol = Symbol::pairs,
                 .chunks = {0, schedule_.chunks},
                 .sources = computing(),
                 .dests = me(),
                 .order = Order::by_expert,
                 .together = r() > 1 ? schedule_.chunks / r() : 0,
                 .columns = columns,
                 .storage = storage});
}

void LayerDraft::keep_expert_out() { saved_.out = all_pieces("expert_out", Columns::hidden, Storage::saved); }

void LayerDraft::to_fp8(double slot, int c) {
  if (x_fp8_ >= 0) move(slot, StepKind::convert, numbered("to fp8", c), c, Role::ep, mine(x, c), mine(x_fp8_, c));
}

View LayerDraft::arrives_in(int p, Element element) {
  if (element != Element::fp8) return expert_in(p);
  return whole(rows(numbered("expert_in as fp8", p), Symbol::pairs, piece(p), computing(), me(), Order::by_expert,
                    Storage::pass, element));
}

void LayerDraft::from_fp8(double slot, int p, const View& arrived) {
  if (element_of(arrived.buffer) == Element::fp8)
    move(slot, StepKind::convert, numbered("from fp8", p), chunks_of_piece(p).begin, Role::ep, arrived, expert_in(p));
}

void LayerDraft::expert_forward(double slot, int p, View out) {
  const int act = buffer({.name = numbered("act", p),
                          .symbol = Symbol::pairs,
                          .chunks = piece(p),
                          .sources = computing(),
                          .dests = me(),
                          .order = Order::by_expert,
                          .columns = Columns::ffn});
  step(slot, {.name = numbered("experts", p),
              .kind = StepKind::expert_forward,
              .chunk = piece(p).begin,
              .in = {expert_in(p)},
              .out = {std::move(out), of_piece(saved_.gate, p), of_piece(saved_.up, p), whole(act)}});
}

int LayerDraft::expert_backward(double slot, double wgrad_slot, int p, int dout) {
  const int din = sidecar(numbered("dexpert_in", p), dout, Columns::hidden, Element::payload);
  const int act = sidecar(numbered("bact", p), dout, Columns::ffn, Element::payload);
  int dgate = -1;
  if (request_.gated) dgate = sidecar(numbered("dgate", p), dout, Columns::ffn, Element::payload);
  const int dup = sidecar(numbered("dup", p), dout, Columns::ffn, Element::payload);
  if (!request_.gated) dgate = dup;
  step(slot, {.name = numbered("experts dgrad", p),
              .kind = StepKind::expert_dgrad,
              .phase = StepPhase::dgrad,
              .chunk = piece(p).begin,
              .in = {whole(dout), of_piece(saved_.gate, p), of_piece(saved_.up, p)},
              .out = {whole(din), whole(act), whole(dgate), whole(dup)}});
  step(wgrad_slot, {.name = numbered("experts wgrad", p),
                    .kind = StepKind::expert_wgrad,
                    .phase = StepPhase::wgrad,
                    .chunk = piece(p).begin,
                    .in = {expert_in(p), whole(dout), whole(act), whole(dgate), whole(dup)},
                    .shared_by_tp = !sliced() && request_.tp > 1 && !alike_over_etp()});
  return din;
}

Schedule LayerDraft::finish() {
  for (const auto& [slotted, steps] : {std::pair{&forward_, &schedule_.forward}, {&backward_, &schedule_.backward}}) {
    std::stable_sort(slotted->begin(), slotted->end(),
                     [](const Slotted& a, const Slotted& b) { return a.slot < b.slot; });
    for (auto& [slot, step] : *slotted) steps->push_back(std::move(step));
    derive_dependencies(schedule_, *steps);
  }
  return std::move(schedule_);
}

}  // namespace topomoe
