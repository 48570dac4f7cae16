#include "runtime/executor.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

namespace {

// Maxima over the groups of these roles, one after another, are maxima over all ranks that any chain of groups
// connects: the roles of the schedule, as often as it takes. Every rank of the chain finds the same answer.
std::vector<Role> roles_to_agree_over(const Schedule& schedule, const RankGroups& groups, int rank) {
  const std::vector<Role> roles = roles_of(schedule);
  const auto spread = [&](std::vector<int> ranks, Role role) {
    std::vector<int> all;
    for (const int r : ranks) {
      const auto group = groups.members(role, r);
      all.insert(all.end(), group.begin(), group.end());
    }
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    return all;
  };
  std::vector<int> connected{rank};
  for (std::size_t before = 0; before != connected.size();) {
    before = connected.size();
    for (const Role role : roles) connected = spread(connected, role);
  }
  std::vector<Role> over;
  const auto all_hear_of_all = [&] {
    return std::all_of(connected.begin(), connected.end(), [&](int r) {
      std::vector<int> heard{r};
      for (auto role = over.rbegin(); role != over.rend(); ++role) heard = spread(heard, *role);
      return heard == connected;
    });
  };
  while (!all_hear_of_all()) over.insert(over.end(), roles.begin(), roles.end());
  return over;
}

SlotBytes bytes_for(const ExecutorContext& c, const Capacity& capacity) {
  if (capacity.tokens <= 0) return {};
  return capacity_bytes(c.schedule, c.groups, row_widths(c.shape, c.groups.layout().etp, c.groups.layout().tp),
                        c.placement, capacity, c.rank);
}

}  // namespace

LayerMemory::LayerMemory(const ExecutorContext& c, const Capacity& capacity)
    : rows(c.schedule, c.groups, c.rank, c.placement),
      maps(rows),
      arenas(c.schedule, c.device, bytes_for(c, capacity)),
      device_(c.device),
      deadline_(c.deadline),
      sizes_(arenas.bounded() ? slot_sizes(c.schedule, row_widths(c.shape, c.groups.layout().etp, c.groups.layout().tp))
                              : std::vector<SlotSize>{}) {
  if (arenas.bounded()) agree_over_ = roles_to_agree_over(c.schedule, c.groups, c.rank);
}

int LayerMemory::rounds(const ExecutorContext& c, PassState& state, std::int64_t held) {
  double times = 1;
  for (const SlotSize& s : sizes_) {
    const double bytes = s.bytes(state.offsets.resolve(rows, state.counts, s.rows, c.rank).rows);
    times = std::max(times, bytes / static_cast<double>(arenas.capacity(s.backward, s.slot)));
  }
  // My rounds and my tokens, and then each member's in turn.
  agreed.assign(2, 0);
  times = std::min(times, static_cast<double>(std::numeric_limits<std::int32_t>::max()));
  agreed[0] = static_cast<std::int32_t>(std::ceil(times));
  agreed[1] = static_cast<std::int32_t>(std::min<std::int64_t>(held, std::numeric_limits<std::int32_t>::max()));
  for (const Role role : agree_over_) {
    const auto members = c.groups.members(role, c.rank);
    if (members.size() == 1) continue;
    agreed.resize(2 + 2 * members.size());
    sends.clear();
    receives.clear();
    for (std::size_t i = 0; i < members.size(); ++i) {
      if (members[i] == c.rank) continue;
      sends.push_back({static_cast<int>(i), agreed.data(), 2 * sizeof(std::int32_t)});
      receives.push_back({static_cast<int>(i), &agreed[2 + 2 * i], 2 * sizeof(std::int32_t)});
    }
    c.communicator
        .exchange(c.channels.of(role), sends, receives,
                  {.step = "agree on rounds", .metadata = true, .of_schedule = false})
        ->wait(std::chrono::steady_clock::now() + c.deadline);
    for (std::size_t i = 0; i < members.size(); ++i)
      for (std::size_t j = 0; j < 2; ++j)
        if (members[i] != c.rank) agreed[j] = std::max(agreed[j], agreed[2 + 2 * i + j]);
  }
  return std::min(agreed[0], std::max(1, agreed[1]));
}

LayerMemory::~LayerMemory() { drain_lanes(); }

void LayerMemory::settle() {
  if (!last) return;
  last->wait();
  std::vector<StepTrace>& steps = trace[last_backward].steps;
  for (const PassEnd::Part& p : last->parts())
    if (p.row < steps.size() && steps[p.row].end_s == 0) steps[p.row].end_s = p.end_s;
  last = nullptr;
}

void LayerMemory::drain() noexcept {
  if (last) last->drain();
  last = nullptr;
}

void LayerMemory::drain_lanes() noexcept {
  drain();
  if (!failed) return;
  failed = false;
  try {
    const auto until = Clock::now() + deadline_;
    for (int lane = 0; lane < kLaneCount; ++lane)
      if (const EventPtr end = device_.record(static_cast<Lane>(lane))) end->wait(until);
  } catch (const std::exception&) {  // a lane that never ends: the failed pass has said so
  }
}

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
  state->renew();
  return state;
}

void LayerMemory::give(std::unique_ptr<PassState> state) noexcept {
  const std::shared_ptr<LayerMemory> layer = std::move(state->layer);  // else they would keep each other alive
  state->memory.forget();
  const std::lock_guard lock(layer->mutex_);
  layer->given_back_.push_back(std::move(state));
}

void PassState::renew() {
  counts.reset();
  offsets.clear();
  keeps_routing = false;
  for (auto& [buffer, data] : bound) data = nullptr;
}

std::byte* PassState::Kept::room(Device& device, std::size_t size) {
  bytes = size;
  const std::size_t least = std::max<std::size_t>(1, size);  // null would mean that a pass has to find its own
  if (least > capacity) {
    memory.reset();
    capacity = 0;
    memory = device.allocate(least);
    capacity = least;
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

// Of what is only moved, four opaque bytes each: ids, and rows of fp8.
std::int64_t Executor::columns(const Buffer& b) const {
  if (b.element == Element::fp8) return static_cast<std::int64_t>(bytes_of_row(b) / sizeof(std::int32_t));
  return static_cast<std::int64_t>(columns_of(b, widths_));
}

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
  c_.device.wait(s.lane, m_.events[b], deadline());
}

// The host waits here for a lane, which may wait for a rank that is gone.
void Executor::read(const Step& s, void* host, const void* device, std::size_t bytes) {
  try {
    c_.device.to_host(s.lane, host, device, bytes, deadline());
  } catch (const TransportError& e) {
    throw_what_hangs(s);
    throw named(e, c_.rank, s.name);
  }
}

// A lane does not say why it gets no further. The first thing that is not over does: the pass before, the caller's
// stream, or a step of this pass.
void Executor::throw_what_hangs(const Step& s) const {
  const auto now = Clock::now();
  if (m_.last) m_.last->wait(now);
  if (ready_ && !ready_->poll())
    throw TransportError(c_.rank, -1, s.name, 0, "what the caller's stream does before this pass is not over in time");
  const std::vector<Step>& steps = backward_ ? c_.schedule.backward : c_.schedule.forward;
  for (std::size_t i = 0; i < m_.events.size(); ++i) {
    if (!m_.events[i]) continue;
    try {
      m_.events[i]->wait(now);
    } catch (const TransportError& e) {
      throw named(e, c_.rank, steps[i].name);
    }
  }
}

// The host waits only for what no lane can wait for.
EventPtr Executor::end_of_pass(Clock::time_point begin, std::span<const std::uint8_t> part) {
  const std::vector<Step>& steps = backward_ ? c_.schedule.backward : c_.schedule.forward;
  std::vector<StepTrace>& trace = m_.trace[backward_].steps;
  std::array<EventPtr, kLaneCount> last;
  std::vector<PassEnd::Part> open;
  std::size_t row = 0;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    if (!part.empty() && part[i] == 0) continue;
    if (EventPtr& event = m_.events[i]) {
      if (event->native_event() == nullptr) {
        event->wait(deadline());
        if (trace[i].end_s == 0) trace[i].end_s = std::chrono::duration<double>(Clock::now() - begin).count();
      } else {
        last[static_cast<std::size_t>(steps[i].lane)] = event;
        open.push_back({std::move(event), row, trace[i].end_s, steps[i].name});
      }
    }
    ++row;
  }
  m_.events.clear();
  std::size_t step = 0;
  if (!part.empty()) std::erase_if(trace, [&](const StepTrace&) { return part[step++] == 0; });
  if (open.empty()) return m_.last = nullptr;
  for (const EventPtr& event : last)
    if (event) c_.device.wait(Lane::compute, event, deadline());
  m_.last =
      std::make_shared<PassEnd>(std::move(open), c_.device.record(Lane::compute), c_.communicator, begin, c_.deadline);
  return m_.last;
}

EventPtr Executor::run(bool backward, std::span<const std::uint8_t> part, const EventPtr& ready, bool alone) {
  const std::vector<Step>& steps = backward ? c_.schedule.backward : c_.schedule.forward;
  const auto left_out = [&](std::size_t i) { return !part.empty() && part[i] == 0; };
  // A part without the first step goes on where another one stopped, and finds what that left. Steps of the shared
  // expert may be first or last, and missing.
  std::size_t first = 0, last = steps.size() - 1;
  while (first < last && left_out(first) && steps[first].beside) ++first;
  while (first < last && left_out(last) && steps[last].beside) --last;
  const bool begins = alone || !left_out(first) || m_.found.empty(), ends = alone || !left_out(last);
  std::vector<StepTrace>& trace = m_.trace[backward].steps;
  std::vector<EventPtr>& events = m_.events;
  // Host kernels drive our transfers while they compute, for as long as this pass runs.
  c_.device.set_progress(progress_hook(c_.communicator));
  struct Unhook {
    Device& device;
    ~Unhook() { device.set_progress({}); }
  } unhook{c_.device};
  ready_ = ready;
  const auto begin = Clock::now();
  const auto now = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  // From here on a forward that routes knows all counts.
  std::size_t counted = steps.size();
  if (!backward && m_.arenas.bounded())
    for (std::size_t i = 0; i < steps.size(); ++i)
      if (!left_out(i) && (steps[i].kind == StepKind::route || steps[i].kind == StepKind::counts_exchange)) counted = i;
  rounds_ = 1;
  // A transfer's end is when somebody first sees that it is over.
  std::size_t first_open = 0;
  const auto look = [&](std::size_t until) {
    while (first_open < until && (!events[first_open] || trace[first_open].end_s > 0)) ++first_open;
    for (std::size_t i = first_open; i < until; ++i)
      if (events[i] && trace[i].end_s == 0 && events[i]->poll()) trace[i].end_s = now();
  };
  try {
    for (int lane = 0; lane < kLaneCount; ++lane) {
      if (ready) c_.device.wait(static_cast<Lane>(lane), ready, deadline());
      if (m_.last) c_.device.wait(static_cast<Lane>(lane), m_.last, deadline());
    }
    const bool gives_back = begins && m_.arenas.lay_out(backward, state_.memory);
    if (gives_back) m_.settle();
    backward_ = m_.last_backward = backward;
    m_.trace[backward].began = begin;
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
      t.dropped = 0;
      issue(s, i, t, events[i]);
      if (!events[i]) t.end_s = now();
      if (i == counted &&
          (rounds_ =
               m_.rounds(c_, state_, static_cast<std::int64_t>(state_.counts.count(Symbol::held, 0, c_.rank, 0)))) > 1)
        break;
    }
    EventPtr end = end_of_pass(begin, part);
    if (!ends) return end;
    if (m_.arenas.gives_back()) m_.settle(), end = nullptr;
    m_.arenas.end(backward, state_.memory);
    return end;
  } catch (const std::exception& e) {
    c_.communicator.fail(failure_of(e, c_.rank));
    events.clear();
    m_.failed = true;
    throw;
  }
}

}  // namespace topomoe
