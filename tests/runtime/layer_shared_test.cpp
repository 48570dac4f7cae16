// The shared expert, added or mixed in: its results, and the steps of a schedule that serve it.

#include <gtest/gtest.h>

#include <algorithm>

#include "planner/plan/schedule_part.hpp"
#include "planner/schedules/build.hpp"
#include "tests/support/whole_layer.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/error.hpp"

namespace topomoe::testing {
namespace {

TEST(LayerShared, EachGateAndIntake_MatchesTheDefinition) {
  for (const SharedGate gate : {SharedGate::none, SharedGate::sigmoid, SharedGate::residual})
    expect_definition(each_intake(with_shared(whole_shape(), gate), 2, 3));
}

TEST(LayerShared, EachTransport_MatchesTheDefinition) {
  LayerShape s = deepseek_v3(with_shared(whole_shape(), SharedGate::residual));
  s.router.balance_loss = 0.5, s.router.z_loss = 0.1F;
  expect_definition(under_each_transport(each_intake(s, 3)));
}

TEST(LayerShared, Bf16_MatchesTheDefinition) {
  for (const SharedGate gate : {SharedGate::none, SharedGate::sigmoid, SharedGate::residual}) {
    LayerShape s = with_shared(whole_shape(DType::bf16), gate);
    s.router.balance_loss = 0.5, s.router.z_loss = 0.1F;
    expect_definition(each_intake(s));
  }
}

TEST(LayerShared, Steps_FillTheComputeLaneBetweenFirstDispatchAndExperts) {
  for (const Transport& t : transports()) {
    const ScheduleRequest r{.tp = 2, .ep = 4, .chunks = 4, .pieces = 2, .shared = SharedPart::added};
    const Schedule s = build_schedule(t.name, r);
    for (const auto* steps : {&s.forward, &s.backward}) {
      const auto first = [&](auto is) { return std::find_if(steps->begin(), steps->end(), is) - steps->begin(); };
      const auto sent = first([](const Step& step) {
        return (step.kind == StepKind::exchange || step.kind == StepKind::all_gather) && step.chunk == 0 &&
               !step.beside;
      });
      const auto shared = first([](const Step& step) {
        return step.kind == StepKind::shared_forward || step.kind == StepKind::shared_dgrad;
      });
      const auto experts = first([](const Step& step) {
        return step.kind == StepKind::expert_forward || step.kind == StepKind::expert_dgrad;
      });
      EXPECT_LT(sent, shared) << t.name;
      EXPECT_LT(shared, experts) << t.name;
      EXPECT_EQ((*steps)[static_cast<std::size_t>(shared)].lane, Lane::compute);
    }
  }
}

// The parts that dispatch() and combine() run are those of the same schedule without a shared expert.
TEST(LayerShared, PartsOfASchedule_LeaveItOut) {
  for (const Transport& t : transports())
    for (const bool sp : {false, true}) {
      ScheduleRequest r{.tp = 2, .ep = 4, .sequence_parallel = sp, .chunks = 2, .pieces = 2};
      const Schedule plain = build_schedule(t.name, r);
      r.shared = SharedPart::added;
      const Schedule with = build_schedule(t.name, r);
      for (const Part part : {Part::dispatch, Part::combine, Part::exchange}) {
        const auto names = [&](const Schedule& s) {
          std::vector<std::string> out;
          const auto chosen = steps_of(s, part);
          for (std::size_t i = 0; i < chosen.size(); ++i)
            if (chosen[i] != 0) out.push_back(s.forward[i].name);
          return out;
        };
        EXPECT_EQ(names(with), names(plain)) << t.name;
      }
    }
}

// Taking the shared expert out of a schedule gives the schedule that is built without one.
TEST(LayerShared, WithoutIt_ASchedulesStepsAreThoseOfOneBuiltWithoutIt) {
  for (const Transport& t : transports())
    for (const SharedPart shared : {SharedPart::added, SharedPart::mixed})
      for (const int tp : {1, 2})
        for (const bool sp : {false, true})
          for (const TokenSplit split : {TokenSplit::sliced, TokenSplit::replicated}) {
            ScheduleRequest r{split, tp, 1, 4, sp && tp > 1, 2, 1, 3, 3};
            const Schedule plain = build_schedule(t.name, r);
            r.shared = shared;
            const Schedule stripped = without_shared(build_schedule(t.name, r));
            EXPECT_EQ(check(stripped), std::vector<std::string>());
            for (const auto& [a, b] :
                 {std::pair{&stripped.forward, &plain.forward}, {&stripped.backward, &plain.backward}}) {
              ASSERT_EQ(a->size(), b->size());
              for (std::size_t i = 0; i < a->size(); ++i) {
                EXPECT_EQ((*a)[i].name, (*b)[i].name);
                // What a lost step waited for may be waited for once more.
                EXPECT_TRUE(std::includes((*a)[i].after.begin(), (*a)[i].after.end(), (*b)[i].after.begin(),
                                          (*b)[i].after.end()))
                    << (*a)[i].name;
              }
            }
          }
}

TEST(LayerShared, ShapeAndScheduleThatDisagree_AreRefused) {
  const auto refusal = [](const LayerShape& shape, SharedPart part) -> std::string {
    std::string why;
    run_inproc(1, [&](Communicator& communicator) {
      const auto device = make_cpu_device();
      try {
        MoeLayer layer(build_schedule("flat", {.shared = part}), layout(1, 1, 1, 1), 1, shape, communicator, *device);
        layer.forward(nullptr, 0, nullptr, {});
      } catch (const InvalidInput& e) {
        why = e.what();
      }
    });
    return why;
  };
  const LayerShape plain = whole_shape(), added = with_shared(plain, SharedGate::none),
                   mixed = with_shared(plain, SharedGate::sigmoid);
  EXPECT_NE(refusal(added, SharedPart::none).find("without a shared expert"), std::string::npos);
  EXPECT_NE(refusal(plain, SharedPart::added).find("for a shared expert that is added"), std::string::npos);
  EXPECT_NE(refusal(added, SharedPart::mixed).find("with a gate"), std::string::npos);
  EXPECT_NE(refusal(added, SharedPart::added).find("weights.shared_gate"), std::string::npos);
  EXPECT_NE(refusal(mixed, SharedPart::added).find("that is added"), std::string::npos);
  LayerShape bad = plain;
  bad.router.groups = 3;
  EXPECT_NE(refusal(bad, SharedPart::none).find("shape.router: groups"), std::string::npos);
}

}  // namespace
}  // namespace topomoe::testing
