#include "topomoe/moe_layer.hpp"

#include <utility>

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
  std::span<Round> all() { return rounds.empty() ? std::span(&only, only.pass ? 1 : 0) : std::span(rounds); }
  void add(Round round) {
    if (!only.pass && rounds.empty()) {
      only = std::move(round);
      return;
    }
    if (only.pass) rounds.push_back(std::move(only));
    rounds.push_back(std::move(round));
  }
  ~State() {
    for (Round& r : all()) LayerMemory::give(std::move(r.pass));
  }
};
MoeLayer::Handle::Handle(std::unique_ptr<State> state) : state_(std::move(state)) {}
MoeLayer::Handle::~Handle() = default;
MoeLayer::Handle::Handle(Handle&&) noexcept = default;
const EventPtr& MoeLayer::Handle::done() const { return state_->done; }

struct MoeLayer::Impl : LayerParts {
  using LayerParts::LayerParts;
  // While all that its steps use is there.
  ~Impl() {
    if (memory) memory->drain();
  }
  std::shared_ptr<LayerMemory> memory;  // outlives the layer with its handles
  LayerCounters counters;

  std::byte* row(const void* tensor, std::int64_t index) const {
    return static_cast<std::byte*>(const_cast<void*>(tensor)) +
           static_cast<std::size_t>(index * shape.hidden) * size_of(shape.dtype);
  }

  struct Forward {
    const void* tokens;
    void* output;
    const LayerWeights& weights;
  };
  // Rows [first, first + rows), in as many rounds as it takes: all ranks cut theirs alike.
  void forward(const Forward& f, std::int64_t first, std::int64_t rows, const EventPtr& ready, Handle::State& out) {
    Handle::State attempt;
    attempt.add({LayerMemory::take(memory, context), first});
    PassState& pass = *attempt.only.pass;
    hold(pass, rows);
    // Read only: no schedule writes the caller's tokens.
    pass.bound[boundary("x")] = row(f.tokens, first);
    pass.bound[boundary("y")] = row(f.output, first);
    Executor executor(context, pass, f.weights, nullptr);
    const EventPtr done = executor.run(false, {}, ready);
    const int parts = executor.rounds();
    if (parts == 1) {
      out.add(std::move(attempt.only));
      out.done = done;
      return;
    }
    counters.overflow_rounds += parts - 1;
    for (int i = 0; i < parts; ++i) {
      const std::int64_t begin = part_begin(rows, parts, i);
      forward(f, first + begin, part_begin(rows, parts, i + 1) - begin, ready, out);
    }
  }
};

MoeLayer::MoeLayer(Schedule schedule, Layout layout, int gpus_per_node, LayerShape shape, Communicator& communicator,
                   Device& device, std::chrono::milliseconds deadline, const LayerOptions& options)
    : impl_(std::make_unique<Impl>(std::move(schedule), layout, gpus_per_node, shape, communicator, device, deadline)) {
  if (!(options.tokens >= 0)) throw InvalidInput("options.tokens", std::to_string(options.tokens), "0 or more");
  if (!(options.skew >= 1)) throw InvalidInput("options.skew", std::to_string(options.skew), "1 or more");
  if (options.tokens > 0 && impl_->shape.capacity_factor > 0)
    throw InvalidInput("options.tokens", std::to_string(options.tokens),
                       "0 beside shape.capacity_factor: which tokens are dropped must not depend on rounds");
  impl_->memory = std::make_shared<LayerMemory>(impl_->context, Capacity{options.tokens, options.skew});
}
MoeLayer::~MoeLayer() = default;
MoeLayer::MoeLayer(MoeLayer&&) noexcept = default;

MoeLayer::Handle MoeLayer::forward(const void* tokens, std::int64_t rows, void* output, const LayerWeights& weights,
                                   const EventPtr& ready) {
  Handle handle(std::make_unique<Handle::State>());
  impl_->forward({tokens, output, weights}, 0, rows, ready, *handle.state_);
  return handle;
}

void MoeLayer::backward(Handle& handle, const void* output_gradients, void* token_gradients,
                        const LayerWeights& weights, const LayerGradients& gradients, const EventPtr& ready) {
  for (Handle::State::Round& round : handle.state_->all()) {
    PassState& pass = *round.pass;
    pass.bound[impl_->boundary("dy")] = impl_->row(output_gradients, round.first);
    pass.bound[impl_->boundary("dx")] = impl_->row(token_gradients, round.first);
    Executor executor(impl_->context, pass, weights, &gradients);
    handle.state_->done = executor.run(true, {}, ready);
  }
}

void MoeLayer::sum_over_replicas(const LayerGradients& gradients) {
  topomoe::sum_over_replicas(impl_->context, gradients);
}

const std::vector<StepTrace>& MoeLayer::last_trace() const {
  impl_->memory->settle();
  return impl_->memory->trace[impl_->memory->last_backward];
}
const Schedule& MoeLayer::schedule() const { return impl_->schedule; }
const LayerCounters& MoeLayer::counters() const { return impl_->counters; }

}  // namespace topomoe
