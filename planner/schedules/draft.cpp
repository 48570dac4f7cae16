#include "planner/schedules/draft.hpp"

#include <algorithm>

#include "planner/plan/schedule_rules.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

namespace {

constexpr double kOpenSlot = -2, kCountsSlot = -1;

}  // namespace

std::string_view name(TokenSplit s) { return s == TokenSplit::sliced ? "sliced" : "replicated"; }

LayerDraft::LayerDraft(const ScheduleRequest& request, std::string transport) : request_(request) {
  TOPOMOE_ASSERT(request.chunks >= 1 && request.pieces >= 1 && request.chunks % request.pieces == 0);
  TOPOMOE_ASSERT(request.etp == 1 || request.etp == request.tp || request.ep == 1);
  schedule_.split = name(request.split);
  schedule_.name = schedule_.split + " " + transport + " n=" + std::to_string(request.chunks);
  if (request.pieces != request.chunks) schedule_.name += " r=" + std::to_string(request.pieces);
  schedule_.transport = std::move(transport);
  schedule_.chunks = request.chunks;
  schedule_.pieces = request.pieces;
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
  probabilities_ = sidecar("probabilities", like, Columns::experts, Element::f32, Storage::saved);
  weight_grads = sidecar("dweights", like, Columns::top_k, Element::f32);
  experts_.resize(static_cast<std::size_t>(request.pieces));
}

int LayerDraft::buffer(Buffer b) {
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
              .chunk = c,
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
              .chunk = c,
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
                     Storage storage) {
  return buffer({.name = std::move(name),
                 .symbol = symbol,
                 .chunks = chunks,
                 .sources = std::move(sources),
                 .dests = std::move(dests),
                 .order = order,
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
  tokens.chunks = {0, n()};
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
  const View all = from_source(x, {0, n()}, me());
  step(slot, {.name = "route",
              .kind = StepKind::route,
              .in = {all},
              .out = {whole(ids), whole(weights), whole(probabilities_)}});
}

void LayerDraft::deliver(double slot, int token_buffer, int c) {
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
  gather_intake("dy", dy);
}

void LayerDraft::close_backward(double slot) {
  const View all = from_source(x, {0, n()}, me());
  step(slot, {.name = "route backward",
              .kind = StepKind::route_backward,
              .phase = StepPhase::dgrad,
              .in = {all, whole(weight_grads), whole(ids), whole(probabilities_)},
              .out = {from_source(dx, {0, n()}, me())},
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

int LayerDraft::expert_forward(double slot, int p, int in, Storage out_storage) {
  const std::string suffix = "." + std::to_string(p);
  const Storage saved = Storage::saved;
  const int out = sidecar("expert_out" + suffix, in, Columns::hidden, Element::payload, out_storage);
  const int gate = sidecar("gate" + suffix, in, Columns::ffn, Element::payload, saved);
  const int up = sidecar("up" + suffix, in, Columns::ffn, Element::payload, saved);
  const int act = sidecar("act" + suffix, in, Columns::ffn, Element::payload);
  experts_[static_cast<std::size_t>(p)] = {gate, up};
  step(slot, {.name = "experts" + suffix,
              .kind = StepKind::expert_forward,
              .chunk = piece(p).begin,
              .in = {whole(in)},
              .out = {whole(out), whole(gate), whole(up), whole(act)}});
  return out;
}

int LayerDraft::expert_backward(double slot, double wgrad_slot, int p, int in, int dout) {
  const std::string suffix = "." + std::to_string(p);
  const auto [gate, up] = experts_[static_cast<std::size_t>(p)];
  const int din = sidecar("dexpert_in" + suffix, in, Columns::hidden, Element::payload);
  const int act = sidecar("bact" + suffix, in, Columns::ffn, Element::payload);
  const int dgate = sidecar("dgate" + suffix, in, Columns::ffn, Element::payload);
  const int dup = sidecar("dup" + suffix, in, Columns::ffn, Element::payload);
  step(slot, {.name = "experts dgrad" + suffix,
              .kind = StepKind::expert_dgrad,
              .phase = StepPhase::dgrad,
              .chunk = piece(p).begin,
              .in = {whole(dout), whole(gate), whole(up)},
              .out = {whole(din), whole(act), whole(dgate), whole(dup)}});
  step(wgrad_slot, {.name = "experts wgrad" + suffix,
                    .kind = StepKind::expert_wgrad,
                    .phase = StepPhase::wgrad,
                    .chunk = piece(p).begin,
                    .in = {whole(in), whole(dout), whole(act), whole(dgate), whole(dup)},
                    .shared_by_tp = !sliced() && request_.tp > 1 && !alike_over_etp()});
  return din;
}

namespace {

// A reads what b wrote.
bool feeds(const Schedule& s, const View& written, const View& read) {
  if (root_of(s, written.buffer) != root_of(s, read.buffer)) return false;
  const Chunks a = chunks_of(s, written), b = chunks_of(s, read);
  return a.begin < b.end && b.begin < a.end;
}

bool sized_by_counts(const Schedule& s, const Step& step) {
  for (const auto* views : {&step.in, &step.out})
    for (const View& v : *views) {
      const Buffer& b = s.buffers[static_cast<std::size_t>(v.buffer)];
      // How many tokens my TP group holds is known before.
      if (!per_token(b.symbol) || (b.sources != me() && b.sources != me({Role::tp}))) return true;
    }
  return false;
}

// A step waits for every earlier step that wrote rows it reads, for the map it uses, and for the counts
// that size it.
void derive_dependencies(const Schedule& s, std::vector<Step>& steps) {
  for (std::size_t i = 0; i < steps.size(); ++i) {
    Step& step = steps[i];
    std::vector<View> reads = step.in;
    if (step.weights.buffer >= 0) reads.push_back(step.weights);
    if (step.kind == StepKind::route_backward) reads.push_back(step.out[0]);  // it adds
    if (step.kind == StepKind::index && s.maps[static_cast<std::size_t>(step.map)].ids.buffer >= 0)
      reads.push_back(s.maps[static_cast<std::size_t>(step.map)].ids);
    for (std::size_t j = 0; j < i; ++j) {
      const Step& earlier = steps[j];
      bool needed = earlier.kind == StepKind::index && step.map == earlier.map && step.kind != StepKind::index;
      if (earlier.kind == StepKind::counts_exchange)
        needed |= step.kind == StepKind::counts_exchange || step.kind == StepKind::index || sized_by_counts(s, step);
      if (earlier.kind == StepKind::route) needed |= step.kind == StepKind::counts_exchange;  // it counts
      for (const View& w : earlier.out)
        for (const View& r : reads) needed |= feeds(s, w, r);
      if (needed) step.after.push_back(static_cast<int>(j));
    }
  }
}

}  // namespace

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
