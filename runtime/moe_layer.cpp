#include "topomoe/moe_layer.hpp"

#include <algorithm>
#include <utility>

#include "kernels/grouped_ffn.hpp"
#include "runtime/layer_parts.hpp"
#include "runtime/replica_sum.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

struct MoeLayer::Handle::State {
  struct Round {
    std::unique_ptr<PassState> pass;
    std::int64_t first = 0;  // of the caller's rows
  };
  Round only;  // as a rule; else all are in `rounds`
  std::vector<Round> rounds;
  EventPtr done;
  RouterReport of_rounds;
  std::span<Round> all() { return rounds.empty() ? std::span(&only, only.pass ? 1 : 0) : std::span(rounds); }
  void add(Round round) {
    if (!only.pass && rounds.empty()) {
      only = std::move(round);
      return;
    }
    if (only.pass) rounds.push_back(std::move(only));
    rounds.push_back(std::move(round));
  }
  // A layer with losses runs in no rounds.
  const RouterReport& report() {
    if (rounds.empty()) return only.pass->report;
    of_rounds = {};
    for (const Round& round : rounds) {
      const std::vector<std::int64_t>& chosen = round.pass->report.chosen;
      of_rounds.chosen.resize(chosen.size());
      for (std::size_t e = 0; e < chosen.size(); ++e) of_rounds.chosen[e] += chosen[e];
    }
    return of_rounds;
  }
  ~State() {
    for (Round& r : all()) LayerMemory::give(std::move(r.pass));
  }
};
MoeLayer::Handle::Handle(std::unique_ptr<State> state) : state_(std::move(state)) {}
MoeLayer::Handle::~Handle() = default;
MoeLayer::Handle::Handle(Handle&&) noexcept = default;
const EventPtr& MoeLayer::Handle::done() const { return state_->done; }

std::size_t MoeLayer::Handle::saved_bytes() const {
  std::size_t bytes = 0;
  for (const State::Round& round : state_->all()) {
    for (const SlotMemory::Place& place : round.pass->memory.saved) bytes += place.bytes;
    for (const PassState::Kept& kept : round.pass->kept) bytes += round.pass->keeps_routing ? kept.bytes : 0;
  }
  return bytes;
}
const RouterReport& MoeLayer::Handle::router() const { return state_->report(); }

namespace {

const Step& route_of(const Schedule& s) {
  const auto route =
      std::find_if(s.forward.begin(), s.forward.end(), [](const Step& step) { return step.kind == StepKind::route; });
  TOPOMOE_ASSERT(route != s.forward.end());
  return *route;
}

// Forward steps that write what the backward wants of a forward, but for what a handle keeps anyway, and all that they
// wait for. Routing and counts are kept.
std::vector<std::uint8_t> steps_again(const Schedule& s) {
  std::vector<std::uint8_t> wanted(s.forward.size(), 0);
  for (std::size_t i = s.forward.size(); i-- > 0;) {
    const Step& step = s.forward[i];
    if (step.kind == StepKind::route || step.kind == StepKind::counts_exchange) continue;
    for (const View& v : step.out)
      if (s.buffers[static_cast<std::size_t>(root_of(s, v.buffer))].storage == Storage::saved) wanted[i] = 1;
    if (step.kind == StepKind::index)
      wanted[i] |= std::any_of(s.backward.begin(), s.backward.end(), [&](const Step& b) { return b.map == step.map; });
    if (wanted[i] == 0) continue;
    for (const int before : step.after) {
      const StepKind kind = s.forward[static_cast<std::size_t>(before)].kind;
      wanted[static_cast<std::size_t>(before)] = kind != StepKind::route && kind != StepKind::counts_exchange;
    }
  }
  return wanted;
}

// A schedule without the shared expert's steps would leave it out and say nothing.
void require_shared(const Schedule& s, const LayerShape& shape, const Layout& l) {
  const auto has = [&](StepKind kind) {
    return std::any_of(s.forward.begin(), s.forward.end(), [&](const Step& step) { return step.kind == kind; });
  };
  const bool mixes = shape.shared_gate != SharedGate::none;
  if (shape.shared_ffn < 0 || shape.shared_ffn % l.tp != 0)
    throw InvalidInput("shape.shared_ffn", std::to_string(shape.shared_ffn),
                       "0, or a multiple of TP " + std::to_string(l.tp));
  if (mixes && shape.shared_ffn == 0) throw InvalidInput("shape.shared_gate", "set", "there is no shared expert");
  if (has(StepKind::shared_forward) != (shape.shared_ffn > 0) || has(StepKind::mix) != mixes)
    throw InvalidInput("schedule", s.name,
                       std::string("it was built ") +
                           (has(StepKind::mix)              ? "for a shared expert with a gate"
                            : has(StepKind::shared_forward) ? "for a shared expert that is added"
                                                            : "without a shared expert") +
                           ", the shape says otherwise: plan again");
}

// Schedules for experts without a gate have no room for one.
void require_gate(const Schedule& s, const LayerShape& shape) {
  for (const Step& step : s.forward)
    if (step.kind == StepKind::expert_forward && shape.gated != (step.out[1].buffer != step.out[2].buffer))
      throw InvalidInput("schedule", s.name,
                         std::string("it was built for experts with") + (shape.gated ? "out" : "") +
                             " a gate, the shape says otherwise: plan again");
}

// The layer's lent memory as a pass's own, for as long as it runs.
class Lent {
 public:
  Lent(PassState& pass, LayerMemory& layer, bool lend) : pass_(pass), layer_(layer), lend_(lend) { exchange(); }
  ~Lent() {
    if (lend_) pass_.memory.forget();
    exchange();
  }
  Lent(const Lent&) = delete;
  Lent& operator=(const Lent&) = delete;

 private:
  void exchange() {
    if (lend_) std::swap(pass_.memory, layer_.lent);
  }
  PassState& pass_;
  LayerMemory& layer_;
  const bool lend_;
};

}  // namespace

struct MoeLayer::Impl : LayerParts {
  Impl(Schedule its_schedule, const Layout& layout, int gpus_per_node, const LayerShape& its_shape,
       Communicator& communicator, Device& device, std::chrono::milliseconds deadline,
       std::shared_ptr<GroupChannels> shared)
      : LayerParts(std::move(its_schedule), layout, gpus_per_node, its_shape, communicator, device, deadline,
                   std::move(shared)) {
    require_shared(schedule, shape, layout);
    require_gate(schedule, shape);
    context.packed = &packed;
  }
  // While all that its steps use is there.
  ~Impl() {
    if (memory) memory->drain_lanes();
  }
  std::shared_ptr<LayerMemory> memory;  // outlives the layer with its handles
  LayerCounters counters;
  PackedWeights packed;
  const std::vector<View> routing = route_of(schedule).out;
  const std::vector<std::uint8_t> again = steps_again(schedule);

  void require(const LayerWeights& w) const {
    if (shape.shared_ffn > 0 &&
        ((shape.gated && w.shared_gate == nullptr) || w.shared_up == nullptr || w.shared_down == nullptr))
      throw InvalidInput("weights.shared_gate, shared_up, shared_down", "null", "the layer has a shared expert");
    if (shape.shared_gate != SharedGate::none && w.mix == nullptr)
      throw InvalidInput("weights.mix", "null", "the shared expert has a gate");
  }

  // Of experts that are trained: gradients of all their matrices, or of none.
  void require(const LayerGradients& g) const {
    const auto complete = [&](bool gate, bool up, bool down, const char* which) {
      if (up != down || (shape.gated && gate != up))
        throw InvalidInput(std::string("gradients of ") + which, "some of gate, up and down",
                           "give all of them, or none");
    };
    complete(bool(g.gate), bool(g.up), bool(g.down), "experts");
    complete(g.shared_gate != nullptr, g.shared_up != nullptr, g.shared_down != nullptr, "the shared expert");
  }

  std::shared_ptr<const kernels::PackedFfn> pack(const ExpertMatrices& gate, const ExpertMatrices& up,
                                                 const ExpertMatrices& down, std::size_t experts,
                                                 std::int64_t width) const {
    if ((shape.gated && !gate) || !up || !down) return nullptr;
    const std::vector<std::int64_t> no_rows(experts + 1, 0);
    return context.device.pack_experts({.w_gate = gate,
                                        .w_up = up,
                                        .w_down = down,
                                        .offsets = no_rows,
                                        .hidden = shape.hidden,
                                        .ffn = width,
                                        .dtype = shape.dtype,
                                        .activation = activation_of(shape)});
  }

  struct Forward {
    const void* tokens;
    void* output;
    const LayerWeights& weights;
    Keep keep;
  };
  // Rows [first, first + rows), in as many rounds as it takes: all ranks cut theirs alike.
  void forward(const Forward& f, std::int64_t first, std::int64_t rows, const EventPtr& ready, Handle::State& out) {
    Handle::State attempt;
    attempt.add({LayerMemory::take(memory, context), first});
    PassState& pass = *attempt.only.pass;
    if (const auto before = out.all(); !before.empty()) pass.memory.go_on(before.back().pass->memory);
    hold(pass, rows);
    bind(pass, "x", f.tokens, first);
    bind(pass, "y", f.output, first);
    int parts = 1;
    {
      pass.keeps_routing = f.keep == Keep::routing;
      const Lent lent(pass, *memory, pass.keeps_routing);
      Executor executor(context, pass, f.weights, nullptr);
      out.done = executor.run(false, {}, ready);
      parts = executor.rounds();
      if (parts == 1 && pass.keeps_routing) or_fail([&] { keep_routing(executor, pass); }), out.done = nullptr;
    }
    if (parts == 1) {
      out.add(std::move(attempt.only));
      return;
    }
    counters.overflow_rounds += parts - 1;
    pass.memory.undo();
    LayerMemory::give(std::move(attempt.only.pass));  // the first round takes it
    for (int i = 0; i < parts; ++i) {
      const std::int64_t begin = part_begin(rows, parts, i);
      forward(f, first + begin, part_begin(rows, parts, i + 1) - begin, ready, out);
    }
  }

  // Ids, weights and logits out of what the layer lends.
  void keep_routing(Executor& executor, PassState& pass) const {
    Device& device = context.device;
    memory->settle();  // before room() gives anything back
    pass.kept.resize(routing.size());
    for (std::size_t i = 0; i < pass.kept.size(); ++i) {
      const Executor::Span from = executor.at(routing[i]);
      device.copy(Lane::compute, pass.kept[i].room(device, from.bytes()), from.data, from.bytes());
    }
    if (const EventPtr kept = device.record(Lane::compute))
      kept->wait(std::chrono::steady_clock::now() + context.deadline);
  }

  // What the backward wants of a forward whose handle kept its routing only.
  void run_again(Executor& executor, PassState& pass, const EventPtr& ready) const {
    or_fail([&] { prepare_again(executor, pass); });
    executor.run(false, again, ready, true);
  }
  void prepare_again(Executor& executor, PassState& pass) const {
    for (std::size_t i = 0; i < pass.kept.size(); ++i)
      pass.bound[root_of(schedule, routing[i].buffer)] = pass.kept[i].memory.get();
    memory->settle();
    // The output was handed out: what is written again goes nowhere.
    const int y = boundary("y");
    pass.bound[y] = pass.unwanted.room(context.device, executor.at(View{.buffer = y}).bytes());
  }

  // What the executor does for its steps.
  template <class Body>
  void or_fail(Body body) const {
    try {
      body();
    } catch (const TransportError& e) {
      const TransportError ours = named(e, context.rank, "keep routing");
      context.communicator.fail(ours.failure());
      throw ours;
    } catch (const std::exception& e) {
      context.communicator.fail(failure_of(e, context.rank));
      throw;
    }
  }
};

MoeLayer::MoeLayer(Schedule schedule, Layout layout, int gpus_per_node, LayerShape shape, Communicator& communicator,
                   Device& device, std::chrono::milliseconds deadline, const LayerOptions& options)
    : MoeLayer(std::move(schedule), layout, gpus_per_node, std::move(shape), communicator, device, deadline, options,
               nullptr) {}

MoeLayer::MoeLayer(Schedule schedule, Layout layout, int gpus_per_node, LayerShape shape, Communicator& communicator,
                   Device& device, std::chrono::milliseconds deadline, const LayerOptions& options,
                   std::shared_ptr<GroupChannels> channels)
    : impl_(std::make_unique<Impl>(std::move(schedule), layout, gpus_per_node, shape, communicator, device, deadline,
                                   std::move(channels))) {
  const Capacity capacity = capacity_of(options);
  if (options.tokens > 0 && impl_->shape.router.losses())
    throw InvalidInput("options.tokens", std::to_string(options.tokens),
                       "0 beside router losses: they are means over all tokens of a pass, which rounds would cut");
  if (options.tokens > 0 && impl_->shape.capacity_factor > 0)
    throw InvalidInput("options.tokens", std::to_string(options.tokens),
                       "0 beside shape.capacity_factor: which tokens are dropped must not depend on rounds");
  impl_->memory = std::make_shared<LayerMemory>(impl_->context, capacity);
}
MoeLayer::~MoeLayer() = default;
MoeLayer::MoeLayer(MoeLayer&&) noexcept = default;

MoeLayer::Handle MoeLayer::forward(const void* tokens, std::int64_t rows, void* output, const LayerWeights& weights,
                                   const EventPtr& ready, Keep keep) {
  impl_->require(weights);
  Handle handle(std::make_unique<Handle::State>());
  impl_->forward({tokens, output, weights, keep}, 0, rows, ready, *handle.state_);
  return handle;
}

void MoeLayer::backward(Handle& handle, const void* output_gradients, void* token_gradients,
                        const LayerWeights& weights, const LayerGradients& gradients, const EventPtr& ready) {
  impl_->require(weights);
  impl_->require(gradients);
  for (Handle::State::Round& round : handle.state_->all()) {
    PassState& pass = *round.pass;
    impl_->bind(pass, "dy", output_gradients, round.first);
    impl_->bind(pass, "dx", token_gradients, round.first);
    const Lent lent(pass, *impl_->memory, pass.keeps_routing);
    Executor executor(impl_->context, pass, weights, &gradients);
    if (pass.keeps_routing) impl_->run_again(executor, pass, ready);
    handle.state_->done = executor.run(true, {}, ready);
  }
}

bool MoeLayer::pack_weights(const LayerWeights& w) {
  const Layout& layout = impl_->groups.layout();
  const std::size_t experts = impl_->placement.held_by(impl_->groups.index_in(Role::ep, impl_->context.rank)).size();
  impl_->memory->settle();
  impl_->packed = {};  // before there are two copies
  impl_->packed.experts = impl_->pack(w.gate, w.up, w.down, experts, impl_->shape.ffn / layout.etp);
  if (impl_->shape.shared_ffn > 0)
    impl_->packed.shared =
        impl_->pack(w.shared_gate, w.shared_up, w.shared_down, 1, impl_->shape.shared_ffn / layout.tp);
  return impl_->packed.experts != nullptr;
}

void MoeLayer::sum_over_replicas(const LayerGradients& gradients) {
  topomoe::sum_over_replicas(impl_->context, gradients);
}

const PassTrace& MoeLayer::last_trace() const {
  impl_->memory->settle();
  return impl_->memory->trace[impl_->memory->last_backward];
}
const Schedule& MoeLayer::schedule() const { return impl_->schedule; }
const LayerCounters& MoeLayer::counters() const { return impl_->counters; }

}  // namespace topomoe
