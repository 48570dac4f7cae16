#include "runtime/layer_memory.hpp"

#include <algorithm>
#include <bit>
#include <utility>

namespace topomoe {
namespace {

// Assumed: counts of one router vary by less than a sixteenth from step to step.
std::size_t rounded(std::size_t bytes) {
  const std::size_t granule = std::max(kSlotAlignment, std::bit_floor(bytes) / 16);
  return (bytes + granule - 1) / granule * granule;
}

}  // namespace

void SlotMemory::forget() {
  std::fill(saved.begin(), saved.end(), Place{});
  in_use = false;
}

LayerArenas::LayerArenas(const Schedule& schedule, Device& device, SlotBytes capacity)
    : schedule_(schedule),
      device_(device),
      slots_(schedule),
      capacity_(std::move(capacity)),
      bounded_(!capacity_[0].empty()) {
  for (const bool backward : {false, true}) {
    if (!bounded_) capacity_[backward].assign(slots_.size(), 0);
    for (const SlotUse& use : slot_uses(schedule, backward)) saved_[backward].push_back(use.saved);
  }
  // A backward finds saved slots where the forward left them.
  for (std::size_t slot = 0; slot < slots_.size(); ++slot)
    if (saved_[0][slot]) saved_[1][slot] = true;
  plan_ = plan_buffers(schedule, capacity_);
}

bool LayerArenas::lay_out(bool backward, const SlotMemory& memory) {
  if (grown_) {
    plan_ = plan_buffers(schedule_, capacity_);
    grown_ = false;
    ++plans_;
  }
  if (arena_ && plan_.pass_bytes[backward] > arena_bytes_) return true;
  return !backward && !memory.in_use && (memory.has_apart || (memory.arena && plan_.saved_bytes > memory.arena_bytes));
}

void LayerArenas::begin(bool backward, SlotMemory& memory) {
  memory.saved.resize(slots_.size());
  memory.apart.resize(slots_.size());
  if (plan_.pass_bytes[backward] > arena_bytes_) {
    arena_.reset();  // before the larger one is asked for
    arena_bytes_ = 0;
    const std::size_t bytes = std::max(plan_.pass_bytes[0], plan_.pass_bytes[1]);
    arena_ = device_.allocate(bytes);
    arena_bytes_ = bytes;
  }
  if (backward || memory.in_use) return;
  if (memory.has_apart) std::fill(memory.apart.begin(), memory.apart.end(), nullptr);
  memory.has_apart = false;
  memory.laid_out = plans_;
  if (plan_.saved_bytes > memory.arena_bytes) {
    memory.arena.reset();
    memory.arena_bytes = 0;
    memory.arena = device_.allocate(plan_.saved_bytes);
    memory.arena_bytes = plan_.saved_bytes;
  }
}

std::byte* LayerArenas::get(bool backward, std::size_t slot, std::size_t bytes, SlotMemory& memory) {
  bytes = std::max<std::size_t>(bytes, 1);
  const bool saved = saved_[backward][slot];
  SlotMemory::Place& place = memory.saved[slot];
  if (saved && place.data != nullptr && place.bytes >= bytes) return place.data;
  std::size_t& capacity = capacity_[backward && !saved][slot];
  if (bytes > capacity && !bounded_) {
    capacity = rounded(bytes);
    grown_ = true;
  }
  const PlacedSlot& planned = plan_.of[backward][slot];
  std::byte* data = nullptr;
  if (planned.bytes >= bytes && (!saved || (!backward && memory.laid_out == plans_))) {
    data = (saved ? memory.arena : arena_).get() + planned.offset;
  } else {
    memory.apart[slot] = device_.allocate(bytes);
    (saved ? memory.has_apart : pass_apart_) = true;
    data = memory.apart[slot].get();
  }
  if (saved) {
    place = {data, bytes};
    memory.in_use = true;
  }
  return data;
}

void LayerArenas::end(bool backward, SlotMemory& memory) {
  if (!std::exchange(pass_apart_, false)) return;
  for (std::size_t slot = 0; slot < slots_.size(); ++slot)
    if (!saved_[backward][slot]) memory.apart[slot] = nullptr;
}

}  // namespace topomoe
