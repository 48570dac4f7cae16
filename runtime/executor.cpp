#include "runtime/executor.hpp"

#include <algorithm>
#include <utility>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

LayerMemory::~LayerMemory() = default;

std::unique_ptr<PassState> LayerMemory::take(const std::shared_ptr<LayerMemory>& layer,
                                             const ExecutorContext& context) {
  std::unique_ptr<PassState> state;
  {
    const std::lock_guard lock(layer->mutex_);
    if (layer->given_back_.empty()) {
      layer->given_back_.reserve(++layer->made_);  // so that giving back needs no memory
    } else {
      state = std::move(layer->given_back_.back());
      layer->given_back_.pop_back();
    }
  }
  if (!state) return std::make_unique<PassState>(context, layer);
  state->layer = layer;
  state->counts.reset();
  state->offsets.clear();
  state->keeps_routing = false;
  for (auto& [buffer, data] : state->bound) data = nullptr;
  return state;
}

void LayerMemory::give(std::unique_ptr<PassState> state) noexcept {
  const std::shared_ptr<LayerMemory> layer = std::move(state->layer);  // else they would keep each other alive
  state->memory.forget();
  const std::lock_guard lock(layer->mutex_);
  layer->given_back_.push_back(std::move(state));
}

std::byte* PassState::Kept::room(Device& device, std::size_t size) {
  bytes = size;
  if (size > capacity) {
    memory.reset();
    capacity = 0;
    memory = device.allocate(size);
    capacity = size;
  }
  return memory.get();
}

Executor::Executor(const ExecutorContext& context, PassState& state, const LayerWeights& weights,
                   const LayerGradients* gradients)
    : c_(context),
      widths_(row_widths(context.shape, context.groups.layout().etp, context.groups.layout().tp)),
      state_(state),
      weights_(weights),
      gradients_(gradients),
      m_(*state.layer) {}

std::int64_t Executor::columns(const Buffer& b) const { return static_cast<std::int64_t>(columns_of(b, widths_)); }

// Ids are moved as four opaque bytes.
DType Executor::dtype(const Buffer& b) const { return b.element == Element::payload ? c_.shape.dtype : DType::f32; }

std::byte* Executor::slot(std::size_t slot, std::int64_t elements, std::size_t element_bytes) {
  std::byte*& data = m_.found[slot];
  if (data == nullptr)
    data = m_.arenas.get(backward_, slot, static_cast<std::size_t>(elements) * element_bytes, state_.memory);
  return data;
}

std::byte* Executor::memory_of(int id) {
  const int root = root_of(c_.schedule, id);
  const Buffer& b = c_.schedule.buffers[static_cast<std::size_t>(root)];
  if (const auto bound = state_.bound.find(root);
      bound != state_.bound.end() && (bound->second != nullptr || b.storage == Storage::caller))
    return bound->second;
  TOPOMOE_ASSERT(b.storage != Storage::caller);
  const std::size_t of = m_.arenas.slots().of_buffer(root);
  if (std::byte* const data = m_.found[of]) return data;
  return slot(of, static_cast<std::int64_t>(state_.offsets.rows(m_.rows, state_.counts, root)), bytes_of_row(b));
}

std::int32_t* Executor::map_part(int map, Slots::MapPart part, const std::vector<std::int32_t>& host) {
  return reinterpret_cast<std::int32_t*>(
      slot(m_.arenas.slots().of_map(map, part), static_cast<std::int64_t>(host.size()), sizeof(std::int32_t)));
}

Executor::Span Executor::at(const View& view, int peer) {
  const Buffer& b = buffer(view);
  const RowRange range = state_.offsets.resolve(m_.rows, state_.counts, view, peer < 0 ? c_.rank : peer);
  const std::size_t bytes = bytes_of_row(b);
  return {memory_of(view.buffer) + static_cast<std::size_t>(range.offset) * bytes,
          static_cast<std::int64_t>(range.rows), bytes};
}

// Steps that are left out are over when those before them are.
void Executor::wait_behind(int before, std::size_t step, const Step& s, std::span<const Step> steps,
                           std::span<const std::uint8_t> part) {
  const auto b = static_cast<std::size_t>(before);
  if (!part.empty() && part[b] == 0) {
    if (std::exchange(m_.seen[b], step + 1) == step + 1) return;
    for (const int further : steps[b].after) wait_behind(further, step, s, steps, part);
    return;
  }
  const EventPtr& event = m_.events[b];
  // Steps that read on the host wait on the host, with a deadline; the others let their lane wait.
  if (event && (s.kind == StepKind::index || s.kind == StepKind::route))
    event->wait(deadline());
  else
    c_.device.wait(s.lane, event, deadline());
}

void Executor::run(bool backward, std::span<const std::uint8_t> part, bool alone) {
  const std::vector<Step>& steps = backward ? c_.schedule.backward : c_.schedule.forward;
  const auto left_out = [&](std::size_t i) { return !part.empty() && part[i] == 0; };
  // A part without the first step goes on where another one stopped, and finds what that left. Steps of the shared
  // expert may be first or last, and missing.
  std::size_t first = 0, last = steps.size() - 1;
  while (first < last && left_out(first) && steps[first].beside) ++first;
  while (first < last && left_out(last) && steps[last].beside) --last;
  const bool begins = alone || !left_out(first) || m_.found.empty(), ends = alone || !left_out(last);
  backward_ = m_.last_backward = backward;
  std::vector<StepTrace>& trace = m_.trace[backward];
  std::vector<EventPtr>& events = m_.events;
  // Host kernels drive our transfers while they compute, for as long as this pass runs.
  c_.device.set_progress({[](void* c) { static_cast<Communicator*>(c)->progress(); }, &c_.communicator});
  struct Unhook {
    Device& device;
    ~Unhook() { device.set_progress({}); }
  } unhook{c_.device};
  const auto begin = Clock::now();
  const auto now = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  // A transfer's end is when somebody first sees that it is over.
  std::size_t first_open = 0;
  const auto look = [&](std::size_t until) {
    while (first_open < until && (!events[first_open] || trace[first_open].end_s > 0)) ++first_open;
    for (std::size_t i = first_open; i < until; ++i)
      if (events[i] && trace[i].end_s == 0 && events[i]->poll()) trace[i].end_s = now();
  };
  try {
    trace.resize(steps.size());
    events.assign(steps.size(), nullptr);
    m_.seen.assign(steps.size(), 0);
    if (begins) {
      m_.found.assign(m_.arenas.slots().size(), nullptr);
      if (!backward) state_.offsets.clear();
      m_.arenas.begin(backward, state_.memory);
    }
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const Step& s = steps[i];
      if (left_out(i)) continue;
      for (const int before : s.after) wait_behind(before, i, s, steps, part);
      look(i);
      StepTrace& t = trace[i];
      t.name = s.name;
      t.kind = s.kind, t.lane = s.lane, t.backward = backward, t.chunk = s.chunk;
      t.begin_s = now();
      t.end_s = t.payload_bytes = t.metadata_bytes = 0;
      issue(s, i, t, events[i]);
      if (!events[i]) t.end_s = now();
    }
    for (std::size_t i = 0; i < steps.size(); ++i)
      if (events[i]) {
        events[i]->wait(deadline());
        if (trace[i].end_s == 0) trace[i].end_s = now();
      }
    c_.device.synchronize();
    events.clear();
    std::size_t step = 0;
    if (!part.empty()) std::erase_if(trace, [&](const StepTrace&) { return left_out(step++); });
  } catch (const std::exception& e) {
    c_.communicator.fail(failure_of(e, c_.rank));
    events.clear();
    throw;
  }
  if (ends) m_.arenas.end(backward, state_.memory);
}

}  // namespace topomoe
