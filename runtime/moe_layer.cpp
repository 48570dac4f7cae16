#include "topomoe/moe_layer.hpp"

#include <utility>

#include "runtime/layer_parts.hpp"

namespace topomoe {

struct MoeLayer::Handle::State {
  std::unique_ptr<PassState> pass;
  EventPtr done;
  explicit State(std::unique_ptr<PassState> p) : pass(std::move(p)) {}
  ~State() { LayerMemory::give(std::move(pass)); }
};
MoeLayer::Handle::Handle(std::unique_ptr<State> state) : state_(std::move(state)) {}
MoeLayer::Handle::~Handle() = default;
MoeLayer::Handle::Handle(Handle&&) noexcept = default;
const EventPtr& MoeLayer::Handle::done() const { return state_->done; }

struct MoeLayer::Impl : LayerParts {
  using LayerParts::LayerParts;
  ~Impl() { memory->drain(); }  // while all that its steps use is there
  std::shared_ptr<LayerMemory> memory = std::make_shared<LayerMemory>(context);  // outlives the layer with its handles
};

MoeLayer::MoeLayer(Schedule schedule, Layout layout, int gpus_per_node, LayerShape shape, Communicator& communicator,
                   Device& device, std::chrono::milliseconds deadline)
    : impl_(std::make_unique<Impl>(std::move(schedule), layout, gpus_per_node, shape, communicator, device, deadline)) {
}
MoeLayer::~MoeLayer() = default;
MoeLayer::MoeLayer(MoeLayer&&) noexcept = default;

MoeLayer::Handle MoeLayer::forward(const void* tokens, std::int64_t rows, void* output, const LayerWeights& weights,
                                   const EventPtr& ready) {
  Handle handle(std::make_unique<Handle::State>(LayerMemory::take(impl_->memory, impl_->context)));
  PassState& pass = *handle.state_->pass;
  impl_->hold(pass, rows);
  // Read only: no schedule writes the caller's tokens.
  pass.bound[impl_->boundary("x")] = static_cast<std::byte*>(const_cast<void*>(tokens));
  pass.bound[impl_->boundary("y")] = static_cast<std::byte*>(output);
  Executor executor(impl_->context, pass, weights, nullptr);
  handle.state_->done = executor.run(false, {}, ready);
  return handle;
}

void MoeLayer::backward(Handle& handle, const void* output_gradients, void* token_gradients,
                        const LayerWeights& weights, const LayerGradients& gradients, const EventPtr& ready) {
  PassState& pass = *handle.state_->pass;
  pass.bound[impl_->boundary("dy")] = static_cast<std::byte*>(const_cast<void*>(output_gradients));
  pass.bound[impl_->boundary("dx")] = static_cast<std::byte*>(token_gradients);
  Executor executor(impl_->context, pass, weights, &gradients);
  handle.state_->done = executor.run(true, {}, ready);
}

const std::vector<StepTrace>& MoeLayer::last_trace() const {
  impl_->memory->settle();
  return impl_->memory->trace[impl_->memory->last_backward];
}
const Schedule& MoeLayer::schedule() const { return impl_->schedule; }

}  // namespace topomoe
