// check(Schedule): everything that is built passes, and what one edit breaks is found.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>

#include "tests/planner/sample_plan.hpp"

namespace topomoe {
namespace {

Schedule flat(int n = 2) { return build_schedule("flat", {.tp = 2, .etp = 2, .ep = 4, .chunks = n, .pieces = n}); }

std::string first_violation(const Schedule& s) {
  const auto lines = check(s);
  return lines.empty() ? "passes" : lines.front();
}

std::size_t step_of(const std::vector<Step>& steps, StepKind kind) {
  const auto is_kind = [&](const Step& s) { return s.kind == kind; };
  return static_cast<std::size_t>(std::find_if(steps.begin(), steps.end(), is_kind) - steps.begin());
}

TEST(ScheduleCheck, Built_Passes) {
  int schedules = 0;
  each_schedule({1, 2, 3, 4, 8}, [&](const Schedule& s) {
    ++schedules;
    for (const std::string& line : check(s)) ADD_FAILURE() << s.name << ": " << line;
  });
  EXPECT_GT(schedules, 100);
}

TEST(ScheduleCheck, Violation_SaysWhereAndWhat) {
  Schedule s = flat();
  s.pieces = 3;
  EXPECT_EQ(first_violation(s), "pieces: 3: must divide chunks = 2");
  s = flat();
  s.buffers[1].alias = 1;
  EXPECT_EQ(first_violation(s), "buffer x.tokens: alias: 1 leads to no buffer");
  s = flat();
  s.buffers[0].name = "input";
  EXPECT_EQ(first_violation(s), "no buffer x of the caller's");
  s = flat();
  s.forward[0].in[0].buffer = 99;
  EXPECT_HAS(first_violation(s), "forward step 0 (route): in[0]: buffer 99: there are ");
  s = flat();
  s.forward[step_of(s.forward, StepKind::exchange)].group = Role::dp;
  EXPECT_HAS(first_violation(s), "(dispatch.0): group: dp: not a group of the layer");
  s = flat();
  s.forward[step_of(s.forward, StepKind::pack)].map = -1;
  EXPECT_HAS(first_violation(s), "(pack.0): map: pack needs one");
  s = flat();
  s.forward[step_of(s.forward, StepKind::expert_forward)].after.clear();
  EXPECT_HAS(first_violation(s), "(experts.0): does not wait for step sort.0, which writes what it reads of expert_in");
  s = flat();
  s.forward[step_of(s.forward, StepKind::combine)].out[0].chunks = Chunks{1, 2};
  EXPECT_HAS(first_violation(s), "(combine.0): y.tokens: not the rows that map pack.0 is from");
  s = flat();
  Step& expert = s.forward[step_of(s.forward, StepKind::expert_forward)];
  expert.out[1] = expert.out[0];
  EXPECT_HAS(first_violation(s), "(experts.0): out[1]: expert_out.0 holds hidden payload, needed are ffn payload");
  s = Schedule{};
  EXPECT_FALSE(check(s).empty());
}

TEST(ScheduleCheck, Fp8Rows_AreMovedAndConvertedOnly) {
  const Schedule good = build_schedule("flat", {.ep = 4, .fp8_dispatch = true});
  EXPECT_EQ(first_violation(good), "passes");
  EXPECT_EQ(good.name, "sliced flat n=1, fp8 out");
  const auto named = [](Schedule& s, std::string_view name) -> Buffer& {
    return *std::find_if(s.buffers.begin(), s.buffers.end(), [&](const Buffer& b) { return b.name == name; });
  };
  const auto step = [](Schedule& s, std::string_view name) -> Step& {
    return *std::find_if(s.forward.begin(), s.forward.end(), [&](const Step& t) { return t.name == name; });
  };
  Schedule s = good;
  named(s, "recv.0").element = Element::payload;
  EXPECT_HAS(first_violation(s), "(dispatch.0): in and out have rows of different widths");
  s = good;
  named(s, "x as fp8").element = Element::payload;
  EXPECT_HAS(first_violation(s),
             "(to fp8.0): converts hidden payload to hidden payload: one must be hidden payload and");
  s = good;
  step(s, "pack.0").weights = step(s, "combine.0").weights;
  EXPECT_HAS(first_violation(s), "(pack.0): x as fp8: fp8 rows are moved and converted, nothing else");
  s = good;
  for (const char* name : {"expert_out.0", "gate", "up"}) named(s, name).element = Element::fp8;
  EXPECT_HAS(first_violation(s),
             "buffer gate: element: hidden and (shared_)ffn rows are payload, sidecars are not, and");
  s = good;
  std::swap(step(s, "from fp8.0").in, step(s, "from fp8.0").out);
  EXPECT_HAS(first_violation(s), "(from fp8.0): reads chunk 0 of expert_in, which nothing has written");
}

TEST(ScheduleCheck, NoBackward_Passes) {
  Schedule s = flat();
  s.backward.clear();
  EXPECT_EQ(first_violation(s), "passes");
  s.forward.clear();
  EXPECT_EQ(first_violation(s), "y is not written in all chunks");
}

TEST(ScheduleCheck, MoreStepsThanCanBeFollowed_IsRefused) {
  Schedule s = flat();
  const Step route = s.forward[0];
  while (s.forward.size() < 20'001) {
    s.forward.push_back(route);
    s.forward.back().name += std::to_string(s.forward.size());
  }
  EXPECT_EQ(first_violation(s), "20001 steps in a pass: at most 20000");
}

TEST(ScheduleCheck, UnitsCutOrUneven_AreNamed) {
  ScheduleRequest request{.tp = 2, .etp = 2, .ep = 4, .chunks = 2, .pieces = 2, .backward_chunks = 3};
  const Schedule good = build_schedule("flat", request);
  EXPECT_EQ(good.chunks, 6);
  EXPECT_EQ(first_violation(good), "passes");
  const auto named = [](Schedule& s, std::string_view name) -> Buffer& {
    return *std::find_if(s.buffers.begin(), s.buffers.end(), [&](const Buffer& b) { return b.name == name; });
  };
  Schedule s = good;
  named(s, "recv.0").together = 2;  // of chunks [0, 3)
  EXPECT_EQ(first_violation(s), "buffer recv.0: together: 2: must divide chunks [0, 3) of rows in units");
  s = good;
  named(s, "recv.0").together = 1;  // what comes together would lie apart
  EXPECT_HAS(first_violation(s), "(dispatch.0): in and out have chunks in different units");
  s = good;
  for (Step& step : s.forward)
    if (step.name == "dispatch.0") step.out[0].chunks = Chunks{0, 1};
  EXPECT_HAS(first_violation(s), "(dispatch.0): out[0]: chunks [0, 1): recv.0 has them in units of 3");
}

TEST(ScheduleRequests, CutsThatDoNotFit_AreRefusedByName) {
  const auto refusal = [](const ScheduleRequest& r) { return message_of([&] { build_schedule("flat", r); }); };
  EXPECT_HAS(refusal({.chunks = 4, .pieces = 3}), "pieces: 3: must divide chunks = 4");
  EXPECT_HAS(refusal({.chunks = 2, .pieces = 2, .backward_chunks = 3, .backward_pieces = 2}),
             "pieces: 2: must divide chunks = 3");
  EXPECT_HAS(refusal({.chunks = 16, .pieces = 1, .backward_chunks = 17}), "chunks: 16 and 17");
  EXPECT_EQ(build_schedule("flat", {.chunks = 4, .pieces = 2, .backward_chunks = 6, .backward_pieces = 3}).name,
            "sliced flat n=4 r=2, back n=6 r=3");
}

TEST(ScheduleCheck, ManyViolations_AreNotAllListed) {
  Schedule s = flat(64);
  for (Step& step : s.forward) step.after.clear();
  EXPECT_EQ(check(s).size(), 100U);
}

// ---- Single random edits. Each says how many in a hundred must be found; those that are not leave a
// ---- schedule that may be slow or mean something else, but that check() cannot tell from a good one.

using Random = std::mt19937;

template <class T>
T& pick(std::vector<T>& from, Random& random) {
  return from[random() % from.size()];
}

Step& any_step(Schedule& s, Random& random) { return pick(random() % 2 ? s.forward : s.backward, random); }

template <class Condition>
Step& step_with(Schedule& s, Random& random, Condition condition) {
  for (;;)
    if (Step& step = any_step(s, random); condition(step)) return step;
}
View& any_view(Schedule& s, Random& random) {
  Step& step = step_with(s, random, [](const Step& t) { return !t.in.empty(); });
  return pick(step.out.empty() || random() % 2 ? step.in : step.out, random);
}
bool moves(const Step& s) { return s.kind == StepKind::exchange || s.kind == StepKind::all_gather; }

// Removes a step and lets the others forget it.
void remove_step(std::vector<Step>& steps, std::size_t at) {
  steps.erase(steps.begin() + static_cast<std::ptrdiff_t>(at));
  for (Step& s : steps) {
    std::erase(s.after, static_cast<int>(at));
    for (int& before : s.after) before -= before > static_cast<int>(at);
  }
}

struct Edit {
  const char* name;
  int least_percent;
  std::function<void(Schedule&, Random&)> apply;
};

const Edit kEdits[] = {
    {"view of no buffer", 100,
     [](Schedule& s, Random& r) { any_view(s, r).buffer = static_cast<int>(s.buffers.size()); }},
    {"view of another buffer", 95,
     [](Schedule& s, Random& r) {
       View& v = any_view(s, r);
       const auto count = static_cast<unsigned>(s.buffers.size());
       v.buffer = static_cast<int>((static_cast<unsigned>(v.buffer) + 1 + r() % (count - 1)) % count);
     }},
    {"chunks beyond n", 100,
     [](Schedule& s, Random& r) {
       any_view(s, r).chunks = Chunks{0, s.chunks + 1};
     }},
    {"empty chunks", 100,
     [](Schedule& s, Random& r) {
       any_view(s, r).chunks = Chunks{1, 1};
     }},
    {"view of the next chunk", 100,
     [](Schedule& s, Random& r) {
       for (View* v = &any_view(s, r);; v = &any_view(s, r))
         if (v->chunks && v->chunks->end - v->chunks->begin < s.chunks &&
             s.buffers[static_cast<std::size_t>(v->buffer)].symbol != Symbol::held) {
           const int length = v->chunks->end - v->chunks->begin, next = v->chunks->end % s.chunks;
           v->chunks = Chunks{next, next + length};
           return;
         }
     }},
    {"peer in a computing step", 100,
     [](Schedule& s, Random& r) {
       step_with(s, r, [](const Step& t) { return !t.in.empty() && !moves(t); }).in[0].sources = peer();
     }},
    {"exchange without a peer", 100,
     [](Schedule& s, Random& r) {
       Step& t = step_with(s, r, moves);
       t.out[0].sources.reset(), t.out[0].dests.reset(), t.out[0].split.reset(), t.out[0].block.reset();
     }},
    {"one view less", 100,
     [](Schedule& s, Random& r) { step_with(s, r, [](const Step& t) { return !t.in.empty(); }).in.pop_back(); }},
    {"one view more", 100, [](Schedule& s, Random& r) { any_step(s, r).out.push_back(whole(0)); }},
    {"another kind", 95,
     [](Schedule& s, Random& r) {
       Step& t = any_step(s, r);
       t.kind = static_cast<StepKind>((static_cast<unsigned>(t.kind) + 1 + r() % 15) % 16);
     }},
    {"no map", 100, [](Schedule& s, Random& r) { step_with(s, r, [](const Step& t) { return t.map >= 0; }).map = -1; }},
    {"another map", 100,
     [](Schedule& s, Random& r) {
       Step& t = step_with(s, r, [](const Step& u) { return u.map >= 0; });
       t.map = (t.map + 1) % std::max(2, static_cast<int>(s.maps.size()));  // where there is only one: to none
     }},
    {"repack the other way", 100,
     [](Schedule& s, Random& r) {
       for (auto* steps : {&s.forward, &s.backward})
         for (Step& t : *steps)
           if (t.kind == StepKind::repack) {
             t.transpose = !t.transpose;
             return;
           }
       s.forward[0].transpose = r() != 0;  // no repack in this one
     }},
    {"waits for itself", 100,
     [](Schedule& s, Random& r) {
       auto& steps = r() % 2 ? s.forward : s.backward;
       const std::size_t i = r() % steps.size();
       steps[i].after.push_back(static_cast<int>(i));
     }},
    {"waits for nothing", 90,
     [](Schedule& s, Random& r) {  // not: for counts, which the host has waited for
       step_with(s, r, [](const Step& t) {
         return !t.after.empty() && t.kind != StepKind::counts_exchange;
       }).after.clear();
     }},
    {"waits for one less", 25,
     [](Schedule& s, Random& r) {  // most are waited for through others as well
       Step& t = step_with(s, r, [](const Step& u) { return !u.after.empty(); });
       t.after.erase(t.after.begin() + static_cast<std::ptrdiff_t>(r() % t.after.size()));
     }},
    {"a step missing", 85,
     [](Schedule& s, Random& r) {  // not: an expert_wgrad, a delivery, a metadata exchange
       auto& steps = r() % 2 ? s.forward : s.backward;
       remove_step(steps, r() % steps.size());
     }},
    {"a step twice", 100,
     [](Schedule& s, Random& r) {
       auto& steps = r() % 2 ? s.forward : s.backward;
       steps.push_back(pick(steps, r));
     }},
    {"a buffer's name twice", 100,
     [](Schedule& s, Random& r) {
       const std::size_t i = 1 + r() % (s.buffers.size() - 1);
       s.buffers[i].name = s.buffers[i - 1].name;
     }},
    {"network lane for work, or the reverse", 100,
     [](Schedule& s, Random& r) {
       Step& t = any_step(s, r);
       t.lane = t.lane == Lane::intra_node || t.lane == Lane::inter_node ? Lane::copy : Lane::intra_node;
     }},
    {"group outside the layer", 100, [](Schedule& s, Random& r) { any_step(s, r).group = Role::pp; }},
    {"phase of the other pass", 100,
     [](Schedule& s, Random& r) {
       const bool forward = r() % 2;
       pick(forward ? s.forward : s.backward, r).phase = forward ? StepPhase::dgrad : StepPhase::forward;
     }},
    {"no slices", 100,
     [](Schedule& s, Random& r) {
       step_with(s, r, [](const Step& t) { return t.kind == StepKind::counts_exchange; }).slices.clear();
     }},
    {"weights that are no weights", 100, [](Schedule& s, Random& r) { any_step(s, r).weights = whole(0); }},
    {"alias of no buffer", 100,
     [](Schedule& s, Random& r) { pick(s.buffers, r).alias = static_cast<int>(s.buffers.size()); }},
    {"alias in a circle", 100, [](Schedule& s, Random&) { s.buffers[0].alias = 1; }},
    {"other columns", 90,
     [](Schedule& s, Random& r) {
       Buffer& b = pick(s.buffers, r);
       b.columns = static_cast<Columns>((static_cast<unsigned>(b.columns) + 1 + r() % 3) % 4);
     }},
    {"other element", 100,
     [](Schedule& s, Random& r) {
       Buffer& b = pick(s.buffers, r);
       b.element = b.element == Element::payload ? Element::f32 : Element::payload;
     }},
    {"other symbol", 90,
     [](Schedule& s, Random& r) {
       Buffer& b = pick(s.buffers, r);
       b.symbol = static_cast<Symbol>((static_cast<unsigned>(b.symbol) + 1 + r() % 4) % 5);
     }},
    {"other order", 70,
     [](Schedule& s, Random& r) {
       Buffer& b = pick(s.buffers, r);
       b.order = static_cast<Order>((static_cast<unsigned>(b.order) + 1 + r() % 3) % 4);
     }},
    {"saved no longer", 90,
     [](Schedule& s, Random& r) {
       for (Buffer* b = &pick(s.buffers, r);; b = &pick(s.buffers, r))
         if (b->storage == Storage::saved) {
           b->storage = Storage::pass;
           return;
         }
     }},
    {"sources that are a peer", 100, [](Schedule& s, Random& r) { pick(s.buffers, r).sources.base = Who::peer; }},
};

TEST(ScheduleCheck, RandomEdit_IsFound) {
  std::vector<Schedule> schedules;
  each_schedule({2, 4}, [&](const Schedule& s) { schedules.push_back(s); });
  Random random(7);
  for (const Edit& edit : kEdits) {
    const int tries = 100;
    int found = 0;
    std::string missed;
    for (int i = 0; i < tries; ++i) {
      Schedule s = pick(schedules, random);
      edit.apply(s, random);
      const bool bad = !check(s).empty();
      found += bad;
      if (!bad && missed.empty()) missed = s.name;
    }
    EXPECT_GE(100 * found, edit.least_percent * tries)
        << edit.name << ": found " << found << " of " << tries << ", missed in " << missed;
    RecordProperty(edit.name, 100 * found / tries);
  }
}

}  // namespace
}  // namespace topomoe
