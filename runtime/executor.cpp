#include "runtime/executor.hpp"

#include <algorithm>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

Executor::Executor(const ExecutorContext& context, PassState& state, const LayerWeights& weights,
                   const LayerGradients* gradients)
    : c_(context),
      widths_(row_widths(context.shape, context.groups.layout().etp)),
      state_(state),
      weights_(weights),
      gradients_(gradients) {}

std::int64_t Executor::columns(const Buffer& b) const { return static_cast<std::int64_t>(columns_of(b, widths_)); }

// Ids are moved as four opaque bytes.
DType Executor::dtype(const Buffer& b) const { return b.element == Element::payload ? c_.shape.dtype : DType::f32; }

std::byte* Executor::memory_of(int id) {
  const int root = root_of(c_.schedule, id);
  const Buffer& b = c_.schedule.buffers[static_cast<std::size_t>(root)];
  if (const auto bound = state_.bound.find(root); bound != state_.bound.end()) return bound->second;
  TOPOMOE_ASSERT(b.storage != Storage::caller);
  DeviceMemory& memory = state_.memory[root];
  if (!memory) {
    View all;
    all.buffer = root;
    const auto rows =
        static_cast<std::size_t>(resolve(c_.schedule, all, c_.groups, state_.counts, c_.rank, c_.rank).rows);
    memory = c_.device.allocate(std::max<std::size_t>(1, rows * bytes_of_row(b)));
  }
  return memory.get();
}

Executor::Span Executor::at(const View& view, int peer) {
  const Buffer& b = buffer(view);
  const RowRange range = resolve(c_.schedule, view, c_.groups, state_.counts, c_.rank, peer < 0 ? c_.rank : peer);
  const std::size_t bytes = bytes_of_row(b);
  return {memory_of(view.buffer) + static_cast<std::size_t>(range.offset) * bytes,
          static_cast<std::int64_t>(range.rows), bytes};
}

void Executor::run(bool backward, std::span<const std::uint8_t> part) {
  const std::vector<Step>& steps = backward ? c_.schedule.backward : c_.schedule.forward;
  const auto left_out = [&](std::size_t i) { return !part.empty() && part[i] == 0; };
  trace_.clear();
  // Host kernels drive our transfers while they compute, for as long as this pass runs.
  c_.device.set_progress({[](void* c) { static_cast<Communicator*>(c)->progress(); }, &c_.communicator});
  struct Unhook {
    Device& device;
    ~Unhook() { device.set_progress({}); }
  } unhook{c_.device};
  std::vector<EventPtr> events(steps.size());
  const auto begin = Clock::now();
  const auto now = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  // A transfer's end is when somebody first sees that it is over.
  const auto look = [&](std::size_t until) {
    for (std::size_t i = 0; i < until; ++i)
      if (events[i] && trace_[i].end_s == 0 && events[i]->poll()) trace_[i].end_s = now();
  };
  try {
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const Step& s = steps[i];
      if (left_out(i)) {
        trace_.emplace_back();
        continue;
      }
      for (const int before : s.after) {
        const EventPtr& event = events[static_cast<std::size_t>(before)];
        // Steps that read on the host wait on the host, with a deadline; the others let their lane wait.
        if (event && (s.kind == StepKind::index || s.kind == StepKind::route))
          event->wait(deadline());
        else
          c_.device.wait(s.lane, event, deadline());
      }
      look(i);
      StepTrace t{.name = s.name, .kind = s.kind, .lane = s.lane, .backward = backward, .chunk = s.chunk};
      t.begin_s = now();
      issue(s, t, events[i]);
      if (!events[i]) t.end_s = now();
      trace_.push_back(std::move(t));
    }
    for (std::size_t i = 0; i < steps.size(); ++i)
      if (events[i]) {
        events[i]->wait(deadline());
        if (trace_[i].end_s == 0) trace_[i].end_s = now();
      }
    c_.device.synchronize();
    temporaries_.clear();
    std::size_t step = 0;
    std::erase_if(trace_, [&](const StepTrace&) { return left_out(step++); });
  } catch (const std::exception& e) {
    c_.communicator.abort(e.what());
    throw;
  }
  if (!part.empty() && part.back() == 0) return;  // another part reads them
  std::erase_if(state_.memory, [&](const auto& entry) {
    return c_.schedule.buffers[static_cast<std::size_t>(entry.first)].storage == Storage::pass;
  });
}

}  // namespace topomoe
