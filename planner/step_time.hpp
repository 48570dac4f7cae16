// From layers to a step: pipeline stages, bubbles, gradients, optimizer.
//
//   train    m times the slowest stage, and the other stages once (fill and drain), 1/vpp of them where interleaved
//   prefill  the same, forward only;  decode: all stages in turn
// Full recomputation runs a layer's forward once more, selective only norms, activations and MLA's up-projections.
// Between stages each micro-batch sends its tokens on: both ways on the critical path in plain 1F1B, only while
// warming up and draining where interleaved (Megatron overlaps the steady state's, not theirs). Gradients: fp32
// reduce-scatter and all-gather of weights (distributed optimizer), hidden where the last micro-batch's backward leaves
// the inter-node lane idle (FSMoE), the rest exposed. The updated weights are gathered beside the next step's first
// forward (Megatron's --overlap-param-gather), as far as its attention hides them. Ignored: data loading, stragglers.
#pragma once

#include <span>
#include <vector>

#include "planner/layer_costs.hpp"
#include "planner/memory.hpp"
#include "topomoe/plan.hpp"

namespace topomoe {

// Everything of a layout and a way to run it that no choice of algorithm changes.
struct StepCosts {
  struct Stage {
    int count = 1;  // of stages alike
    int moe_layers = 0;
    double rest_s = 0;     // all but the MoE layers' schedules, a micro-batch, all passes
    KindLayers by_kind{};  // moe_layers
    LinkTimes links;       // of rest_s, in collectives
  };
  std::vector<Stage> stages;
  double moe_forwards = 1;  // of a MoE layer in a micro-batch: 2 under full recomputation
  double micro_batches = 1;
  double fill = 1;               // what of a stage's time a fill and drain costs: 1/vpp; 0 without a pipeline
  double between_stages_s = 0;   // in a step
  double gradients_s = 0;        // summing dense and expert gradients, if nothing hides it
  double gather_s = 0;           // of updated weights, what no forward hides
  double hideable_s = 0;         // idle inter-node time beside the MoE layers of the stage that reduces most
  KindLayers reducing_layers{};  // MoE layers of that stage
  double optimizer_s = 0;
};

// Collectives around the layers: the same for every way to run a layout.
struct StepCurves {
  // fp32 gradients summed, updated weights gathered. Dense ones over DP and CP: the outer of them carries the bytes.
  struct Reduction {
    CollectiveCurve scatter, gather;
    int ranks = 1;
  } dense, experts;
  CollectiveCurve stage_to_stage;
};
StepCurves step_curves(const Layout& layout, const Machine& machine, int gpus_per_node);

StepCosts step_costs(const Model& model, const Job& job, const Layout& layout, std::span<const StageClass> stages,
                     const LayerCosts& layers, const StepCurves& curves, const Machine& machine);

// Of one MoE layer's schedule.
struct MoeTimes {
  double forward_s = 0, backward_s = 0;  // backward 0 where there is none
  double idle_s = 0;                     // of the inter-node lane in the backward
};
// Of each kind of MoE layers.
TimeBreakdown step_time(const StepCosts& c, std::span<const MoeTimes> moe);
inline TimeBreakdown step_time(const StepCosts& c, const MoeTimes& moe) { return step_time(c, {&moe, 1}); }
// What of attention_ms and bubble_ms collectives of TP and CP and sends between stages take.
LinkTimes links_beside_moe(const StepCosts& c, std::span<const MoeTimes> moe, bool stages_on_other_nodes);

}  // namespace topomoe
