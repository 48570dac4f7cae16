// All that a planned layer has around its routed experts, from C: the bits of MoeLayer with the same options.

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <utility>

#include "tests/runtime/c_api_world.hpp"
#include "tests/support/tiny_plan.hpp"
#include "topomoe/device_cpu.hpp"

namespace topomoe::testing {
namespace {

// By what the plan has.
Plan with_shared_expert() {
  return planned([](PlanRequest& r) { r.model.shared_ffn = 8; });
}
Plan with_residual_expert_and_groups() {
  return planned([](PlanRequest& r) {
    Model& m = r.model;
    m.shared_ffn = 8, m.shared_gate = SharedGate::residual;
    m.scoring = Scoring::sigmoid, m.router_groups = 2, m.router_topk_groups = 1, m.routed_scaling = 2.5;
  });
}
Plan without_a_gate() {
  Plan p = planned([](PlanRequest& r) { r.model.gated_ffn = false, r.model.shared_ffn = 8; });
  p.expert_owners = {{1}, {0, 1}, {0}, {1}};
  return p;
}
Plan with_tokens_out_as_fp8() {
  return planned([](PlanRequest& r) { r.job.dispatch_dtype = DispatchDType::fp8; });
}
Plan with_replicas_and_capacity() {
  Plan p = tiny();
  p.expert_owners = {{1}, {0, 1}, {0}, {1}};
  p.job.capacity_factor = 0.75;
  return p;
}
Plan with_an_empty_place() {
  Plan p = tiny();
  p.expert_owners = {{1}, {1}, {1}, {1}};
  return p;
}

struct Config {
  double balance_loss = 0, z_loss = 0;
  MoeLayer::Keep keep = MoeLayer::Keep::all;
};
struct Step {
  std::vector<std::vector<float>> written;
  RouterReport report;
  std::size_t saved = 0;
};

Step by_c(const CRank& r, const Plan& plan, const Config& c, bool sums) {
  PlannedTensors t(plan, r.rank);
  Step out;
  topomoe_device* device = nullptr;
  topomoe_layer* layer = nullptr;
  topomoe_handle* handle = nullptr;
  topomoe_layer_config config = TOPOMOE_LAYER_CONFIG_INIT;
  config.dtype = TOPOMOE_F32, config.balance_loss = c.balance_loss, config.z_loss = c.z_loss, config.accept_unlike = 1;
  const topomoe_weights w = t.c_weights();
  const topomoe_gradients g = t.c_gradients();
  topomoe_router_report report = TOPOMOE_ROUTER_REPORT_INIT;
  const topomoe_keep keep = c.keep == MoeLayer::Keep::all ? TOPOMOE_KEEP_ALL : TOPOMOE_KEEP_ROUTING;
  EXPECT_EQ(topomoe_device_create(nullptr, &device), TOPOMOE_OK) << topomoe_last_error();
  EXPECT_EQ(topomoe_layer_create(r.plan, r.ranks, device, &config, &layer), TOPOMOE_OK) << topomoe_last_error();
  EXPECT_EQ(topomoe_layer_set_keep(layer, keep), TOPOMOE_OK) << topomoe_last_error();
  EXPECT_EQ(topomoe_forward(layer, t.x.data(), t.rows, t.y.data(), &w, &handle), TOPOMOE_OK) << topomoe_last_error();
  if (handle != nullptr) {
    EXPECT_EQ(topomoe_handle_router(handle, &report), TOPOMOE_OK) << topomoe_last_error();
    out.report = {report.balance_loss, report.z_loss, {report.chosen, report.chosen + report.experts}};
    EXPECT_EQ(topomoe_handle_saved_bytes(handle, &out.saved), TOPOMOE_OK) << topomoe_last_error();
    EXPECT_EQ(topomoe_backward(layer, handle, t.dy.data(), t.dx.data(), &w, &g), TOPOMOE_OK) << topomoe_last_error();
    if (sums) {
      EXPECT_EQ(topomoe_sum_over_replicas(layer, &g), TOPOMOE_OK) << topomoe_last_error();
    }
  }
  topomoe_handle_free(handle), topomoe_layer_free(layer), topomoe_device_free(device);
  out.written = t.written();
  return out;
}

Step by_cpp(const CRank& r, const Plan& plan, const Config& c, bool sums) {
  PlannedTensors t(plan, r.rank);
  t.shape.router.balance_loss = static_cast<float>(c.balance_loss);
  t.shape.router.z_loss = static_cast<float>(c.z_loss);
  const auto device = make_cpu_device();
  MoeLayer layer(schedule_of(plan), plan.layout, plan.topology.gpus_per_node, t.shape, *r.ranks->value, *device);
  auto handle = layer.forward(t.x.data(), t.rows, t.y.data(), t.weights(), nullptr, c.keep);
  const RouterReport report = handle.router();
  const std::size_t saved = handle.saved_bytes();
  layer.backward(handle, t.dy.data(), t.dx.data(), t.weights(), t.gradients());
  if (sums) layer.sum_over_replicas(t.gradients());
  return {t.written(), report, saved};
}

void expect_same(const Plan& plan, const Config& c = {}, bool sums = false) {
  on_c_ranks(plan, [&](const CRank& r) {
    const Step actual = by_c(r, plan, c, sums), expected = by_cpp(r, plan, c, sums);
    EXPECT_TRUE(actual.written == expected.written) << r.rank;
    EXPECT_NE(expected.written[0], std::vector<float>(expected.written[0].size()));
    EXPECT_EQ(actual.report.balance_loss, expected.report.balance_loss);
    EXPECT_EQ(actual.report.z_loss, expected.report.z_loss);
    EXPECT_EQ(actual.report.chosen, expected.report.chosen);
    EXPECT_EQ(actual.saved, expected.saved);
    EXPECT_EQ(actual.report.balance_loss > 0, c.balance_loss > 0);
    EXPECT_EQ(actual.report.z_loss > 0, c.z_loss > 0);
  });
}

TEST(CApiComplete, SharedExpert_HasTheBitsOfMoeLayer) { expect_same(with_shared_expert()); }

TEST(CApiComplete, ResidualExpertSigmoidGroupsBiasAndLosses_HaveTheBitsOfMoeLayer) {
  expect_same(with_residual_expert_and_groups(), {.balance_loss = 0.5, .z_loss = 0.25});
}

TEST(CApiComplete, ExpertsWithoutAGate_HaveTheBitsOfMoeLayer) { expect_same(without_a_gate(), {}, true); }

TEST(CApiComplete, TokensOutAsFp8_HaveTheBitsOfMoeLayer) { expect_same(with_tokens_out_as_fp8()); }

TEST(CApiComplete, ReplicasAndCapacity_HaveTheBitsOfMoeLayer) { expect_same(with_replicas_and_capacity(), {}, true); }

TEST(CApiComplete, RankWithoutExperts_NeedsNoneOfTheirWeights) {
  const Plan plan = with_an_empty_place();
  const PlannedTensors none(plan, 0);
  EXPECT_EQ(none.experts, 0U);
  EXPECT_TRUE(none.gate.empty());
  expect_same(plan);
}

// The bits of a backward that kept everything, from fewer bytes.
TEST(CApiComplete, KeptRouting_GivesTheSameBitsFromFewerBytes) {
  const Plan plan = with_residual_expert_and_groups();
  on_c_ranks(plan, [&](const CRank& r) {
    const Config all{.balance_loss = 0.5}, routing{.balance_loss = 0.5, .keep = MoeLayer::Keep::routing};
    const Step kept = by_c(r, plan, all, false), again = by_c(r, plan, routing, false);
    EXPECT_TRUE(kept.written == again.written);
    EXPECT_LT(again.saved, kept.saved);
    EXPECT_GT(again.saved, 0U);
  });
}

// Memory for a fifth of what comes: the rest runs in further rounds, and the output is that of one.
TEST(CApiComplete, BoundedMemory_RunsInRoundsAndCountsThem) {
  const Plan plan = tiny();
  on_c_ranks(plan, [&](const CRank& r) {
    topomoe_device* device = nullptr;
    ASSERT_EQ(topomoe_device_create(nullptr, &device), TOPOMOE_OK);
    std::vector<std::vector<float>> outputs;
    for (const double tokens : {0.0, -1.0, 16.0}) {
      PlannedTensors t(plan, r.rank, 80);  // 16 are planned
      topomoe_layer_config config = TOPOMOE_LAYER_CONFIG_INIT;
      config.dtype = TOPOMOE_F32, config.memory_tokens = tokens;
      const topomoe_weights w = t.c_weights();
      topomoe_layer* layer = nullptr;
      std::int64_t rounds = -1;
      EXPECT_EQ(topomoe_layer_create(r.plan, r.ranks, device, &config, &layer), TOPOMOE_OK) << topomoe_last_error();
      EXPECT_EQ(topomoe_forward(layer, t.x.data(), t.rows, t.y.data(), &w, nullptr), TOPOMOE_OK)
          << topomoe_last_error();
      EXPECT_EQ(topomoe_layer_overflow_rounds(layer, &rounds), TOPOMOE_OK);
      EXPECT_EQ(rounds > 0, tokens != 0) << rounds;
      outputs.push_back(t.y);
      topomoe_layer_free(layer);
    }
    topomoe_device_free(device);
    EXPECT_EQ(outputs[1], outputs[0]);
    EXPECT_EQ(outputs[2], outputs[0]);
  });
}

TEST(CApiComplete, PlanInfoAndHeldExperts_SayWhatToBring) {
  const Plan residual = with_residual_expert_and_groups(), replicas = with_replicas_and_capacity();
  topomoe_plan a{std::make_shared<const Plan>(residual)}, b{std::make_shared<const Plan>(replicas)};
  topomoe_plan_info info = TOPOMOE_PLAN_INFO_INIT;
  ASSERT_EQ(topomoe_plan_get_info(&a, 0, &info), TOPOMOE_OK) << topomoe_last_error();
  EXPECT_EQ(info.shared_ffn, 8);
  EXPECT_EQ(info.shared_gate, TOPOMOE_SHARED_RESIDUAL);
  EXPECT_EQ(info.sigmoid_scores, 1);
  EXPECT_EQ(info.router_groups, 2);
  EXPECT_EQ(info.router_topk_groups, 1);
  EXPECT_EQ(info.routed_scaling, 2.5);
  EXPECT_EQ(info.capacity_factor, 0);
  EXPECT_EQ(info.gated, 1);
  EXPECT_EQ(info.replicated, 0);
  ASSERT_EQ(topomoe_plan_get_info(&b, 0, &info), TOPOMOE_OK) << topomoe_last_error();
  EXPECT_EQ(info.shared_ffn, 0);
  EXPECT_EQ(info.shared_gate, TOPOMOE_SHARED_ADDED);
  EXPECT_EQ(info.capacity_factor, 0.75);
  EXPECT_EQ(info.replicated, 1);
  std::int32_t held[3] = {-1, -1, -1}, count = 0;
  ASSERT_EQ(topomoe_plan_held_experts(&b, 0, 2, held, 2, &count), TOPOMOE_OK) << topomoe_last_error();
  EXPECT_EQ(count, 3);
  EXPECT_EQ((std::vector(held, held + 3)), (std::vector{0, 1, -1}));
  EXPECT_EQ(topomoe_plan_held_experts(&b, 0, 4, held, 2, &count), TOPOMOE_INVALID_INPUT);
  EXPECT_STREQ(topomoe_last_error(), "rank: 4: 0 to 3");
}

// Tensors that the layer would ignore, miss, or find twice. Refused on every rank before anything moves.
TEST(CApiComplete, TensorsThatDoNotFitTheLayer_AreNamed) {
  for (const auto& [plan, residual] : {std::pair{tiny(), false}, {with_residual_expert_and_groups(), true}})
    on_c_ranks(plan, [&, &plan = plan, residual = residual](const CRank& r) {
      PlannedTensors t(plan, r.rank);
      topomoe_device* device = nullptr;
      topomoe_layer* layer = nullptr;
      topomoe_handle* handle = nullptr;
      topomoe_layer_config config = TOPOMOE_LAYER_CONFIG_INIT;
      config.dtype = TOPOMOE_F32;
      ASSERT_EQ(topomoe_device_create(nullptr, &device), TOPOMOE_OK);
      ASSERT_EQ(topomoe_layer_create(r.plan, r.ranks, device, &config, &layer), TOPOMOE_OK) << topomoe_last_error();
      const topomoe_weights good = t.c_weights();
      ASSERT_EQ(topomoe_forward(layer, t.x.data(), t.rows, t.y.data(), &good, &handle), TOPOMOE_OK);
      const auto forward = [&](auto change) -> std::string {
        topomoe_weights w = good;
        change(w);
        EXPECT_EQ(topomoe_forward(layer, t.x.data(), t.rows, t.y.data(), &w, nullptr), TOPOMOE_INVALID_INPUT);
        return topomoe_last_error();
      };
      const auto backward = [&](auto change) -> std::string {
        topomoe_gradients g = t.c_gradients();
        change(g);
        EXPECT_EQ(topomoe_backward(layer, handle, t.dy.data(), t.dx.data(), &good, &g), TOPOMOE_INVALID_INPUT);
        return topomoe_last_error();
      };
      const void* const two[] = {t.gate.data(), nullptr};
      EXPECT_EQ(forward([&](auto& w) { w.gates = two; }),
                "weights.gate: given twice: one block, or a pointer an expert");
      EXPECT_EQ(forward([&](auto& w) { w.gate = nullptr, w.gates = two; }),
                "weights.gates[1]: null: a pointer for each of the 2 local experts");
      EXPECT_EQ(backward([](auto& g) { g.up = nullptr; }),
                "gradients: some of gate, up and down are null: all or none");
      if (residual) {
        EXPECT_EQ(forward([](auto& w) { w.shared_up = nullptr; }),
                  "weights.shared_gate, shared_up, shared_down: null: the layer has a shared expert");
        EXPECT_EQ(forward([](auto& w) { w.mix = nullptr; }), "weights.mix: null: the shared expert has a gate");
        EXPECT_EQ(backward([](auto& g) { g.shared_down = nullptr; }),
                  "gradients: some of shared_gate, shared_up and shared_down are null: all or none");
      } else {
        EXPECT_EQ(forward([&](auto& w) { w.shared_up = t.up.data(); }),
                  "weights.shared_gate, shared_up, shared_down: given: the plan has no shared expert");
        EXPECT_EQ(forward([&](auto& w) { w.mix = t.router.data(); }),
                  "weights.mix: given: the plan has no shared expert with a gate");
        EXPECT_EQ(backward([&](auto& g) { g.mix = t.drouter.data(); }),
                  "gradients.mix: given: the plan has no shared expert with a gate");
      }
      EXPECT_EQ(topomoe_layer_set_keep(layer, 3), TOPOMOE_INVALID_INPUT);
      EXPECT_EQ(topomoe_layer_set_stream(layer, device), TOPOMOE_INVALID_INPUT);
      EXPECT_STREQ(topomoe_last_error(), "stream: given: cpu has none: what it is told is done when a call returns");
      EXPECT_EQ(topomoe_layer_set_stream(layer, nullptr), TOPOMOE_OK);
      topomoe_handle_free(handle), topomoe_layer_free(layer), topomoe_device_free(device);
    });
}

TEST(CApiComplete, ExpertsWithoutAGate_AreTakenAsGeluOnRequest_AndAGateRefused) {
  const Plan plan = without_a_gate();
  on_c_ranks(plan, [&](const CRank& r) {
    PlannedTensors t(plan, r.rank);
    topomoe_device* device = nullptr;
    topomoe_layer* layer = nullptr;
    ASSERT_EQ(topomoe_device_create(nullptr, &device), TOPOMOE_OK);
    topomoe_layer_config config = TOPOMOE_LAYER_CONFIG_INIT;
    EXPECT_EQ(topomoe_layer_create(r.plan, r.ranks, device, &config, &layer), TOPOMOE_INVALID_INPUT);
    EXPECT_NE(std::string(topomoe_last_error()).find("accept_unlike"), std::string::npos) << topomoe_last_error();
    config.accept_unlike = 1;
    ASSERT_EQ(topomoe_layer_create(r.plan, r.ranks, device, &config, &layer), TOPOMOE_OK) << topomoe_last_error();
    topomoe_weights w = t.c_weights();
    w.gate = t.gate.data();
    topomoe_plan_info info = TOPOMOE_PLAN_INFO_INIT;
    ASSERT_EQ(topomoe_plan_get_info(r.plan, 0, &info), TOPOMOE_OK) << topomoe_last_error();
    EXPECT_EQ(info.gated, 0);
    EXPECT_EQ(topomoe_forward(layer, t.x.data(), 0, t.y.data(), &w, nullptr), TOPOMOE_INVALID_INPUT);
    EXPECT_STREQ(topomoe_last_error(), "weights.gate, shared_gate: given: the plan's experts have no gate");
    topomoe_layer_free(layer), topomoe_device_free(device);
  });
}

// Each expert's matrices behind a pointer of its own: the bits of one block.
TEST(CApiComplete, ExpertsThatLieApart_HaveTheBitsOfOneBlock) {
  const Plan plan = tiny();
  on_c_ranks(plan, [&](const CRank& r) {
    topomoe_device* device = nullptr;
    topomoe_layer* layer = nullptr;
    topomoe_layer_config config = TOPOMOE_LAYER_CONFIG_INIT;
    config.dtype = TOPOMOE_F32;
    ASSERT_EQ(topomoe_device_create(nullptr, &device), TOPOMOE_OK);
    ASSERT_EQ(topomoe_layer_create(r.plan, r.ranks, device, &config, &layer), TOPOMOE_OK) << topomoe_last_error();
    const auto run = [&](PlannedTensors& t, const topomoe_weights& w, const topomoe_gradients& g) {
      topomoe_handle* handle = nullptr;
      EXPECT_EQ(topomoe_forward(layer, t.x.data(), t.rows, t.y.data(), &w, &handle), TOPOMOE_OK)
          << topomoe_last_error();
      EXPECT_EQ(topomoe_backward(layer, handle, t.dy.data(), t.dx.data(), &w, &g), TOPOMOE_OK) << topomoe_last_error();
      topomoe_handle_free(handle);
    };
    PlannedTensors block(plan, r.rank), apart(plan, r.rank);
    run(block, block.c_weights(), block.c_gradients());
    // Two local experts; the second one's matrices are moved away.
    std::vector<std::vector<float>> moved;
    const auto halves = [&](std::vector<float>& v) {
      const auto middle = v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2);
      moved.emplace_back(middle, v.end());
      return std::pair{v.data(), moved.back().data()};
    };
    moved.reserve(6);
    const auto g = halves(apart.gate), u = halves(apart.up), d = halves(apart.down);
    const auto dg = halves(apart.dgate), du = halves(apart.dup), dd = halves(apart.ddown);
    const void *gates[] = {g.first, g.second}, *ups[] = {u.first, u.second}, *downs[] = {d.first, d.second};
    float *dgates[] = {dg.first, dg.second}, *dups[] = {du.first, du.second}, *ddowns[] = {dd.first, dd.second};
    topomoe_weights w = apart.c_weights();
    topomoe_gradients grads = apart.c_gradients();
    w.gate = w.up = w.down = nullptr, w.gates = gates, w.ups = ups, w.downs = downs;
    grads.gate = grads.up = grads.down = nullptr, grads.gates = dgates, grads.ups = dups, grads.downs = ddowns;
    for (auto* v : {&apart.gate, &apart.up, &apart.down})  // where one block would have them
      std::fill(v->begin() + static_cast<std::ptrdiff_t>(v->size() / 2), v->end(), std::nanf(""));
    run(apart, w, grads);
    for (const auto& [whole, second] :
         {std::pair{&apart.dgate, &moved[3]}, {&apart.dup, &moved[4]}, {&apart.ddown, &moved[5]}})
      std::copy(second->begin(), second->end(), whole->begin() + static_cast<std::ptrdiff_t>(whole->size() / 2));
    EXPECT_TRUE(apart.written() == block.written());
    topomoe_layer_free(layer), topomoe_device_free(device);
  });
}

}  // namespace
}  // namespace topomoe::testing
