// plan.json: reads back as written, refuses what does not fit, and never crashes.
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <random>

#include "planner/plan/json.hpp"
#include "tests/planner/sample_plan.hpp"

namespace topomoe {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(PlanJson, ReadThenWrite_GivesTheSameText) {
  for (const int n : {1, 8}) {
    const std::string text = write_plan(sample_plan(n));
    EXPECT_EQ(write_plan(read_plan(text, "plan.json")), text);
    EXPECT_EQ(text.back(), '\n');
    RecordProperty("bytes_n" + std::to_string(n), static_cast<int>(text.size()));
  }
}

TEST(PlanJson, EverySchedule_ReadsBack) {
  each_schedule({2}, [](const Schedule& s) {
    Plan plan = sample_plan(1);
    plan.schedule = s;
    for (auto* pass : {&plan.forward, &plan.backward}) {
      pass->steps.clear();
      for (const Step& step : pass == &plan.forward ? s.forward : s.backward)
        pass->steps.push_back({.name = step.name});
    }
    const std::string text = write_plan(plan);
    EXPECT_EQ(write_plan(read_plan(text, "plan.json")), text) << s.name;
  });
}

TEST(PlanJson, Read_GivesEqualValues) {
  const Plan p = sample_plan(2), q = read_plan(write_plan(p), "plan.json");
  EXPECT_EQ(q.model, p.model);
  EXPECT_EQ(q.job, p.job);
  EXPECT_EQ(q.routing, p.routing);
  EXPECT_EQ(q.layout, p.layout);
  EXPECT_EQ(q.expert_owners, p.expert_owners);
  EXPECT_EQ(q.gradients.layers[1].operations, p.gradients.layers[1].operations);
  EXPECT_EQ(q.gradients.exposed, p.gradients.exposed);
  EXPECT_EQ(q.gradients.exposed_us, p.gradients.exposed_us);
  EXPECT_EQ(q.memory_GiB, p.memory_GiB);
  EXPECT_EQ(q.topology.warnings, p.topology.warnings);
  EXPECT_EQ(q.ranks[6].bus_id, "0000:1b:00.0");
  EXPECT_EQ(q.ranks[15].bus_id, "");
  EXPECT_EQ(q.forward.steps[3].end_us, p.forward.steps[3].end_us);  // the very double
  EXPECT_EQ(q.time.total_ms(), p.time.total_ms());
  EXPECT_EQ(q.schedules_priced, 900);
}

TEST(PlanJson, ReplicasAndUnevenOwners_ReadAsWritten) {
  Plan p = sample_plan(1);
  p.expert_owners = {{1}, {0, 1}, {1}, {1}, {1, 0}, {1}, {1}, {1}};
  const std::string text = write_plan(p);
  EXPECT_EQ(read_plan(text, "plan.json").expert_owners, p.expert_owners);
  EXPECT_EQ(write_plan(read_plan(text, "plan.json")), text);
  EXPECT_HAS(text, "\n  \"expert_owners\": [1, [0, 1], 1, 1, [1, 0], 1, 1, 1],\n");
}

// A plan without the key is one of before it was there.
TEST(PlanJson, DispatchDType_IsWrittenWhereItIsNotTheJobs) {
  Plan p = sample_plan(1);
  EXPECT_EQ(write_plan(p).find("dispatch_dtype"), std::string::npos);
  p.job.dispatch_dtype = DispatchDType::fp8;
  std::string text = write_plan(p);
  EXPECT_HAS(text, "\"dispatch_dtype\": \"fp8\"");
  EXPECT_EQ(read_plan(text, "plan.json").job, p.job);
  text.replace(text.find("\"fp8\""), 5, "\"fp4\"");
  EXPECT_HAS(message_of([&] { read_plan(text, "plan.json"); }), "plan.json: job.dispatch_dtype: ");
}

TEST(PlanJson, Inference_PredictsNoBackward) {
  Plan p = sample_plan(1);
  p.job.phase = Phase::prefill;
  p.backward = {};
  EXPECT_EQ(read_plan(write_plan(p), "plan.json").backward.steps.size(), 0U);
  p.job.phase = Phase::train;
  EXPECT_HAS(message_of([&] { read_plan(write_plan(p), "plan.json"); }),
             "plan.json: predicted_backward.steps: 0 steps: the schedule has ");
}

TEST(PlanJson, Text_PutsTheDecisionFirst) {
  Plan plan = sample_plan(1);
  plan.forward.time_us = 500, plan.backward.time_us = 2800.0 / 3;
  const std::string text = write_plan(plan);
  EXPECT_EQ(text.substr(0, text.find("  \"topology\"")),
            "{\n"
            "  \"schema\": \"topomoe.plan/1\",\n"
            "  \"summary\": {\n"
            "    \"layout\": \"TP8 CP1 DP2 PP1 | ETP8 EP2 EDP1\",\n"
            "    \"algorithm\": \"sliced flat n=1\",\n"
            "    \"time_ms\": 126.5000001,\n"
            "    \"tokens_per_s\": 8289138.33336827,\n"  // 256 x 4096 in that time
            "    \"mfu\": 0.41708796764408496,\n"        // 412.5 / 989
            "    \"moe_layer_forward_us\": 500.0,\n"
            "    \"moe_layer_backward_us\": 933.3333333333334,\n"
            "    \"bottleneck\": \"nic_out host0/nic0\",\n"
            "    \"memory_GiB\": 60.75\n"
            "  },\n");
  EXPECT_HAS(text, "\n    [\"host0\", \"0000:1b:00.0\"],\n");
  EXPECT_HAS(text, "\n    [\"host1\"]\n  ]\n}\n");
  EXPECT_HAS(text, "\n  \"expert_owners\": [0, 0, 0, 0, 1, 1, 1, 1],\n");
  EXPECT_HAS(text, "\n      {\"name\": \"route\", \"kind\": \"route\", \"in\": [{\"buffer\": \"x.tokens\", ");
}

TEST(PlanJson, Size_GrowsWithTheWorldByRanksOnly) {
  const auto without_ranks = [](int world) {
    const std::string text = write_plan(sample_plan(4, world));
    return text.substr(0, text.find("\"expert_owners\""));
  };
  const std::string small = without_ranks(16), large = without_ranks(4096);
  // What differs are digits: world, dp, edp, hosts and gpus, and the layout's name.
  EXPECT_LT(large.size() - small.size(), 20U);
  EXPECT_EQ(std::count(large.begin(), large.end(), '\n'), std::count(small.begin(), small.end(), '\n'));
}

TEST(PlanJson, Hash_TellsPlansApart) {
  Plan p = sample_plan(1);
  const std::string hash = plan_hash(p);
  EXPECT_EQ(hash.size(), 16U);
  EXPECT_EQ(hash.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(plan_hash(read_plan(write_plan(p), "plan.json")), hash);
  std::uint64_t expected = 14695981039346656037U;
  for (const char c : write_plan(p)) expected = (expected ^ static_cast<unsigned char>(c)) * 1099511628211U;
  EXPECT_EQ(std::stoull(hash, nullptr, 16), expected);
  p.ranks[0].host = "host7";
  EXPECT_NE(plan_hash(p), hash);
}

TEST(PlanJson, NotFinite_IsOurBug) {
  Plan p = sample_plan(1);
  p.forward.steps[2].alone_us = kNan;
  EXPECT_THROW(write_plan(p), std::logic_error);
  try {
    write_plan(p);
  } catch (const std::logic_error& error) {
    EXPECT_HAS(std::string(error.what()), "predicted_forward.steps[2].alone_us");
  }
  p = sample_plan(1);
  p.time.other_ms = std::numeric_limits<double>::infinity();
  EXPECT_THROW(write_plan(p), std::logic_error);
  p = sample_plan(1);
  p.memory_GiB.push_back(p.memory_GiB[0]);
  EXPECT_THROW(write_plan(p), std::logic_error);
}

TEST(PlanJson, BytesThatAreNotUtf8_AreReplaced) {
  Plan p = sample_plan(1);
  p.topology.warnings = {"device \xff"};
  const std::string text = write_plan(p);
  EXPECT_EQ(write_plan(read_plan(text, "plan.json")), text);
}

// ---- Refusals

std::string message_after(const std::function<void(ordered_json&)>& edit) {
  static const std::string text = write_plan(sample_plan(1));
  ordered_json json = ordered_json::parse(text);
  edit(json);
  return message_of([&] { read_plan(json.dump(), "plan.json"); });
}

TEST(PlanJson, Inconsistent_IsNamed) {
  EXPECT_EQ(message_after([](auto&) {}), "no error");
  EXPECT_EQ(message_after([](auto& j) { j["schema"] = "topomoe.plan/2"; }),
            "plan.json: schema: \"topomoe.plan/2\": this version of topomoe reads \"topomoe.plan/1\"");
  EXPECT_HAS(message_after([](auto& j) { j["summary"]["time_ms"] = 1; }),
             "plan.json: summary.time_ms: 1: the rest of the plan says 126.5000001");
  EXPECT_HAS(message_after([](auto& j) { j["time"]["moe_ms"] = 1; }), "plan.json: summary.time_ms: ");
  EXPECT_HAS(message_after([](auto& j) { j["topology"]["fingerprint"] = "0123456789ABCDEF"; }),
             "plan.json: topology.fingerprint: \"0123456789ABCDEF\": must be 16 hex digits");
  EXPECT_HAS(message_after([](auto& j) { j["ranks"].erase(3); }),
             "plan.json: ranks: 15 ranks: must have all 16 of the layout");
  EXPECT_HAS(message_after([](auto& j) { j["ranks"][3] = ordered_json::array(); }),
             "plan.json: ranks[3]: []: must be [host] or");
  EXPECT_HAS(message_after([](auto& j) { j["layout"]["dp"] = 4; }),
             "plan.json: layout: tp*cp*dp*pp: 32: must equal world = 16");
  EXPECT_HAS(message_after([](auto& j) { j["topology"]["gpus"] = 32; }),
             "plan.json: layout.world: 16: must be topology.gpus = 32");
  EXPECT_HAS(message_after([](auto& j) { j["expert_owners"].push_back(1); }),
             "plan.json: expert_owners: 9 owners: must have one for ");
  EXPECT_HAS(message_after([](auto& j) { j["expert_owners"][1] = 2; }),
             "plan.json: expert_owners[1]: 2: must be an integer in [0, 1]");
  EXPECT_HAS(message_after([](auto& j) {
               j["expert_owners"][1] = {0, 2};
             }),
             "plan.json: expert_owners[1][1]: 2: must be an integer in [0, 1]");
  EXPECT_HAS(message_after([](auto& j) {
               j["expert_owners"][1] = {1, 1};
             }),
             "plan.json: expert_owners[1]: 1 twice: replicas are on different ranks");
  EXPECT_HAS(message_after([](auto& j) { j["expert_owners"][1] = ordered_json::array(); }),
             "plan.json: expert_owners[1]: nobody: some rank must hold each expert");
  EXPECT_HAS(message_after([](auto& j) { j["expert_owners"] = ordered_json::array(); }),
             "plan.json: expert_owners: none: must have one for each of the 8 experts");
  EXPECT_HAS(message_after([](auto& j) { j["predicted_forward"]["steps"].erase(0); }),
             "plan.json: predicted_forward.steps: ");
  EXPECT_HAS(message_after([](auto& j) { j["predicted_forward"]["steps"][1]["name"] = "x"; }),
             "plan.json: predicted_forward.steps[1].name: \"x\": the schedule's is \"counts\"");
  EXPECT_HAS(message_after([](auto& j) { j["memory"]["stage"] = 1; }),
             "plan.json: memory.stage: 1: must be an integer in [0, 0]");
  EXPECT_HAS(message_after([](auto& j) { j["search"]["layouts_pruned"] = 0.5; }),
             "plan.json: search.layouts_pruned: 0.5: must be an");
  EXPECT_HAS(message_after([](auto& j) {
               j["routing"] = {{"kind", "histogram"}, {"name", "h"}, {"histogram", {1, 2}}};
             }),
             "plan.json: routing.histogram: 2 counts: must have one for each of the 8 experts");
  EXPECT_HAS(message_after([](auto& j) { j["schedule"]["forward"][6]["after"] = ordered_json::array(); }),
             "plan.json: schedule: forward step 6 (");
  EXPECT_HAS(message_after([](auto& j) { j["gradients"]["hidden_bytes"] = 1; }),
             "plan.json: gradients.hidden_bytes: 1: the operations sum up to 341");
  EXPECT_HAS(message_after([](auto& j) { j["gradients"]["layers"][1]["operations"][0][2] = 1; }),
             "plan.json: gradients.layers[1].operations[0]: 1: ends before it begins");
  EXPECT_HAS(message_after([](auto& j) { j["gradients"]["stage"] = 1; }), "plan.json: gradients.stage: 1: must be an");
  EXPECT_HAS(message_after([](auto& j) { j["layout"]["zero"] = 4; }), "plan.json: layout.zero: 4: must be an integer");
  EXPECT_HAS(message_after([](auto& j) { j["comment"] = 1; }), "plan.json: comment: 1: unknown key; known: ");
}

TEST(PlanJson, TooLarge_SaysSo) {
  EXPECT_EQ(message_of([] { read_plan(std::string((64U << 20) + 1, ' '), "plan.json"); }),
            "plan.json: 67108865 bytes: a plan has at most 64 MiB");
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  for (const std::string& text : {deep, "{\"schema\": " + deep + "}", "{\"a\": 1, \"schema\": " + deep + ", \"b\": 2}"})
    EXPECT_HAS(message_of([&] { read_plan(text, "plan.json"); }), "nested more than 200 deep");
  EXPECT_HAS(message_of([] {
               std::string text = "{";
               for (int i = 0; i < 5000; ++i) text += "\"" + std::to_string(i) + "\": 0,";
               read_plan(text, "plan.json");
             }),
             "an object of more than 4096 keys");
  EXPECT_HAS(message_of([] { read_plan("{\"schema\": 1e999}", "plan.json"); }), "not usable JSON");
  EXPECT_HAS(message_of([] { read_plan("[]", "plan.json"); }), "must be a JSON object");
  EXPECT_HAS(message_of([] { read_plan("", "plan.json"); }), "text ends early");
}

// ---- Hostile input: whatever is done to a plan, reading it gives a plan or InvalidInput.

// Number of texts that still were plans. Anything but InvalidInput ends the test.
int read_all(const std::vector<std::string>& texts) {
  int plans = 0;
  for (const std::string& text : texts) try {
      const Plan plan = read_plan(text, "plan.json");
      write_plan(plan);
      ++plans;
    } catch (const InvalidInput& error) {
      EXPECT_FALSE(error.hint.empty());
    }
  return plans;
}

TEST(PlanJson, Truncated_IsRefused) {
  const std::string text = write_plan(sample_plan(1));
  for (std::size_t size = 0; size + 2 < text.size(); ++size) {
    // Each place in the first page; then a sample, as time is quadratic in the size.
    if (size > 1500 && size % 67 != 0) continue;
    ASSERT_THROW(read_plan(text.substr(0, size), "plan.json"), InvalidInput) << size;
  }
}

TEST(PlanJson, RandomBytesFlipped_NeverCrash) {
  const std::string text = write_plan(sample_plan(1));
  std::mt19937 random(11);
  std::vector<std::string> texts;
  for (int i = 0; i < 300; ++i) {
    texts.push_back(text);
    for (auto flips = 1 + random() % 3; flips > 0; --flips)
      texts.back()[random() % text.size()] =
          i % 2 ? static_cast<char>(random()) : "0123456789-.eE\"[]{},: xyp"[random() % 25];
  }
  EXPECT_LT(read_all(texts), 240);
}

// Calls visit(value) for each value of the tree, this one included.
template <class Visit>
void each_value(ordered_json& value, Visit visit) {
  visit(value);
  if (value.is_structured())
    for (auto& element : value) each_value(element, visit);
}

TEST(PlanJson, WrongTypesEverywhere_NeverCrash) {
  ordered_json json = ordered_json::parse(write_plan(sample_plan(1)));
  const ordered_json others[] = {nullptr,
                                 true,
                                 -1,
                                 0,
                                 1e300,
                                 4294967296.0,
                                 0.5,
                                 "",
                                 "peer.ep",
                                 ordered_json::array(),
                                 ordered_json::object(),
                                 ordered_json::array({1, "x"})};
  std::size_t turn = 0;
  each_value(json, [&](ordered_json& value) {
    if (++turn % 5 != 0) return;  // a sample
    ordered_json kept = others[turn / 5 % std::size(others)];
    std::swap(kept, value);
    read_all({json.dump()});
    std::swap(kept, value);
  });
  EXPECT_GT(turn, 1000U);
}

TEST(PlanJson, KeyMissing_IsRefusedOrHasADefault) {
  ordered_json json = ordered_json::parse(write_plan(sample_plan(1)));
  std::vector<std::string> texts;
  std::size_t turn = 0;
  each_value(json, [&](ordered_json& value) {
    if (!value.is_object()) return;
    const ordered_json kept = value;
    for (const auto& item : kept.items()) {
      if (++turn > 150 && turn % 7 != 0) continue;  // all of the first parts, a sample of the schedule
      value.erase(item.key());
      texts.push_back(json.dump());
      value = kept;
    }
  });
  EXPECT_LT(read_all(texts), static_cast<int>(texts.size() / 2));
}

}  // namespace
}  // namespace topomoe
