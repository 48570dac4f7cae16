// Several schedules of one layer, and traces of its steps, from C.

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tests/runtime/c_api_world.hpp"
#include "tests/support/tiny_plan.hpp"

namespace topomoe::testing {
namespace {

using Json = nlohmann::json;

// The tiny plan's layer, to go another way: other steps, chunks and groups.
const Plan& two_level() {
  static const Plan plan = planned([](PlanRequest& r) { r.transport = "two_level", r.chunks = 1; });
  return plan;
}
const Plan& replicated() {
  static const Plan plan = planned([](PlanRequest& r) { r.split = "replicated", r.chunks = 3; });
  return plan;
}

// A layer of the tiny plan, which may switch to the schedules of others.
struct OpenLayer {
  topomoe_device* device = nullptr;
  topomoe_layer* layer = nullptr;
  topomoe_status status;
  OpenLayer(const topomoe_plan* plan, topomoe_communicator* ranks, const std::vector<const topomoe_plan*>& others,
            double memory_tokens = 0) {
    topomoe_layer_config config = TOPOMOE_LAYER_CONFIG_INIT;
    config.dtype = TOPOMOE_F32, config.memory_tokens = memory_tokens;
    config.others = others.data(), config.other_count = static_cast<std::int32_t>(others.size());
    EXPECT_EQ(topomoe_device_create(nullptr, &device), TOPOMOE_OK) << topomoe_last_error();
    status = topomoe_layer_create(plan, ranks, device, &config, &layer);
  }
  ~OpenLayer() { topomoe_layer_free(layer), topomoe_device_free(device); }
  OpenLayer(const OpenLayer&) = delete;
  OpenLayer& operator=(const OpenLayer&) = delete;

  topomoe_handle* forward(PlannedTensors& t) const {
    const topomoe_weights w = t.c_weights();
    topomoe_handle* handle = nullptr;
    EXPECT_EQ(topomoe_forward(layer, t.x.data(), t.rows, t.y.data(), &w, &handle), TOPOMOE_OK) << topomoe_last_error();
    return handle;
  }
  void backward(PlannedTensors& t, topomoe_handle* handle) const {
    const topomoe_weights w = t.c_weights();
    const topomoe_gradients g = t.c_gradients();
    EXPECT_EQ(topomoe_backward(layer, handle, t.dy.data(), t.dx.data(), &w, &g), TOPOMOE_OK) << topomoe_last_error();
    topomoe_handle_free(handle);
  }
  void step(PlannedTensors& t) const { backward(t, forward(t)); }
};

std::vector<std::vector<float>> written_alone(const Plan& plan, const CRank& r) {
  const topomoe_plan c{std::make_shared<const Plan>(plan)};
  const OpenLayer alone(&c, r.ranks, {});
  PlannedTensors t(plan, r.rank);
  alone.step(t);
  return t.written();
}

// In every order, and with forwards of all of them outstanding: the bits of layers that have one schedule each. The
// plans go before the layer does.
TEST(CApiSchedules, SwitchedFromStepToStep_HaveTheBitsOfSeparateLayers) {
  const std::array plans{tiny(), two_level(), replicated()};
  on_c_ranks(tiny(), [&](const CRank& r) {
    std::vector<std::vector<std::vector<float>>> expected;
    for (const Plan& plan : plans) expected.push_back(written_alone(plan, r));
    EXPECT_NE(expected[0][0], std::vector<float>(expected[0][0].size()));

    std::optional<topomoe_plan> b{{std::make_shared<const Plan>(plans[1])}},
        c{{std::make_shared<const Plan>(plans[2])}};
    const OpenLayer open(r.plan, r.ranks, {&*b, &*c});
    ASSERT_EQ(open.status, TOPOMOE_OK) << topomoe_last_error();
    b.reset(), c.reset();
    for (const int way : {0, 1, 2, 2, 0}) {
      PlannedTensors t(tiny(), r.rank);
      EXPECT_EQ(topomoe_layer_set_schedule(open.layer, way), TOPOMOE_OK) << topomoe_last_error();
      open.step(t);
      EXPECT_TRUE(t.written() == expected[static_cast<std::size_t>(way)]) << way;
    }
    std::vector<PlannedTensors> t(3, PlannedTensors(tiny(), r.rank));
    std::vector<topomoe_handle*> handles;
    for (const std::size_t way : {0U, 1U, 2U}) {
      EXPECT_EQ(topomoe_layer_set_schedule(open.layer, static_cast<std::int32_t>(way)), TOPOMOE_OK);
      handles.push_back(open.forward(t[way]));
    }
    for (const std::size_t way : {1U, 0U, 2U}) open.backward(t[way], handles[way]);
    for (const std::size_t way : {0U, 1U, 2U}) EXPECT_TRUE(t[way].written() == expected[way]) << way;
  });
}

// 80 tokens and room for 16: rounds of each schedule, counted together, with the output of one pass.
TEST(CApiSchedules, BoundedMemory_HoldsForEach) {
  on_c_ranks(tiny(), [&](const CRank& r) {
    const topomoe_plan other{std::make_shared<const Plan>(two_level())};
    const OpenLayer whole(r.plan, r.ranks, {&other}), bounded(r.plan, r.ranks, {&other}, 16);
    std::int64_t rounds = 0, before = 0;
    for (const int way : {0, 1}) {
      PlannedTensors expected(tiny(), r.rank, 80), t(tiny(), r.rank, 80);
      for (const auto& [open, tensors] : {std::pair{&whole, &expected}, {&bounded, &t}}) {
        EXPECT_EQ(topomoe_layer_set_schedule(open->layer, way), TOPOMOE_OK);
        topomoe_handle_free(open->forward(*tensors));
      }
      EXPECT_EQ(t.y, expected.y);
      EXPECT_EQ(topomoe_layer_overflow_rounds(bounded.layer, &rounds), TOPOMOE_OK);
      EXPECT_GE(rounds, before + 4);
      before = rounds;
    }
    EXPECT_EQ(topomoe_layer_overflow_rounds(whole.layer, &rounds), TOPOMOE_OK);
    EXPECT_EQ(rounds, 0);
  });
}

TEST(CApiSchedules, PlansOfAnotherLayer_AreNamed) {
  const auto refused = [](const CRank& r, const std::vector<const topomoe_plan*>& others) -> std::string {
    const OpenLayer open(r.plan, r.ranks, others);
    EXPECT_EQ(open.status, TOPOMOE_INVALID_INPUT);
    EXPECT_EQ(open.layer, nullptr);
    return topomoe_last_error();
  };
  on_c_ranks(tiny(), [&](const CRank& r) {
    const topomoe_plan wider{std::make_shared<const Plan>(planned([](PlanRequest& p) { p.model.expert_ffn = 48; }))};
    const topomoe_plan folded{std::make_shared<const Plan>(planned([](PlanRequest& p) {
      p.fix = {"tp=1", "ep=4", "etp=1", "pp=1", "cp=1"};
    }))};
    EXPECT_EQ(
        refused(r, {r.plan, &wider}),
        "config.others[1]: a layer of other sizes, placement or router: plans of one layer differ in its schedule "
        "alone");
    EXPECT_EQ(refused(r, {&folded}), "config.others[0]: another layout, " + name(folded.value->layout) +
                                         ": plans of one layer differ in its schedule alone");
    EXPECT_EQ(refused(r, {nullptr}), "config.others[0]: null: a pointer is needed");

    const OpenLayer open(r.plan, r.ranks, {r.plan});
    EXPECT_EQ(topomoe_layer_set_schedule(open.layer, 2), TOPOMOE_INVALID_INPUT);
    EXPECT_STREQ(topomoe_last_error(), "schedule: 2: 0 to 1");
    EXPECT_EQ(topomoe_layer_set_schedule(open.layer, -1), TOPOMOE_INVALID_INPUT);
    EXPECT_EQ(topomoe_layer_set_schedule(open.layer, 1), TOPOMOE_OK);

    topomoe_layer_config config = TOPOMOE_LAYER_CONFIG_INIT;
    topomoe_layer* layer = nullptr;
    topomoe_dispatcher* dispatcher = nullptr;
    config.other_count = 1;
    EXPECT_EQ(topomoe_layer_create(r.plan, r.ranks, open.device, &config, &layer), TOPOMOE_INVALID_INPUT);
    EXPECT_STREQ(topomoe_last_error(), "config.others: null: a pointer is needed");
    EXPECT_EQ(topomoe_dispatcher_create(r.plan, r.ranks, open.device, &config, &dispatcher), TOPOMOE_INVALID_INPUT);
    EXPECT_STREQ(topomoe_last_error(), "config.other_count: 1: 0: a dispatcher goes by one schedule");
    config.other_count = -1;
    EXPECT_EQ(topomoe_layer_create(r.plan, r.ranks, open.device, &config, &layer), TOPOMOE_INVALID_INPUT);
    EXPECT_STREQ(topomoe_last_error(), "config.other_count: -1: 0 or more");
  });
}

std::string trace_of(const topomoe_layer* layer) {
  std::size_t needed = 0;
  EXPECT_EQ(topomoe_layer_trace(layer, nullptr, 0, &needed), TOPOMOE_OK) << topomoe_last_error();
  std::string text(needed, '?');
  EXPECT_EQ(topomoe_layer_trace(layer, text.data(), text.size(), nullptr), TOPOMOE_OK) << topomoe_last_error();
  EXPECT_EQ(text.back(), '\0');
  text.pop_back();
  return text;
}
std::vector<Json> slices_of(const Json& trace) {
  std::vector<Json> slices;
  for (const Json& e : trace.at("traceEvents"))
    if (e.at("ph") == "X") slices.push_back(e);
  return slices;
}

TEST(CApiTrace, HasEachStepOfTheKeptPasses_WithWhatWasPredicted) {
  on_c_ranks(tiny(), [&](const CRank& r) {
    const Plan& plan = tiny();
    const topomoe_plan other{std::make_shared<const Plan>(two_level())};
    const OpenLayer open(r.plan, r.ranks, {&other});
    PlannedTensors t(plan, r.rank);
    open.step(t);  // not kept
    EXPECT_TRUE(slices_of(Json::parse(trace_of(open.layer))).empty());
    ASSERT_EQ(topomoe_layer_set_trace(open.layer, 1), TOPOMOE_OK) << topomoe_last_error();
    open.step(t);
    EXPECT_EQ(topomoe_layer_set_schedule(open.layer, 1), TOPOMOE_OK);
    open.step(t);
    EXPECT_EQ(topomoe_layer_set_trace(open.layer, 0), TOPOMOE_OK);
    open.step(t);  // nor this

    const Json trace = Json::parse(trace_of(open.layer));
    EXPECT_EQ(trace.at("otherData").at("plan"), plan_hash(plan));
    const std::vector<Json> slices = slices_of(trace);
    std::size_t next = 0;
    std::map<int, double> lane_end_us;
    for (const Plan* by : {&plan, &two_level()})
      for (const bool backward : {false, true}) {
        const auto& steps = backward ? by->schedule.backward : by->schedule.forward;
        const auto& predicted = backward ? by->backward : by->forward;
        for (std::size_t i = 0; i < steps.size(); ++i) {
          ASSERT_LT(next, slices.size());
          const Json &slice = slices[next++], &args = slice.at("args");
          EXPECT_EQ(slice.at("name"), steps[i].name);
          EXPECT_EQ(slice.at("cat"), backward ? "backward" : "forward");
          EXPECT_EQ(slice.at("pid"), r.rank);
          EXPECT_EQ(slice.at("tid"), static_cast<int>(steps[i].lane));
          EXPECT_EQ(args.at("schedule"), by->schedule.name);
          EXPECT_EQ(args.at("phase"), name(steps[i].phase));
          EXPECT_EQ(args.at("predicted_bytes"), predicted.steps[i].bytes);
          double& end_us = lane_end_us[slice.at("tid")];  // lanes are queues
          EXPECT_GE(slice.at("ts"), end_us) << steps[i].name;
          EXPECT_GE(slice.at("dur"), 0);
          end_us = slice.at("ts").get<double>() + slice.at("dur").get<double>();
        }
      }
    EXPECT_EQ(next, slices.size());
    EXPECT_EQ(topomoe_layer_set_trace(open.layer, 1), TOPOMOE_OK);  // anew
    EXPECT_TRUE(slices_of(Json::parse(trace_of(open.layer))).empty());
  });
}

TEST(CApiTrace, TooLittleRoom_IsToldAndNothingWritten) {
  on_c_ranks(tiny(), [&](const CRank& r) {
    const OpenLayer open(r.plan, r.ranks, {});
    std::size_t needed = 0;
    EXPECT_EQ(topomoe_layer_trace(open.layer, nullptr, 0, &needed), TOPOMOE_OK);
    EXPECT_EQ(topomoe_layer_trace(open.layer, nullptr, 0, nullptr), TOPOMOE_INVALID_INPUT);
    EXPECT_STREQ(topomoe_last_error(), "text and needed: null: a pointer is needed");
    std::string text(needed - 1, '?');
    EXPECT_EQ(topomoe_layer_trace(open.layer, text.data(), text.size(), &needed), TOPOMOE_INVALID_INPUT);
    EXPECT_EQ(topomoe_last_error(), "bytes: " + std::to_string(text.size()) + ": at least " + std::to_string(needed));
    EXPECT_EQ(text, std::string(text.size(), '?'));
    EXPECT_EQ(topomoe_layer_set_trace(open.layer, 2), TOPOMOE_INVALID_INPUT);
    EXPECT_STREQ(topomoe_last_error(), "on: 2: 0 or 1");
    EXPECT_EQ(topomoe_layer_set_trace(nullptr, 1), TOPOMOE_INVALID_INPUT);
    EXPECT_EQ(topomoe_layer_trace(nullptr, nullptr, 0, &needed), TOPOMOE_INVALID_INPUT);
  });
}

}  // namespace
}  // namespace topomoe::testing
