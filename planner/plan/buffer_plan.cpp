#include "planner/plan/buffer_plan.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace topomoe {
namespace {

// A set of steps of one pass.
class StepSet {
 public:
  StepSet(std::size_t steps, bool full) : words_((steps + 63) / 64, full ? ~std::uint64_t{0} : 0) {}
  void add(std::size_t step) { words_[step / 64] |= std::uint64_t{1} << (step % 64); }
  void add(const StepSet& other) {
    for (std::size_t w = 0; w < words_.size(); ++w) words_[w] |= other.words_[w];
  }
  void keep(const StepSet& other) {
    for (std::size_t w = 0; w < words_.size(); ++w) words_[w] &= other.words_[w];
  }
  bool within(const StepSet& other) const {
    for (std::size_t w = 0; w < words_.size(); ++w)
      if ((words_[w] & ~other.words_[w]) != 0) return false;
    return true;
  }

 private:
  std::vector<std::uint64_t> words_;
};

std::vector<StepSet> ancestors(const std::vector<Step>& steps) {
  std::vector<StepSet> out;
  for (const Step& s : steps) {
    StepSet set(steps.size(), false);
    for (const int before : s.after) {
      set.add(out[static_cast<std::size_t>(before)]);
      set.add(static_cast<std::size_t>(before));
    }
    out.push_back(std::move(set));
  }
  return out;
}

std::size_t aligned(std::size_t bytes) { return (bytes + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment; }

struct Lifetime {
  std::size_t slot, bytes;
  StepSet users;  // all of them
  StepSet over;   // what is over when the first writer starts
};

// The largest first, each as low as those allow that it may not share bytes with.
std::size_t place(std::vector<Lifetime>& lives, std::vector<PlacedSlot>& out) {
  std::stable_sort(lives.begin(), lives.end(), [](const Lifetime& a, const Lifetime& b) { return a.bytes > b.bytes; });
  std::size_t end = 0;
  std::vector<std::pair<std::size_t, std::size_t>> taken;
  for (std::size_t i = 0; i < lives.size(); ++i) {
    taken.clear();
    for (std::size_t j = 0; j < i; ++j)
      if (!lives[i].users.within(lives[j].over) && !lives[j].users.within(lives[i].over)) {
        const PlacedSlot& p = out[lives[j].slot];
        taken.emplace_back(p.offset, p.offset + aligned(p.bytes));
      }
    std::sort(taken.begin(), taken.end());
    std::size_t offset = 0;
    for (const auto& [first, last] : taken) {
      if (offset + aligned(lives[i].bytes) <= first) break;
      offset = std::max(offset, last);
    }
    out[lives[i].slot] = {offset, lives[i].bytes, false};
    end = std::max(end, offset + aligned(lives[i].bytes));
  }
  return end;
}

bool built_in(const std::vector<Step>& steps, int map) {
  return std::any_of(steps.begin(), steps.end(),
                     [&](const Step& s) { return s.kind == StepKind::index && s.map == map; });
}

}  // namespace

std::vector<SlotUse> slot_uses(const Schedule& schedule, bool backward) {
  const Slots slots(schedule);
  std::vector<SlotUse> uses(slots.size());
  const std::vector<Step>& steps = backward ? schedule.backward : schedule.forward;
  const auto use = [&](std::size_t slot, std::size_t step, bool writes) {
    SlotUse& u = uses[slot];
    if (u.users.empty() || u.users.back() != step) u.users.push_back(step);
    if (writes && (u.writers.empty() || u.writers.back() != step)) u.writers.push_back(step);
  };
  const auto use_buffer = [&](const View& view, std::size_t step, bool writes) {
    if (view.buffer < 0) return;
    const int root = root_of(schedule, view.buffer);
    const Storage storage = schedule.buffers[static_cast<std::size_t>(root)].storage;
    if (storage == Storage::caller || (backward && storage == Storage::saved)) return;
    use(slots.of_buffer(root), step, writes);
    uses[slots.of_buffer(root)].saved = storage == Storage::saved;
  };
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const Step& s = steps[i];
    for (const View& v : s.in) use_buffer(v, i, false);
    for (const View& v : s.out) use_buffer(v, i, true);
    use_buffer(s.weights, i, false);
    if (s.map >= 0) {
      const bool builds = s.kind == StepKind::index;
      if (builds) use_buffer(schedule.maps[static_cast<std::size_t>(s.map)].ids, i, false);
      const bool of_forward = built_in(schedule.forward, s.map);
      if (!backward || !of_forward)
        for (const auto part : {Slots::position, Slots::source_row, Slots::source_factor}) {
          use(slots.of_map(s.map, part), i, builds);
          // A handle's backward may come after another forward.
          uses[slots.of_map(s.map, part)].saved =
              of_forward && std::any_of(schedule.backward.begin(), schedule.backward.end(),
                                        [&](const Step& later) { return later.map == s.map; });
        }
    }
    if ((s.kind == StepKind::pack && s.weights.buffer >= 0) || s.kind == StepKind::route_backward ||
        s.kind == StepKind::mix_backward || (s.kind == StepKind::route && !backward))
      use(slots.of_scratch(backward, i), i, true);
  }
  return uses;
}

BufferPlan plan_buffers(const Schedule& schedule, const SlotBytes& capacity) {
  BufferPlan plan;
  for (const bool backward : {false, true}) {
    const std::vector<Step>& steps = backward ? schedule.backward : schedule.forward;
    const auto uses = slot_uses(schedule, backward);
    const auto over = ancestors(steps);
    auto& placed = plan.of[backward];
    placed.resize(uses.size());
    std::vector<Lifetime> lives;
    for (std::size_t slot = 0; slot < uses.size(); ++slot) {
      const SlotUse& u = uses[slot];
      const std::size_t bytes = capacity[backward][slot];
      if (u.users.empty() || bytes == 0) continue;
      if (u.saved) {
        placed[slot] = {plan.saved_bytes, bytes, true};
        plan.saved_bytes += aligned(bytes);
        continue;
      }
      Lifetime life{slot, bytes, StepSet(steps.size(), false), StepSet(steps.size(), true)};
      for (const std::size_t step : u.users) life.users.add(step);
      // What no step writes somebody else does, before the pass.
      if (u.writers.empty()) life.over = StepSet(steps.size(), false);
      for (const std::size_t step : u.writers) life.over.keep(over[step]);
      lives.push_back(std::move(life));
    }
    plan.pass_bytes[backward] = place(lives, placed);
  }
  return plan;
}

std::vector<SlotSize> slot_sizes(const Schedule& schedule, const RowWidths& widths) {
  const Slots slots(schedule);
  constexpr double kIndexBytes = 4;
  constexpr double kMostGates = 2;  // of a shared expert
  std::vector<SlotSize> out;
  for (const bool backward : {false, true}) {
    const std::vector<Step>& steps = backward ? schedule.backward : schedule.forward;
    const auto uses = slot_uses(schedule, backward);
    const auto add = [&](std::size_t slot, const View& rows, double row_bytes, double fixed_bytes = 0) {
      if (!uses[slot].users.empty()) out.push_back({backward, slot, rows, row_bytes, fixed_bytes});
    };
    for (std::size_t b = 0; b < schedule.buffers.size(); ++b) {
      View all;
      all.buffer = static_cast<int>(b);
      add(b, all, row_bytes(schedule.buffers[b], widths));
    }
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const Step& s = steps[i];
      if (s.kind == StepKind::index) {
        const IndexMap& map = schedule.maps[static_cast<std::size_t>(s.map)];
        add(slots.of_map(s.map, Slots::position), map.from, (map.ids.buffer < 0 ? 1 : widths.top_k) * kIndexBytes);
        for (const auto part : {Slots::source_row, Slots::source_factor})
          add(slots.of_map(s.map, part), map.to, kIndexBytes);
      } else if (s.kind == StepKind::pack && s.weights.buffer >= 0) {
        add(slots.of_scratch(backward, i), s.out[0], sizeof(float));
      } else if (s.kind == StepKind::route_backward) {
        // Logits' gradients, those of scores, and ids of experts where the schedule's are of copies.
        add(slots.of_scratch(backward, i), s.in[0], (widths.experts + widths.top_k) * sizeof(float),
            widths.experts * sizeof(float));
      } else if (s.kind == StepKind::route) {
        add(slots.of_scratch(backward, i), s.in[0], 0, (widths.experts + 1) * sizeof(float));
      } else if (s.kind == StepKind::mix_backward) {
        add(slots.of_scratch(backward, i), s.in[0], kMostGates * sizeof(float));
      }
    }
  }
  return out;
}

SlotBytes slot_bytes(const Schedule& schedule, const RankGroups& groups, const CountSource& counts,
                     const RowWidths& widths, int rank) {
  SlotBytes out;
  for (auto& pass : out) pass.assign(Slots(schedule).size(), 0);
  for (const SlotSize& s : slot_sizes(schedule, widths))
    out[s.backward][s.slot] =
        static_cast<std::size_t>(std::ceil(s.bytes(rows_of(schedule, s.rows, groups, counts, rank, rank))));
  return out;
}

}  // namespace topomoe
