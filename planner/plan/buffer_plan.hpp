// Where everything that a layer keeps while its schedule runs lies in memory: one arena a pass, and one for what the
// forward saves for the backward. Pure arithmetic over a schedule and sizes.
//
// Model: two slots share bytes only if every step that uses the first is over, through `after`, when any step that
// writes the second starts. Then sharing adds no wait and costs no overlap, whatever the lanes do. Saved slots share
// nothing: until when a handle lives nobody knows. Ignored: a saved slot's bytes once its last reader of the backward
// is over; other orders of steps that would need less.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "topomoe/schedule.hpp"

namespace topomoe {

// Numbers of all that needs memory: buffers (those that are no alias), three arrays a map, and the scratch of a step.
class Slots {
 public:
  explicit Slots(const Schedule& s)
      : buffers_(s.buffers.size()), maps_(s.maps.size()), forward_(s.forward.size()), backward_(s.backward.size()) {}
  enum MapPart : std::size_t { position, source_row, source_factor };
  std::size_t of_buffer(int root) const { return static_cast<std::size_t>(root); }
  std::size_t of_map(int map, MapPart part) const { return buffers_ + 3 * static_cast<std::size_t>(map) + part; }
  std::size_t of_scratch(bool backward, std::size_t step) const {
    return buffers_ + 3 * maps_ + (backward ? forward_ : 0) + step;
  }
  std::size_t size() const { return buffers_ + 3 * maps_ + forward_ + backward_; }

 private:
  std::size_t buffers_, maps_, forward_, backward_;
};

// Which steps of a pass use and write each slot, and whether it outlives the forward.
struct SlotUse {
  std::vector<std::size_t> users, writers;  // ascending steps; writers are users too
  bool saved = false;
};
// By slot. The caller's buffers, and what a backward finds saved, are used by nobody: they take no room in the pass.
std::vector<SlotUse> slot_uses(const Schedule& schedule, bool backward);

struct PlacedSlot {
  std::size_t offset = 0, bytes = 0;  // no bytes: not placed
  bool saved = false;
};
struct BufferPlan {
  std::array<std::vector<PlacedSlot>, 2> of;    // [backward][slot]; saved ones are of the forward
  std::array<std::size_t, 2> pass_bytes{0, 0};  // [backward]
  std::size_t saved_bytes = 0;
};
constexpr std::size_t kSlotAlignment = 256;  // of cudaMalloc, and more than a cache line

// What a slot may hold at most, in bytes, by pass: of those that both passes use (each for itself) either may be
// larger.
using SlotBytes = std::array<std::vector<std::size_t>, 2>;  // [backward][slot]
BufferPlan plan_buffers(const Schedule& schedule, const SlotBytes& capacity);

// What each slot must hold: rows of a view, bytes of one, and bytes whatever the rows.
struct SlotSize {
  bool backward;
  std::size_t slot;
  View rows;
  double row_bytes, fixed_bytes;
  double bytes(double of_rows) const { return of_rows * row_bytes + fixed_bytes; }
};
std::vector<SlotSize> slot_sizes(const Schedule& schedule, const RowWidths& widths);
// Bytes of each slot by counts; expectations are rounded up.
SlotBytes slot_bytes(const Schedule& schedule, const RankGroups& groups, const CountSource& counts,
                     const RowWidths& widths, int rank);

}  // namespace topomoe
