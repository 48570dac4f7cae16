// Gradients beside the backward of a whole stage, by hand and by laws; and what each stage of ZeRO does to a step.
#include "planner/gradients.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "tests/planner/helpers.hpp"
#include "topomoe/planner.hpp"

namespace topomoe {
namespace {

const Machine& machine() {
  static const Machine m =
      machine_of(read_topology_file(std::string(TOPOMOE_SOURCE_DIR) + "/configs/clusters/h100-2x8.json"), DType::bf16);
  return m;
}

// Mixtral-8x7B on 16 GPUs, EP 8 EDP 2 DP 16, in a job of 4 micro-batches.
struct Case {
  Model model = shipped("mixtral-8x7b");
  Layout layout = make_layout(16, 1, 1, 1, 1, 8);
  Job job;
  explicit Case(int zero = 1) { layout.zero = zero, job.global_batch = 64; }

  StepCurves curves() const { return step_curves(layout, machine(), 8); }
  StepCosts costs() const {
    return step_costs(model, job, layout, stage_classes(model, layout), layer_costs(model, job, layout, machine(), 8),
                      curves(), machine());
  }
  PlacedGradients place(const StepCosts& c, const MoeTimes& moe) const {
    return place_gradients(model, layout, c, {&moe, 1}, curves());
  }
};

// fp32 gradients of a Mixtral layer: attention 2 * 4096 * 4096 + 2 * 4096 * 1024, router 4096 * 8; one of the 8
// experts 3 * 4096 * 14336; token table and output matrix 32000 * 4096 each.
constexpr double kDense = 4 * (2 * 4096.0 * 4096 + 2 * 4096.0 * 1024 + 4096.0 * 8);
constexpr double kExperts = 4 * 3 * 4096.0 * 14336, kTable = 4 * 32000.0 * 4096;

TEST(Gradients, NoIdleTime_ExposesAll) {
  const Case x;
  StepCosts c = x.costs();
  c.beside_moe = {};
  const PlacedGradients placed = x.place(c, {.forward_s = 1, .backward_s = 2, .wgrad_s = 1});
  EXPECT_TRUE(placed.operations.empty());
  EXPECT_NEAR(placed.exposed_dense_bytes, 32 * kDense + 2 * kTable, 1);
  EXPECT_NEAR(placed.exposed_expert_bytes, 32 * kExperts, 1);
  EXPECT_NEAR(placed.exposed_s, c.gradients_s, 1e-9 * c.gradients_s);
  EXPECT_EQ(placed.layers.front().layer, 31);
  EXPECT_EQ(placed.layers.back().end_s, 64);
}

TEST(Gradients, LongAttention_ExposesOnlyWhatComesLast) {
  // Each layer's experts are there before its attention; its dense gradients, of which the first layer's find no layer
  // after it, and the token table's, are there at the end.
  const Case x;
  StepCosts c = x.costs();
  c.beside_moe[0] = {0, 10};
  const PlacedGradients placed = x.place(c, {.forward_s = 1, .backward_s = 2, .wgrad_s = 2});
  EXPECT_NEAR(placed.exposed_dense_bytes, kDense + kTable, 1);
  EXPECT_EQ(placed.exposed_expert_bytes, 0);
  EXPECT_EQ(placed.windows, 32);
}

TEST(Gradients, FirstLayerBackward_HasOnlyTheOutputMatrixToSend) {
  const Case x;
  StepCosts c = x.costs();
  c.beside_moe = {};
  const std::vector<Interval> idle{{0, 1}};  // before its own experts' gradients
  MoeTimes moe{.forward_s = 1, .backward_s = 2, .idle_s = 1, .idle = idle, .wgrad_s = 2};
  const PlacedGradients placed = x.place(c, moe);
  double first = 0;
  for (const auto& op : placed.operations)
    if (op.begin_s < 1) first += op.bytes;
  EXPECT_NEAR(first, kTable, 1);
}

TEST(Gradients, FullRecomputation_IsIdleBeforeTheMoeLayerToo) {
  Case x;
  x.job.recompute = Recompute::full;
  const StepCosts c = x.costs();
  EXPECT_GT(c.beside_moe[0].before_s, 0);
  EXPECT_NEAR(c.hideable_s, 32 * (c.beside_moe[0].before_s + c.beside_moe[0].after_s), 1e-12);
  const PlacedGradients placed = x.place(c, {.forward_s = 1, .backward_s = 2, .wgrad_s = 2});
  EXPECT_NEAR(placed.layers[0].end_s, c.beside_moe[0].before_s + 1 + 2 + c.beside_moe[0].after_s, 1e-9);
}

// Random layers: bytes are conserved, one operation at a time and only where the lane is idle, nothing before it is
// there, and never less exposed than the sum of idle time would.
TEST(Gradients, Laws) {
  std::mt19937 random(3);
  const auto draw = [&](double most) { return std::uniform_real_distribution<double>(0, most)(random); };
  int hidden = 0;
  for (int round = 0; round < 200; ++round) {
    Case x(round % 4);
    x.layout = make_layout(16, round % 3 == 0 ? 2 : 1, 1, x.layout.zero < 2 && round % 5 == 0 ? 2 : 1, 1, 4);
    x.layout.zero = round % 4;
    x.job.recompute = round % 2 ? Recompute::full : Recompute::none;
    StepCosts c = x.costs();
    const double unit = c.gradients_s / c.reducing_layers[0];
    c.beside_moe[0] = {draw(unit), draw(unit)};
    c.hideable_s = c.reducing_layers[0] * (c.beside_moe[0].before_s + c.beside_moe[0].after_s);
    MoeTimes moe{.forward_s = draw(unit), .backward_s = 0, .idle_s = 0, .idle = {}, .wgrad_s = 0};
    std::vector<Interval> idle;
    for (int i = 0; i < round % 6; ++i) {
      const double begin = moe.backward_s + draw(unit), end = begin + draw(unit / 2);
      idle.push_back({begin, end}), moe.idle_s += end - begin, moe.backward_s = end;
    }
    moe.idle = idle, moe.wgrad_s = draw(moe.backward_s);
    const PlacedGradients placed = x.place(c, moe);
    double dense = placed.exposed_dense_bytes, experts = placed.exposed_expert_bytes, free = 0;
    std::map<int, double> there;  // expert bytes that are there when the layer ends
    for (const auto& op : placed.operations) {
      EXPECT_GE(op.begin_s, free - 1e-12);
      EXPECT_LT(op.begin_s, op.end_s);
      free = op.end_s;
      (op.experts ? experts : dense) += op.bytes;
      const BackwardLayer& layer = placed.layers[static_cast<std::size_t>(op.place)];
      EXPECT_GE(op.begin_s, layer.begin_s);
      EXPECT_LE(op.begin_s, layer.end_s);
    }
    double sent = 0;
    for (const auto& op : placed.operations) {
      if (!op.experts) continue;
      sent += op.bytes;
      double ready = 0;
      for (const BackwardLayer& layer : placed.layers)
        if (layer.end_s - moe.backward_s - c.beside_moe[0].after_s + moe.wgrad_s <= op.begin_s + 1e-9)
          ready += c.moe_layer[0].routed * 4;
      EXPECT_LE(sent, ready * (1 + 1e-9)) << "round " << round;
    }
    const RankParameters p = rank_parameters(x.model, x.layout, c.reducing_stage);
    EXPECT_NEAR(dense, 4 * p.dense(), 1e-6 * dense);
    EXPECT_NEAR(experts, 4 * p.routed, 1e-6 * experts);
    hidden += !placed.operations.empty();
    const double bound = step_time(c, moe).gradients_ms;
    EXPECT_GE(placed_step_time(x.model, x.layout, c, {&moe, 1}, x.curves()).gradients_ms, bound);
  }
  EXPECT_GT(hidden, 100);
}

TEST(Gradients, InAPlan_AddUpAndAreExplained) {
  PlanRequest r;
  r.topology = read_topology_file(std::string(TOPOMOE_SOURCE_DIR) + "/configs/clusters/h100-2x8.json");
  r.model = shipped("mixtral-8x7b");
  r.fix = {"tp=1", "pp=2", "ep=4"};
  r.job.recompute = Recompute::full;
  r.flips = false;
  const auto plan = make_plan(r);
  ASSERT_TRUE(plan) << plan.error().message();
  const PredictedGradients& g = plan->gradients;
  const RankParameters p = rank_parameters(plan->model, plan->layout, g.stage);
  EXPECT_NEAR(g.hidden_bytes + g.exposed_bytes, 4 * (p.dense() + p.routed), 100);
  int layers = 0;
  for (const GradientLayers& run : g.layers) layers += run.layers;
  EXPECT_EQ(layers, 16);
  EXPECT_LT(g.layers.size(), 12u) << "equal layers are one";
  EXPECT_GE(plan->time.gradients_ms, g.exposed_us * 1e-3 * (1 - 1e-9));
  // The exchanges of EP 4 stay inside a node: gradients go beside the experts too, not only beside attention.
  bool beside_experts = false;
  for (const GradientLayers& run : g.layers)
    for (const auto& op : run.operations)
      beside_experts |=
          op.end_us > plan->forward.time_us && op.begin_us < plan->forward.time_us + plan->backward.time_us;
  EXPECT_TRUE(beside_experts);
  EXPECT_HAS(explain_text(*plan), "gradients  ");
  EXPECT_HAS(explain_text(*plan), "idle spans of the inter-node lane");
  const std::string text = write_plan(*plan);
  EXPECT_EQ(write_plan(read_plan(text, "plan.json")), text);
  r.job.phase = Phase::prefill;
  const auto inference = make_plan(r);
  ASSERT_TRUE(inference);
  EXPECT_TRUE(inference->gradients.layers.empty());
}

// ---- ZeRO

TEST(Zero, StagesNeverTakeLessTime) {
  const Case one(1), two(2), three(3);
  for (const double idle_s : {0.0, 1e-3, 0.1, 1.0}) {
    const MoeTimes moe{.forward_s = 1, .backward_s = 2, .idle_s = idle_s};
    const double a = step_time(one.costs(), moe).total_ms(), b = step_time(two.costs(), moe).total_ms(),
                 c = step_time(three.costs(), moe).total_ms();
    EXPECT_LE(a, b);
    EXPECT_LE(b, c);
  }
}

TEST(Zero, Two_ReducesInEveryMicroBatch) {
  // 64 sequences over DP 16: 4 micro-batches. Nothing hidden: 4 times the reduce-scatter, and one gather of weights.
  StepCosts one = Case(1).costs(), two = Case(2).costs();
  EXPECT_EQ(two.gradient_passes, 4);
  one.hideable_s = two.hideable_s = 0;
  const double a = step_time(one, MoeTimes{}).gradients_ms, b = step_time(two, MoeTimes{}).gradients_ms;
  EXPECT_NEAR(b - a, 3 * one.gradients_s * 1e3, 1e-6);
  // A single micro-batch: no difference.
  Case x(2);
  x.job.global_batch = 16;
  EXPECT_EQ(x.costs().gradient_passes, 1);
}

TEST(Zero, Three_GathersEachLayerTwiceAMicroBatch) {
  const Case x(3);
  const StepCosts c = x.costs();
  // A layer's bf16 weights, a sixteenth (dense) and half (experts) of them from each rank.
  const StepCurves k = x.curves();
  const double layer = (k.dense.gather.time_us(kDense / 2 / 16) + k.experts.gather.time_us(kExperts / 2 / 2)) * 1e-6;
  EXPECT_NEAR(c.moe_layer[0].gather_s, layer, 1e-9);
  EXPECT_NEAR(c.gather_again_s, 32 * layer, 1e-8);
  EXPECT_GE(c.gather_s, 4 * Case(1).costs().gather_s);
}

TEST(Zero, None_UpdatesEverythingOnEveryRank) {
  const StepCosts none = Case(0).costs(), one = Case(1).costs();
  EXPECT_EQ(none.gather_s, 0);
  // Dense parameters over DP 16, experts over EDP 2.
  const RankParameters p = rank_parameters(Case().model, Case().layout, 0);
  EXPECT_NEAR(none.optimizer_s / one.optimizer_s, (p.dense() + p.routed) / (p.dense() / 16 + p.routed / 2), 1e-9);
  EXPECT_GT(none.gradients_s, one.gradients_s);  // an all-reduce sends twice as much
}

}  // namespace
}  // namespace topomoe
