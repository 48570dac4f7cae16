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

void SlotMemory::go_on(const SlotMemory& round) {
  blocks = round.blocks;
  for (const auto& block : blocks) used_before.push_back(block->used);
}

void SlotMemory::undo() {
  for (std::size_t i = 0; i < used_before.size(); ++i) blocks[i]->used = used_before[i];
}

void SlotMemory::forget() {
  std::fill(saved.begin(), saved.end(), Place{});
  blocks.clear();
  used_before.clear();
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
  if (pass_apart_ || (arena_ && plan_.pass_bytes[backward] > arena_bytes_)) return true;
  return !backward && !memory.in_use && (memory.has_apart || (memory.arena && plan_.saved_bytes > memory.arena_bytes));
}

void LayerArenas::begin(bool backward, SlotMemory& memory) {
  memory.saved.resize(slots_.size());
  memory.apart.resize(slots_.size());
  end(backward, memory);  // a pass that went no further
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
  if (!bounded_ && plan_.saved_bytes > memory.arena_bytes) {
    memory.arena.reset();
    memory.arena_bytes = 0;
    memory.arena = device_.allocate(plan_.saved_bytes);
    memory.arena_bytes = plan_.saved_bytes;
  }
}

// In the first block with room for it.
std::byte* LayerArenas::save(std::size_t bytes, SlotMemory& memory) {
  const std::size_t room = (bytes + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
  auto block = std::find_if(memory.blocks.begin(), memory.blocks.end(),
                            [&](const auto& b) { return b->bytes - b->used >= room; });
  if (block == memory.blocks.end()) {
    auto free = std::find_if(blocks_.begin(), blocks_.end(), [](const auto& b) { return b.use_count() == 1; });
    if (free == blocks_.end())
      free = blocks_.insert(
          free, std::make_shared<SavedBlock>(SavedBlock{device_.allocate(plan_.saved_bytes), plan_.saved_bytes, 0}));
    (*free)->used = 0;
    block = memory.blocks.insert(block, *free);
  }
  std::byte* const data = (*block)->memory.get() + (*block)->used;
  (*block)->used += room;
  return data;
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
  if (bounded_ && saved && !backward && planned.bytes >= bytes) {
    data = save(bytes, memory);
  } else if (planned.bytes >= bytes && (!saved || (!backward && memory.laid_out == plans_))) {
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
