#include "topomoe/dispatch.hpp"

#include <algorithm>
#include <mutex>
#include <string>
#include <utility>

#include "planner/plan/schedule_part.hpp"
#include "runtime/held_routing.hpp"
#include "runtime/layer_parts.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

namespace {

// Some of the caller's tokens, from that row on, in memory of their own: parts of other passes may run between theirs.
struct Round {
  PassState::Kept weight_gradients;  // read when the pass is over: outlives it, which waits for the lanes
  std::unique_ptr<PassState> pass;
  std::int64_t first = 0;
};

// Those that handles gave back, from any thread, also when the dispatcher is gone.
class Rounds {
 public:
  explicit Rounds(const Capacity& capacity) : capacity_(capacity) {}

  Round take(const ExecutorContext& context) {
    Round round;
    {
      const std::lock_guard lock(mutex_);
      if (free_.empty()) {
        free_.reserve(++made_);  // so that giving back needs no memory
      } else {
        round = std::move(free_.back());
        free_.pop_back();
      }
    }
    if (round.pass)
      round.pass->renew();
    else
      round.pass = std::make_unique<PassState>(context, std::make_shared<LayerMemory>(context, capacity_));
    return round;
  }
  void give(Round round) noexcept {
    round.pass->memory.forget();
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(round));
  }

 private:
  const Capacity capacity_;
  std::mutex mutex_;
  std::vector<Round> free_;
  std::size_t made_ = 0;
};

}  // namespace

struct Dispatcher::Handle::State {
  explicit State(std::shared_ptr<Rounds> from) : pool(std::move(from)) {}
  std::shared_ptr<Rounds> pool;
  std::vector<Round> rounds;
  std::vector<ExpertBatch> batches, gradients;
  EventPtr done;
  ~State() {
    for (Round& round : rounds) pool->give(std::move(round));
  }
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
  Impl(Schedule its_schedule, const Layout& layout, int gpus_per_node, const LayerShape& its_shape,
       Communicator& communicator, Device& device, std::chrono::milliseconds deadline, const Capacity& capacity)
      : LayerParts(std::move(its_schedule), layout, gpus_per_node, its_shape, communicator, device, deadline),
        rounds(std::make_shared<Rounds>(capacity)) {}
  const std::vector<std::uint8_t> out = steps_of(schedule, Part::dispatch), back = steps_of(schedule, Part::combine),
                                  gradients_out = backward_steps(schedule, false),
                                  gradients_back = backward_steps(schedule, true);
  const LayerWeights no_weights;
  const HeldRouting routing{*this};
  std::shared_ptr<Rounds> rounds;
  LayerCounters counters;

  struct Call {
    const void* tokens;
    const std::int32_t* ids;
    const float* weights;
  };
  // Rows [first, first + rows), in as many rounds as it takes: all ranks cut theirs alike.
  void dispatch(const Call& c, std::int64_t first, std::int64_t rows, const EventPtr& ready, Handle::State& to) {
    Round round = rounds->take(context);
    round.first = first;
    PassState& pass = *round.pass;
    hold(pass, rows);
    bind(pass, "x", c.tokens, first);
    pass.router = [&](Lane lane, std::int32_t* ids, float* weights, std::int64_t) {
      routing.inject(lane, ids, c.ids + first * shape.top_k, pass.counts);
      routing.inject(lane, weights, c.weights + first * shape.top_k, pass.counts);
    };
    Executor executor(context, pass, no_weights, nullptr);
    to.done = executor.run(false, out, ready);
    pass.router = nullptr;
    const int parts = executor.rounds();
    if (parts == 1) {
      append_batches(executor, schedule.forward, StepKind::expert_forward, to.batches);
      to.rounds.push_back(std::move(round));
      return;
    }
    counters.overflow_rounds += parts - 1;
    rounds->give(std::move(round));  // the first of them takes it
    for (int i = 0; i < parts; ++i) {
      const std::int64_t begin = part_begin(rows, parts, i);
      dispatch(c, first + begin, part_begin(rows, parts, i + 1) - begin, ready, to);
    }
  }

  // Gradients of the weights are read when the pass is over: they lie apart from its memory.
  void bind_weight_gradients(Round& round) const {
    View all;
    all.buffer = root_of(schedule, weight_gradients().buffer);
    const auto rows =
        static_cast<std::size_t>(resolve(schedule, all, groups, round.pass->counts, context.rank, context.rank).rows);
    const std::size_t bytes = std::max<std::size_t>(1, rows * static_cast<std::size_t>(shape.top_k) * sizeof(float));
    if (bytes > round.weight_gradients.capacity) round.pass->layer->settle();  // before anything is given back
    round.pass->bound[all.buffer] = round.weight_gradients.room(context.device, bytes);
  }

  // What the router's backward would read.
  const View& weight_gradients() const {
    const std::vector<Step>& steps = schedule.backward;
    const auto router =
        std::find_if(steps.begin(), steps.end(), [](const Step& s) { return s.kind == StepKind::route_backward; });
    TOPOMOE_ASSERT(router != steps.end());
    return router->in[1];
  }

  EventPtr dispatch_backward(Round& round, float* to, const EventPtr& ready) const {
    PassState& pass = *round.pass;
    Executor executor(context, pass, no_weights, nullptr);
    const auto begin = PassEnd::Clock::now();
    const EventPtr over = executor.run(true, gradients_back, ready);
    try {
      // On the lane that runs after the pass.
      const EventPtr gathered = routing.eject(to, executor.at(weight_gradients()).data, pass.counts);
      EventPtr ejected = context.device.record(Lane::compute);
      if (!ejected) return over;
      std::vector<PassEnd::Part> parts;
      for (const EventPtr& part : {over, gathered})
        if (part) parts.push_back({part});
      const auto end = std::make_shared<PassEnd>(std::move(parts), std::move(ejected), context.communicator, begin,
                                                 context.deadline);
      pass.layer->last = end;
      return end;
    } catch (const std::exception& e) {
      context.communicator.fail(failure_of(e, context.rank));
      throw;
    }
  }

  // What the experts' steps of this kind read and write.
  static void append_batches(Executor& executor, const std::vector<Step>& steps, StepKind kind,
                             std::vector<ExpertBatch>& to) {
    for (const Step& s : steps) {
      if (s.kind != kind) continue;
      const auto offsets = executor.expert_offsets(s.in[0]);
      ExpertBatch batch{executor.at(s.in[0]).data, executor.at(s.out[0]).data, {offsets.begin(), offsets.end()}};
      for (std::size_t e = 0; e + 1 < batch.rows.size(); ++e) batch.rows[e] = batch.rows[e + 1] - batch.rows[e];
      batch.rows.pop_back();
      to.push_back(std::move(batch));
    }
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
};

Dispatcher::Dispatcher(Schedule schedule, Layout layout, int gpus_per_node, DispatchShape shape,
                       Communicator& communicator, Device& device, std::chrono::milliseconds deadline,
                       const LayerOptions& options) {
  // The experts' own width is theirs: no step that is run here has a row of it.
  const LayerShape layer{.hidden = shape.hidden,
                         .ffn = layout.etp,
                         .experts = shape.experts,
                         .top_k = shape.top_k,
                         .dtype = shape.dtype,
                         .expert_owners = std::move(shape.expert_owners)};
  // A shared expert is the caller's, as routed ones are.
  impl_ = std::make_unique<Impl>(without_shared(std::move(schedule)), layout, gpus_per_node, layer, communicator,
                                 device, deadline, capacity_of(options));
}
Dispatcher::~Dispatcher() = default;
Dispatcher::Dispatcher(Dispatcher&&) noexcept = default;
const LayerCounters& Dispatcher::counters() const { return impl_->counters; }

Dispatcher::Handle Dispatcher::dispatch(const void* tokens, std::int64_t rows, const std::int32_t* ids,
                                        const float* weights, const EventPtr& ready) {
  if (rows < 0) throw InvalidInput("rows", std::to_string(rows), "0 or more");
  impl_->context.device.wait(Lane::compute, ready, std::chrono::steady_clock::now() + impl_->context.deadline);
  impl_->check_ids(ids, rows);
  Handle handle(std::make_unique<Handle::State>(impl_->rounds));
  impl_->dispatch({tokens, ids, weights}, 0, rows, ready, *handle.state_);
  return handle;
}

void Dispatcher::combine(Handle& handle, void* output, const EventPtr& ready) {
  using Next = Handle::State::Next;
  Handle::State& state = *handle.state_;
  state.advance(Next::combine, Next::combine_backward, "combine");
  for (Round& round : state.rounds) {
    impl_->bind(*round.pass, "y", output, round.first);
    Executor executor(impl_->context, *round.pass, impl_->no_weights, nullptr);
    state.done = executor.run(false, impl_->back, ready);
  }
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
  for (Round& round : state.rounds) {
    impl_->bind(*round.pass, "dy", output_gradients, round.first);
    impl_->bind_weight_gradients(round);
    Executor executor(impl_->context, *round.pass, impl_->no_weights, nullptr);
    state.done = executor.run(true, impl_->gradients_out, ready);
    Impl::append_batches(executor, schedule.backward, StepKind::expert_dgrad, state.gradients);
  }
  return state.gradients;
}

void Dispatcher::dispatch_backward(Handle& handle, void* token_gradients, float* weight_gradients,
                                   const EventPtr& ready) {
  using Next = Handle::State::Next;
  Handle::State& state = *handle.state_;
  state.advance(Next::dispatch_backward, Next::nothing, "dispatch_backward");
  for (Round& round : state.rounds) {
    impl_->bind(*round.pass, "dx", token_gradients, round.first);
    state.done = impl_->dispatch_backward(round, weight_gradients + round.first * impl_->shape.top_k, ready);
  }
  state.gradients.clear();
}

}  // namespace topomoe
