#include "planner/plan/schedule_part.hpp"

#include <gtest/gtest.h>

#include "planner/schedules/build.hpp"

namespace topomoe {
namespace {

std::vector<std::string> names(const Schedule& s, Part part) {
  std::vector<std::string> out;
  const auto chosen = steps_of(s, part);
  for (std::size_t i = 0; i < chosen.size(); ++i)
    if (chosen[i] != 0) out.push_back(s.forward[i].name);
  return out;
}

Schedule built(const char* transport, int tp, int ep, int chunks) {
  return build_schedule(transport,
                        {.split = TokenSplit::sliced, .tp = tp, .ep = ep, .chunks = chunks, .pieces = chunks});
}

TEST(SchedulePart, Exchange_OfFlat_IsItsDispatches) {
  EXPECT_EQ(names(built("flat", 1, 4, 2), Part::exchange), (std::vector<std::string>{"dispatch.0", "dispatch.1"}));
}

TEST(SchedulePart, Exchange_OfTwoHops_HasTheTurnBetween) {
  EXPECT_EQ(names(built("two_level", 1, 4, 1), Part::exchange),
            (std::vector<std::string>{"dispatch in node.0", "turn.0", "dispatch.0"}));
}

// Whom a token is for is not known to who passes it on: ids and weights go along, and say where to.
TEST(SchedulePart, Exchange_OfNodeDedup_TakesIdsAndWeightsAlong) {
  EXPECT_EQ(
      names(built("node_dedup", 1, 4, 1), Part::exchange),
      (std::vector<std::string>{"cross.0", "ids cross.0", "weights cross.0", "index ranks.0", "fan out.0", "deliver.0",
                                "ids fan out.0", "ids deliver.0", "weights fan out.0", "weights deliver.0"}));
}

TEST(SchedulePart, DispatchExpertsAndCombine_AreTheWhole_EveryTransport) {
  for (const Transport& t : transports())
    for (const int tp : {1, 2})
      for (const int etp : {1, 2})
        for (const TokenSplit split : {TokenSplit::sliced, TokenSplit::replicated}) {
          const ScheduleRequest r{
              .split = split, .tp = tp, .etp = etp == 2 ? tp : 1, .ep = 4, .chunks = 4, .pieces = 2};
          if (!t.refuses(r).empty()) continue;
          const Schedule s = build_schedule(std::string(t.name), r);
          const auto dispatch = steps_of(s, Part::dispatch), combine = steps_of(s, Part::combine),
                     exchange = steps_of(s, Part::exchange);
          int travel = 0;
          for (std::size_t i = 0; i < s.forward.size(); ++i) {
            const bool expert = s.forward[i].kind == StepKind::expert_forward;
            EXPECT_EQ(dispatch[i] + combine[i] + expert, 1) << s.name << ": " << s.forward[i].name;
            EXPECT_LE(exchange[i], dispatch[i]) << s.name << ": " << s.forward[i].name;
            const bool counts = s.forward[i].kind == StepKind::counts_exchange;
            EXPECT_FALSE(exchange[i] && counts) << s.name << ": " << s.forward[i].name;
            travel += exchange[i];
            for (const int before : s.forward[i].after)  // what dispatch waits for is of dispatch
              EXPECT_GE(dispatch[static_cast<std::size_t>(before)], dispatch[i]) << s.forward[i].name;
          }
          EXPECT_GE(travel, 4) << s.name;
        }
}

}  // namespace
}  // namespace topomoe
