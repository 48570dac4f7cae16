// Arenas of every schedule: whatever order its steps may run in, no step finds that another slot was written over what
// it reads.

#include "planner/plan/buffer_plan.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/drawn_counts.hpp"
#include "tests/support/layer_cases.hpp"

namespace topomoe::testing {
namespace {

std::size_t aligned(std::size_t n) { return (n + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment; }

// Runs a pass in a drawn order that `after` allows. Each slot owns its bytes from its first write on.
class Pass {
 public:
  Pass(const Schedule& s, bool backward, const BufferPlan& plan)
      : steps_(backward ? s.backward : s.forward), uses_(slot_uses(s, backward)), placed_(plan.of[backward]) {}

  int spoilt(Draw& draw) {
    std::vector<int> left(steps_.size());
    std::vector<std::size_t> ready;
    for (std::size_t i = 0; i < steps_.size(); ++i) {
      left[i] = static_cast<int>(steps_[i].after.size());
      if (left[i] == 0) ready.push_back(i);
    }
    std::vector<bool> written(uses_.size(), false);
    // A slot that nobody writes is there from the start.
    for (std::size_t slot = 0; slot < uses_.size(); ++slot)
      if (!uses_[slot].users.empty() && uses_[slot].writers.empty()) written[slot] = true;
    owners_.clear();
    int spoilt = 0;
    while (!ready.empty()) {
      const auto pick = static_cast<std::size_t>(draw.below(static_cast<int>(ready.size())));
      const std::size_t step = ready[pick];
      ready.erase(ready.begin() + static_cast<std::ptrdiff_t>(pick));
      for (std::size_t slot = 0; slot < uses_.size(); ++slot) {
        const auto& u = uses_[slot];
        if (!std::binary_search(u.users.begin(), u.users.end(), step)) continue;
        if (written[slot] && lost(slot)) ++spoilt;
        if (!std::binary_search(u.writers.begin(), u.writers.end(), step)) continue;
        written[slot] = true;
        own(slot);
      }
      for (std::size_t i = 0; i < steps_.size(); ++i)
        for (const int before : steps_[i].after)
          if (static_cast<std::size_t>(before) == step && --left[i] == 0) ready.push_back(i);
    }
    return spoilt;
  }

 private:
  bool meet(std::size_t a, std::size_t b) const {
    const PlacedSlot &p = placed_[a], &q = placed_[b];
    return p.saved == q.saved && p.bytes > 0 && q.bytes > 0 && p.offset < q.offset + q.bytes &&
           q.offset < p.offset + p.bytes;
  }
  // Whether another slot was written over this one after it.
  bool lost(std::size_t slot) const {
    for (auto it = owners_.rbegin(); it != owners_.rend() && *it != slot; ++it)
      if (meet(*it, slot)) return true;
    return false;
  }
  void own(std::size_t slot) { owners_.push_back(slot); }

  const std::vector<Step>& steps_;
  std::vector<SlotUse> uses_;
  const std::vector<PlacedSlot>& placed_;
  std::vector<std::size_t> owners_;  // in the order of writing
};

void expect_sound(const Schedule& s, const SlotBytes& capacity, Draw& draw) {
  SCOPED_TRACE(s.name);
  const BufferPlan plan = plan_buffers(s, capacity);
  std::size_t saved = 0;
  for (const bool backward : {false, true}) {
    const auto uses = slot_uses(s, backward);
    std::size_t sum = 0;
    for (std::size_t slot = 0; slot < uses.size(); ++slot) {
      const PlacedSlot& p = plan.of[backward][slot];
      const bool wanted = !uses[slot].users.empty();
      ASSERT_EQ(p.bytes, wanted ? capacity[backward][slot] : 0) << slot;
      EXPECT_EQ(p.offset % kSlotAlignment, 0U);
      EXPECT_LE(p.offset + p.bytes, p.saved ? plan.saved_bytes : plan.pass_bytes[backward]);
      (p.saved ? saved : sum) += aligned(p.bytes);
    }
    EXPECT_LE(plan.pass_bytes[backward], sum);
    Pass pass(s, backward, plan);
    for (int order = 0; order < 3; ++order) EXPECT_EQ(pass.spoilt(draw), 0) << (backward ? "backward" : "forward");
  }
  EXPECT_EQ(plan.saved_bytes, saved);  // for as long as a handle may live: nothing shared
}

TEST(BufferPlan, AnyOrderThatTheStepsAllow_NothingIsSpoilt) {
  Draw draw(1);
  int schedules = 0;
  for (const std::string_view transport : transport_names())
    for (const Fold& f : folds(8))
      for (const auto split : {TokenSplit::sliced, TokenSplit::replicated})
        for (const auto& [chunks, pieces] : {std::pair{1, 1}, {4, 1}, {4, 2}, {6, 6}}) {
          const DrawnCase drawn = draw_case(f, false, DType::f32, 8, draw);
          if (!applies(transport, drawn.c.layout, drawn.c.gpus_per_node)) continue;
          const Schedule s =
              build_schedule(transport, draw_backward(request(drawn.c.layout, split, chunks, pieces), draw));
          SlotBytes capacity;
          for (auto& of_pass : capacity)
            for (std::size_t slot = 0; slot < Slots(s).size(); ++slot)
              of_pass.push_back(static_cast<std::size_t>(draw.below(5000)));
          expect_sound(s, capacity, draw);
          ++schedules;
        }
  EXPECT_GT(schedules, 200);
}

// The check above must be able to fail: everything at the start of the arena is spoilt.
TEST(BufferPlan, AllAtTheSamePlace_IsFoundToBeSpoilt) {
  const Schedule s = build_schedule("flat", request(layout(4, 1, 1, 4), TokenSplit::sliced, 2));
  BufferPlan plan =
      plan_buffers(s, {std::vector<std::size_t>(Slots(s).size(), 100), std::vector<std::size_t>(Slots(s).size(), 100)});
  for (auto& of_pass : plan.of)
    for (PlacedSlot& p : of_pass) p.offset = 0;
  Draw draw(1);
  EXPECT_GT(Pass(s, false, plan).spoilt(draw), 0);
  EXPECT_GT(Pass(s, true, plan).spoilt(draw), 0);
}

// Sequence: x -> a -> b -> c -> y, each made of the one before. a and c may share, b with neither.
Schedule chain(bool waits) {
  Schedule s;
  for (const char* name : {"x", "a", "b", "c", "y"}) {
    Buffer b;
    b.name = name;
    b.storage = s.buffers.empty() || *name == 'y' ? Storage::caller : Storage::pass;
    s.buffers.push_back(b);
  }
  for (int i = 0; i < 4; ++i) {
    Step step;
    step.in = {whole(i)}, step.out = {whole(i + 1)};
    if (i > 0 && (waits || i != 2)) step.after = {i - 1};
    s.forward.push_back(step);
  }
  return s;
}

TEST(BufferPlan, Chain_FirstAndThirdShareBytes) {
  const SlotBytes capacity{std::vector<std::size_t>{256, 1000, 512, 700, 256, 0, 0, 0, 0},
                           std::vector<std::size_t>(9, 0)};
  const BufferPlan plan = plan_buffers(chain(true), capacity);
  EXPECT_EQ(plan.of[0][1].offset, plan.of[0][3].offset);
  EXPECT_EQ(plan.pass_bytes[0], 1024U + 512U);
  // Where b -> c does not wait for a -> b, nothing says that a is over.
  EXPECT_EQ(plan_buffers(chain(false), capacity).pass_bytes[0], 1024U + 512U + 768U);
}

// Sizes of a real layer, by its counts: sharing saves something, and the same sizes give the same places.
TEST(BufferPlan, SizesByCounts_ArenaIsSmallerThanItsSlots) {
  LayerCase c{
      .layout = layout(4, 1, 1, 4), .gpus_per_node = 2, .shape = {64, 32, 8, 2, true}, .tokens = {40, 9, 0, 17}};
  const Ids held = {Ids::value_type(80, 1), Ids::value_type(18, 2), {}, Ids::value_type(34, 7)};
  for (const std::string_view transport : transport_names()) {
    const Schedule s = build_schedule(transport, request(c.layout, TokenSplit::sliced, 4));
    if (!applies(transport, c.layout, c.gpus_per_node)) continue;
    const RankGroups groups(c.layout, c.gpus_per_node);
    const DrawnCounts counts(c, held, true, s.chunks);
    const RowWidths widths{64, 32, 2, 8, 4};
    const SlotBytes bytes = slot_bytes(s, groups, counts, widths, 0);
    const BufferPlan plan = plan_buffers(s, bytes), again = plan_buffers(s, bytes);
    std::size_t sum = 0;
    for (std::size_t slot = 0; slot < bytes[0].size(); ++slot) {
      EXPECT_EQ(plan.of[0][slot].offset, again.of[0][slot].offset);
      if (!plan.of[0][slot].saved) sum += aligned(bytes[0][slot]);
    }
    EXPECT_LT(plan.pass_bytes[0], sum) << transport;
    EXPECT_GT(plan.saved_bytes, 0U) << transport;
  }
}

}  // namespace
}  // namespace topomoe::testing
