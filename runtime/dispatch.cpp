#include "topomoe/dispatch.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "planner/plan/schedule_part.hpp"
#include "runtime/layer_parts.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

struct Dispatcher::Handle::State {
  explicit State(const ExecutorContext& context) : pass(context) {}
  PassState pass;  // with memory of its own: parts of other passes may run between its own
  std::vector<ExpertBatch> batches, gradients;
  DeviceMemory weight_gradients;
  EventPtr done;
  ~State() { pass.layer->drain(); }
  enum class Next { combine, combine_backward, dispatch_backward, nothing } next = Next::combine;

  void advance(Next from, Next to, const char* call) {
    static constexpr const char* kNames[] = {"combine", "combine_backward", "dispatch_backward", "nothing"};
    if (next != from)
      throw InvalidInput("handle", std::string("next for it is ") + kNames[static_cast<std::size_t>(next)],
                         std::string(call) + " comes once, in order");
    next = to;
  }
};
Dispatcher::Handle::Handle(std::unique_ptr<State> state) : state_(std::move(state)) {}
Dispatcher::Handle::~Handle() = default;
Dispatcher::Handle::Handle(Handle&&) noexcept = default;
std::span<const ExpertBatch> Dispatcher::Handle::batches() const { return state_->batches; }
const EventPtr& Dispatcher::Handle::done() const { return state_->done; }

namespace {

int count_of(const std::vector<Step>& steps, StepKind kind) {
  return static_cast<int>(std::count_if(steps.begin(), steps.end(), [&](const Step& s) { return s.kind == kind; }));
}

// Of the backward what comes before the experts' own, or after; without that, the router's, and what serves only them.
std::vector<std::uint8_t> backward_steps(const Schedule& schedule, bool after_experts) {
  const std::vector<Step>& steps = schedule.backward;
  std::vector<std::uint8_t> after(steps.size(), 0), out(steps.size(), 0);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    for (const int before : steps[i].after) {
      const auto b = static_cast<std::size_t>(before);
      if (after[b] || steps[b].kind == StepKind::expert_dgrad) after[i] = 1;
    }
    const StepKind kind = steps[i].kind;
    const bool of_experts = kind == StepKind::expert_dgrad || kind == StepKind::expert_wgrad;
    out[i] = !of_experts && kind != StepKind::route_backward && (after[i] != 0) == after_experts;
  }
  return out;
}

}  // namespace

struct Dispatcher::Impl : LayerParts {
  using LayerParts::LayerParts;
  const std::vector<std::uint8_t> out = steps_of(schedule, Part::dispatch), back = steps_of(schedule, Part::combine),
                                  gradients_out = backward_steps(schedule, false),
                                  gradients_back = backward_steps(schedule, true);
  const LayerWeights no_weights;

  // What the router's backward would read.
  const View& weight_gradients() const {
    const std::vector<Step>& steps = schedule.backward;
    const auto router =
        std::find_if(steps.begin(), steps.end(), [](const Step& s) { return s.kind == StepKind::route_backward; });
    TOPOMOE_ASSERT(router != steps.end());
    return router->in[1];
  }

  // What the experts' steps of this kind read and write.
  std::vector<ExpertBatch> batches(Executor& executor, const std::vector<Step>& steps, StepKind kind) const {
    std::vector<ExpertBatch> all;
    for (const Step& s : steps) {
      if (s.kind != kind) continue;
      const auto offsets = executor.expert_offsets(s.in[0]);
      ExpertBatch batch{executor.at(s.in[0]).data, executor.at(s.out[0]).data, {offsets.begin(), offsets.end()}};
      for (std::size_t e = 0; e + 1 < batch.rows.size(); ++e) batch.rows[e] = batch.rows[e + 1] - batch.rows[e];
      batch.rows.pop_back();
      all.push_back(std::move(batch));
    }
    return all;
  }

  void check_ids(const std::int32_t* ids, std::int64_t rows) const {
    std::vector<std::int32_t> host(static_cast<std::size_t>(rows * shape.top_k));
    try {
      context.device.to_host(Lane::compute, host.data(), ids, host.size() * sizeof(std::int32_t),
                             PassEnd::Clock::now() + context.deadline);
    } catch (const TransportError& e) {  // what the caller's stream does before is not over
      const TransportError ours = named(e, context.rank, "read ids");
      context.communicator.fail(ours.failure());
      throw ours;
    }
    for (std::size_t i = 0; i < host.size(); ++i)
      if (host[i] < 0 || host[i] >= shape.experts)
        throw InvalidInput("ids[" + std::to_string(i / static_cast<std::size_t>(shape.top_k)) + "][" +
                               std::to_string(i % static_cast<std::size_t>(shape.top_k)) + "]",
                           std::to_string(host[i]), "an expert, 0 to " + std::to_string(shape.experts - 1));
  }

  // [rows held, top_k] of four bytes each to those of the tokens that this rank injects, wherever they are held.
  void inject(Lane lane, void* to, const void* held, const RankCounts& counts) const {
    const auto row = static_cast<std::size_t>(shape.top_k) * 4;
    const auto held_by = [&](int rank) { return static_cast<std::int64_t>(counts.count(Symbol::held, 0, rank, 0)); };
    const auto* const from = static_cast<const std::byte*>(held);
    auto* const into = static_cast<std::byte*>(to);
    const std::int64_t mine = held_by(context.rank);
    if (schedule.intake == Intake::as_held) {
      context.device.copy(lane, into, from, static_cast<std::size_t>(mine) * row);
      return;
    }
    if (schedule.intake == Intake::tp_slice) {
      const int parts = groups.size(Role::tp), index = groups.index_in(Role::tp, context.rank);
      const std::int64_t first = part_begin(mine, parts, index), end = part_begin(mine, parts, index + 1);
      context.device.copy(lane, into, from + static_cast<std::size_t>(first) * row,
                          static_cast<std::size_t>(end - first) * row);
      return;
    }
    std::vector<std::int64_t> rows;
    for (const int member : groups.members(Role::tp, context.rank)) rows.push_back(held_by(member));
    gather(lane, into, from, rows, row);
  }

  // The way back: of the tokens that this rank injects to those that it holds. Returns what must end before.
  EventPtr eject(void* to, const void* injected, const RankCounts& counts) const {
    const auto row = static_cast<std::size_t>(shape.top_k) * 4;
    const auto held_by = [&](int rank) { return static_cast<std::int64_t>(counts.count(Symbol::held, 0, rank, 0)); };
    const auto* from = static_cast<const std::byte*>(injected);
    const std::int64_t mine = held_by(context.rank);
    const auto members = groups.members(Role::tp, context.rank);
    if (schedule.intake == Intake::tp_slice) {
      std::vector<std::int64_t> rows;
      const int parts = static_cast<int>(members.size());
      for (int i = 0; i < parts; ++i) rows.push_back(part_begin(mine, parts, i + 1) - part_begin(mine, parts, i));
      return gather(Lane::compute, static_cast<std::byte*>(to), from, rows, row);
    } else {
      if (schedule.intake == Intake::tp_gather)
        for (const int member : members) {
          if (member == context.rank) break;
          from += static_cast<std::size_t>(held_by(member)) * row;
        }
      context.device.copy(Lane::compute, to, from, static_cast<std::size_t>(mine) * row);
    }
    return nullptr;
  }

  // Rows of all members of the TP group, one after another.
  EventPtr gather(Lane lane, std::byte* to, const std::byte* mine, const std::vector<std::int64_t>& rows,
                  std::size_t row_bytes) const {
    std::vector<Outgoing> sends;
    std::vector<Incoming> receives;
    const int index = groups.index_in(Role::tp, context.rank);
    const std::size_t my_bytes = static_cast<std::size_t>(rows[static_cast<std::size_t>(index)]) * row_bytes;
    for (int i = 0; i < static_cast<int>(rows.size()); ++i) {
      const std::size_t bytes = static_cast<std::size_t>(rows[static_cast<std::size_t>(i)]) * row_bytes;
      if (i == index) {
        context.device.copy(lane, to, mine, bytes);
      } else {
        sends.push_back({i, mine, my_bytes});
        receives.push_back({i, to, bytes});
      }
      to += bytes;
    }
    const EventPtr event = context.communicator.exchange(
        channels.of(Role::tp), sends, receives,
        {.step = "gather routing", .lane = lane, .metadata = true, .memory = context.device.memory_space()});
    context.device.wait(lane, event, std::chrono::steady_clock::now() + context.deadline);
    return event;
  }
};

Dispatcher::Dispatcher(Schedule schedule, Layout layout, int gpus_per_node, DispatchShape shape,
                       Communicator& communicator, Device& device, std::chrono::milliseconds deadline) {
  // The experts' own width is theirs: no step that is run here has a row of it.
  const LayerShape layer{.hidden = shape.hidden,
                         .ffn = layout.etp,
                         .experts = shape.experts,
                         .top_k = shape.top_k,
                         .dtype = shape.dtype,
                         .expert_owners = std::move(shape.expert_owners)};
  // A shared expert is the caller's, as routed ones are.
  impl_ = std::make_unique<Impl>(without_shared(std::move(schedule)), layout, gpus_per_node, layer, communicator,
                                 device, deadline);
}
Dispatcher::~Dispatcher() = default;
Dispatcher::Dispatcher(Dispatcher&&) noexcept = default;

Dispatcher::Handle Dispatcher::dispatch(const void* tokens, std::int64_t rows, const std::int32_t* ids,
                                        const float* weights, const EventPtr& ready) {
  const Impl& impl = *impl_;
  Handle handle(std::make_unique<Handle::State>(impl.context));
  impl.hold(handle.state_->pass, rows);
  impl.context.device.wait(Lane::compute, ready, std::chrono::steady_clock::now() + impl.context.deadline);
  impl.check_ids(ids, rows);
  PassState& pass = handle.state_->pass;
  pass.bound[impl.boundary("x")] = static_cast<std::byte*>(const_cast<void*>(tokens));  // read only
  pass.router = [&](Lane lane, std::int32_t* its_ids, float* its_weights, std::int64_t) {
    impl.inject(lane, its_ids, ids, pass.counts);
    impl.inject(lane, its_weights, weights, pass.counts);
  };
  Executor executor(impl.context, pass, impl.no_weights, nullptr);
  handle.state_->done = executor.run(false, impl.out, ready);
  pass.router = nullptr;
  handle.state_->batches = impl.batches(executor, impl.schedule.forward, StepKind::expert_forward);
  return handle;
}

void Dispatcher::combine(Handle& handle, void* output, const EventPtr& ready) {
  using Next = Handle::State::Next;
  Handle::State& state = *handle.state_;
  state.advance(Next::combine, Next::combine_backward, "combine");
  state.pass.bound[impl_->boundary("y")] = static_cast<std::byte*>(output);
  Executor executor(impl_->context, state.pass, impl_->no_weights, nullptr);
  state.done = executor.run(false, impl_->back, ready);
  for (ExpertBatch& batch : state.batches) batch.outputs = nullptr;
}

std::span<const ExpertBatch> Dispatcher::combine_backward(Handle& handle, const void* output_gradients,
                                                          const EventPtr& ready) {
  using Next = Handle::State::Next;
  const Schedule& schedule = impl_->schedule;
  if (count_of(schedule.forward, StepKind::expert_forward) != count_of(schedule.backward, StepKind::expert_dgrad))
    throw InvalidInput("schedule", schedule.name, "its backward has other pieces: what the experts kept does not fit");
  Handle::State& state = *handle.state_;
  state.advance(Next::combine_backward, Next::dispatch_backward, "combine_backward");
  state.pass.bound[impl_->boundary("dy")] = static_cast<std::byte*>(const_cast<void*>(output_gradients));  // read only
  // Gradients of the weights are read when the pass is over: they lie apart from its memory.
  const View& of_weights = impl_->weight_gradients();
  View all;
  all.buffer = root_of(schedule, of_weights.buffer);
  const double rows =
      resolve(schedule, all, impl_->groups, state.pass.counts, impl_->context.rank, impl_->context.rank).rows;
  const std::size_t row_bytes = static_cast<std::size_t>(impl_->shape.top_k) * sizeof(float);
  state.weight_gradients =
      impl_->context.device.allocate(std::max<std::size_t>(1, static_cast<std::size_t>(rows) * row_bytes));
  state.pass.bound[all.buffer] = state.weight_gradients.get();
  Executor executor(impl_->context, state.pass, impl_->no_weights, nullptr);
  state.done = executor.run(true, impl_->gradients_out, ready);
  return state.gradients = impl_->batches(executor, schedule.backward, StepKind::expert_dgrad);
}

void Dispatcher::dispatch_backward(Handle& handle, void* token_gradients, float* weight_gradients,
                                   const EventPtr& ready) {
  using Next = Handle::State::Next;
  Handle::State& state = *handle.state_;
  state.advance(Next::dispatch_backward, Next::nothing, "dispatch_backward");
  state.pass.bound[impl_->boundary("dx")] = static_cast<std::byte*>(token_gradients);
  Executor executor(impl_->context, state.pass, impl_->no_weights, nullptr);
  const auto begin = PassEnd::Clock::now();
  state.done = executor.run(true, impl_->gradients_back, ready);
  try {
    // On the lane that runs after the pass.
    const EventPtr gathered =
        impl_->eject(weight_gradients, executor.at(impl_->weight_gradients()).data, state.pass.counts);
    if (EventPtr ejected = impl_->context.device.record(Lane::compute)) {
      std::vector<PassEnd::Part> parts;
      for (const EventPtr& part : {state.done, gathered})
        if (part) parts.push_back({part});
      const auto end = std::make_shared<PassEnd>(std::move(parts), std::move(ejected), impl_->context.communicator,
                                                 begin, impl_->context.deadline);
      state.pass.layer->last = end;
      state.done = end;
    }
  } catch (const std::exception& e) {
    impl_->context.communicator.fail(failure_of(e, impl_->context.rank));
    throw;
  }
  state.gradients.clear();
}

}  // namespace topomoe
