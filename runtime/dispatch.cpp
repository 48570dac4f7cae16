#include "topomoe/dispatch.hpp"

#include <string>
#include <utility>

#include "planner/plan/schedule_part.hpp"
#include "runtime/layer_parts.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

struct Dispatcher::Handle::State {
  PassState pass;
  std::vector<ExpertBatch> batches;
  bool combined = false;
};
Dispatcher::Handle::Handle(std::unique_ptr<State> state) : state_(std::move(state)) {}
Dispatcher::Handle::~Handle() = default;
Dispatcher::Handle::Handle(Handle&&) noexcept = default;
std::span<const ExpertBatch> Dispatcher::Handle::batches() const { return state_->batches; }

struct Dispatcher::Impl : LayerParts {
  using LayerParts::LayerParts;
  const std::vector<std::uint8_t> out = steps_of(schedule, Part::dispatch), back = steps_of(schedule, Part::combine);
  const LayerWeights no_weights;

  void check_ids(const std::int32_t* ids, std::int64_t rows) const {
    std::vector<std::int32_t> host(static_cast<std::size_t>(rows * shape.top_k));
    context.device.to_host(Lane::compute, host.data(), ids, host.size() * sizeof(std::int32_t));
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
    std::vector<Outgoing> sends;
    std::vector<Incoming> receives;
    std::byte* place = into;
    const auto members = groups.members(Role::tp, context.rank);
    for (std::size_t i = 0; i < members.size(); ++i) {
      const std::size_t bytes = static_cast<std::size_t>(held_by(members[i])) * row;
      if (members[i] == context.rank) {
        context.device.copy(lane, place, from, bytes);
      } else {
        sends.push_back({static_cast<int>(i), from, static_cast<std::size_t>(mine) * row});
        receives.push_back({static_cast<int>(i), place, bytes});
      }
      place += bytes;
    }
    const EventPtr event = context.communicator.exchange(
        channels.of(Role::tp), sends, receives,
        {.step = "gather routing", .lane = lane, .metadata = true, .memory = context.device.memory_space()});
    context.device.wait(lane, event, std::chrono::steady_clock::now() + context.deadline);
  }
};

Dispatcher::Dispatcher(Schedule schedule, Layout layout, int gpus_per_node, DispatchShape shape,
                       Communicator& communicator, Device& device, std::chrono::milliseconds deadline) {
  // The experts' own width is theirs: no step that is run here has a row of it.
  const LayerShape layer{
      .hidden = shape.hidden, .ffn = layout.etp, .experts = shape.experts, .top_k = shape.top_k, .dtype = shape.dtype};
  impl_ = std::make_unique<Impl>(std::move(schedule), layout, gpus_per_node, layer, communicator, device, deadline);
}
Dispatcher::~Dispatcher() = default;
Dispatcher::Dispatcher(Dispatcher&&) noexcept = default;

Dispatcher::Handle Dispatcher::dispatch(const void* tokens, std::int64_t rows, const std::int32_t* ids,
                                        const float* weights) {
  const Impl& impl = *impl_;
  Handle handle(std::make_unique<Handle::State>(Handle::State{impl.hold(rows), {}}));
  impl.check_ids(ids, rows);
  PassState& pass = handle.state_->pass;
  pass.bound[impl.boundary("x")] = static_cast<std::byte*>(const_cast<void*>(tokens));  // read only
  pass.router = [&](Lane lane, std::int32_t* its_ids, float* its_weights, std::int64_t) {
    impl.inject(lane, its_ids, ids, pass.counts);
    impl.inject(lane, its_weights, weights, pass.counts);
  };
  Executor executor(impl.context, pass, impl.no_weights, nullptr);
  executor.run(false, impl.out);
  pass.router = nullptr;
  for (const Step& s : impl.schedule.forward) {
    if (s.kind != StepKind::expert_forward) continue;
    ExpertBatch batch{executor.at(s.in[0]).data, executor.at(s.out[0]).data, executor.expert_offsets(s.in[0])};
    for (std::size_t e = 0; e + 1 < batch.rows.size(); ++e) batch.rows[e] = batch.rows[e + 1] - batch.rows[e];
    batch.rows.pop_back();
    handle.state_->batches.push_back(std::move(batch));
  }
  return handle;
}

void Dispatcher::combine(Handle& handle, void* output) {
  Handle::State& state = *handle.state_;
  if (state.combined) throw InvalidInput("handle", "combined before", "one combine for each dispatch");
  state.combined = true;
  state.pass.bound[impl_->boundary("y")] = static_cast<std::byte*>(output);
  Executor executor(impl_->context, state.pass, impl_->no_weights, nullptr);
  executor.run(false, impl_->back);
  state.batches.clear();  // their outputs are gone
}

}  // namespace topomoe
