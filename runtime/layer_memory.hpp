// Memory that a layer keeps between its steps: arenas laid out by plan_buffers(), and what handles gave back.
//
// Rows are known only while a pass runs. Each slot has the capacity that any pass asked for so far, rounded up; what
// asks for more gets memory of its own for this once, and the next pass finds larger arenas. So the first pass
// allocates slot by slot, the second once, and after that nothing does unless counts grow. Nothing shrinks.
// With a capacity that is given, the arena is laid out by it once; what asks for more still gets memory of its own, but
// nothing grows: whoever can runs in rounds that fit. What forwards save lies one slot after another in blocks, each of
// what the capacity says of one forward: the rounds of a handle fill them together, and take what their rows need.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <vector>

#include "planner/plan/buffer_plan.hpp"
#include "topomoe/device.hpp"

namespace topomoe {

// Of what forwards of bounded memory save.
struct SavedBlock {
  DeviceMemory memory;
  std::size_t bytes = 0, used = 0;
};

// What one forward keeps for its backward, and what did not fit.
struct SlotMemory {
  struct Place {
    std::byte* data = nullptr;
    std::size_t bytes = 0;
  };
  std::vector<Place> saved;         // by slot
  std::vector<DeviceMemory> apart;  // by slot
  DeviceMemory arena;               // of saved slots
  std::size_t arena_bytes = 0;
  int laid_out = -1;       // by which of the plans that came one after another
  bool in_use = false;     // something lies in the arena: it cannot be laid out anew
  bool has_apart = false;  // of what is saved
  // Where memory is bounded, in place of the arena. Of blocks that rounds before this one had, how much of each.
  std::vector<std::shared_ptr<SavedBlock>> blocks;
  std::vector<std::size_t> used_before;
  // Goes on where a round of the same handle stopped.
  void go_on(const SlotMemory& round);
  // Nothing is saved after all: blocks are as those rounds left them.
  void undo();
  void forget();  // what is saved is no longer needed; gives nothing back, as lanes may still use it
};

class LayerArenas {
 public:
  // No capacity: it is found out.
  LayerArenas(const Schedule& schedule, Device& device, SlotBytes capacity = {});
  const Slots& slots() const { return slots_; }
  bool bounded() const { return bounded_; }
  std::size_t capacity(bool backward, std::size_t slot) const { return capacity_[backward][slot]; }

  // Arenas of the next pass, by what the passes before asked for. True if begin() will give memory back.
  bool lay_out(bool backward, const SlotMemory& memory);
  // A pass begins.
  void begin(bool backward, SlotMemory& memory);
  // At least so many bytes; asked once a pass. Of what the forward saved, a backward gets what is there.
  std::byte* get(bool backward, std::size_t slot, std::size_t bytes, SlotMemory& memory);
  // A pass is over: what it alone had is given back, if it had any.
  bool gives_back() const { return pass_apart_; }
  void end(bool backward, SlotMemory& memory);

 private:
  std::byte* save(std::size_t bytes, SlotMemory& memory);

  const Schedule& schedule_;
  Device& device_;
  const Slots slots_;
  std::array<std::vector<bool>, 2> saved_;  // [backward][slot]
  SlotBytes capacity_;
  BufferPlan plan_;
  int plans_ = 0;
  bool bounded_ = false, grown_ = false, pass_apart_ = false;
  DeviceMemory arena_;  // of whichever pass runs
  std::size_t arena_bytes_ = 0;
  std::vector<std::shared_ptr<SavedBlock>> blocks_;  // all; those of nobody else are free
};

}  // namespace topomoe
