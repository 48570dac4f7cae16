#include "topomoe/moe_layer.hpp"

#include <algorithm>
#include <utility>

#include "runtime/layer_parts.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

struct MoeLayer::Handle::State {
  std::unique_ptr<PassState> pass;
  explicit State(std::unique_ptr<PassState> p) : pass(std::move(p)) {}
  ~State() { LayerMemory::give(std::move(pass)); }
};
MoeLayer::Handle::Handle(std::unique_ptr<State> state) : state_(std::move(state)) {}
MoeLayer::Handle::~Handle() = default;
MoeLayer::Handle::Handle(Handle&&) noexcept = default;

std::size_t MoeLayer::Handle::saved_bytes() const {
  std::size_t bytes = 0;
  for (const SlotMemory::Place& place : state_->pass->memory.saved) bytes += place.bytes;
  for (const PassState::Kept& kept : state_->pass->kept) bytes += state_->pass->keeps_routing ? kept.bytes : 0;
  return bytes;
}
const RouterReport& MoeLayer::Handle::router() const { return state_->pass->report; }

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
       Communicator& communicator, Device& device, std::chrono::milliseconds deadline)
      : LayerParts(std::move(its_schedule), layout, gpus_per_node, its_shape, communicator, device, deadline) {
    require_shared(schedule, shape, layout);
  }
  void require(const LayerWeights& w) const {
    if (shape.shared_ffn > 0 && (w.shared_gate == nullptr || w.shared_up == nullptr || w.shared_down == nullptr))
      throw InvalidInput("weights.shared_gate, shared_up, shared_down", "null", "the layer has a shared expert");
    if (shape.shared_gate != SharedGate::none && w.mix == nullptr)
      throw InvalidInput("weights.mix", "null", "the shared expert has a gate");
  }

  std::shared_ptr<LayerMemory> memory = std::make_shared<LayerMemory>(context);  // outlives the layer with its handles
  const std::vector<View> routing = route_of(schedule).out;
  const std::vector<std::uint8_t> again = steps_again(schedule);
};

MoeLayer::MoeLayer(Schedule schedule, Layout layout, int gpus_per_node, LayerShape shape, Communicator& communicator,
                   Device& device, std::chrono::milliseconds deadline)
    : impl_(std::make_unique<Impl>(std::move(schedule), layout, gpus_per_node, shape, communicator, device, deadline)) {
}
MoeLayer::~MoeLayer() = default;
MoeLayer::MoeLayer(MoeLayer&&) noexcept = default;

MoeLayer::Handle MoeLayer::forward(const void* tokens, std::int64_t rows, void* output, const LayerWeights& weights,
                                   Keep keep) {
  impl_->require(weights);
  Handle handle(std::make_unique<Handle::State>(LayerMemory::take(impl_->memory, impl_->context)));
  PassState& pass = *handle.state_->pass;
  impl_->hold(pass, rows);
  // Read only: no schedule writes the caller's tokens.
  pass.bound[impl_->boundary("x")] = static_cast<std::byte*>(const_cast<void*>(tokens));
  pass.bound[impl_->boundary("y")] = static_cast<std::byte*>(output);
  pass.keeps_routing = keep == Keep::routing;
  const Lent lent(pass, *impl_->memory, pass.keeps_routing);
  Executor executor(impl_->context, pass, weights, nullptr);
  executor.run(false);
  if (!pass.keeps_routing) return handle;
  Device& device = impl_->context.device;
  pass.kept.resize(impl_->routing.size());
  for (std::size_t i = 0; i < pass.kept.size(); ++i) {
    const Executor::Span from = executor.at(impl_->routing[i]);
    device.copy(Lane::compute, pass.kept[i].room(device, from.bytes()), from.data, from.bytes());
  }
  device.synchronize();
  return handle;
}

void MoeLayer::backward(Handle& handle, const void* output_gradients, void* token_gradients,
                        const LayerWeights& weights, const LayerGradients& gradients) {
  impl_->require(weights);
  PassState& pass = *handle.state_->pass;
  pass.bound[impl_->boundary("dy")] = static_cast<std::byte*>(const_cast<void*>(output_gradients));
  pass.bound[impl_->boundary("dx")] = static_cast<std::byte*>(token_gradients);
  const Lent lent(pass, *impl_->memory, pass.keeps_routing);
  Executor executor(impl_->context, pass, weights, &gradients);
  if (pass.keeps_routing) {
    for (std::size_t i = 0; i < pass.kept.size(); ++i)
      pass.bound[root_of(impl_->schedule, impl_->routing[i].buffer)] = pass.kept[i].memory.get();
    // The output was handed out: what is written again goes nowhere.
    const int y = impl_->boundary("y");
    pass.bound[y] = pass.unwanted.room(impl_->context.device, executor.at(View{.buffer = y}).bytes());
    executor.run(false, impl_->again, true);
  }
  executor.run(true);
}

const std::vector<StepTrace>& MoeLayer::last_trace() const {
  return impl_->memory->trace[impl_->memory->last_backward];
}
const Schedule& MoeLayer::schedule() const { return impl_->schedule; }

}  // namespace topomoe
