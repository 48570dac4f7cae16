// From layers to a step: pipeline stages, bubbles, gradients, optimizer.
//
//   train    m times the slowest stage, and the other stages once (fill and drain), 1/vpp of them where interleaved
//   prefill  the same, forward only;  decode: all stages in turn
// Full recomputation runs a layer's forward once more, selective only norms, activations and MLA's up-projections.
// Between stages each micro-batch sends its tokens on: both ways on the critical path in plain 1F1B, only while
// warming up and draining where interleaved (Megatron overlaps the steady state's, not theirs). Gradients: fp32
// reduce-scatter and all-gather of weights (distributed optimizer). step_time() hides of it the sum of what a
// micro-batch's backward leaves the inter-node lane idle (FSMoE): a bound that planner/gradients, which knows when each
// gradient is there and when the lane is idle, is never below. The updated weights are gathered beside the next step's
// first forward (Megatron's --overlap-param-gather), as far as its attention hides them.
//
// ZeRO (Layout::zero) 0: all-reduce, and every rank updates all; 1: as above; 2: a reduce-scatter in each micro-batch,
// since no rank has room to accumulate; 3: also each layer's weights gathered in each micro-batch, in the forward
// beside attention a layer ahead, in the backward in the same idle time as gradients. A higher stage never takes less
// time. Ignored: data loading, stragglers, ZeRO's own bookkeeping, gathering part of the weights only (ZeRO++).
#pragma once

#include <array>
#include <span>
#include <vector>

#include "planner/layer_costs.hpp"
#include "planner/memory.hpp"
#include "planner/timeline.hpp"
#include "topomoe/plan.hpp"

namespace topomoe {

// Of one layer: parameters of a rank, and seconds to gather its weights under ZeRO 3.
struct LayerParameters {
  double dense = 0, routed = 0, gather_s = 0;
};
// What of a layer's backward leaves the inter-node lane idle, apart from the MoE layer's schedule: the part of the
// forward that is computed again, and the backward.
struct LayerBeside {
  double before_s = 0, after_s = 0;
};

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
  double gradients_s = 0;        // summing dense and expert gradients once, if nothing hides it
  double gather_again_s = 0;     // of weights, in the same backward (ZeRO 3)
  double gradient_passes = 1;    // backwards in a step that reduce
  double gather_s = 0;           // of weights in a step, what no forward hides
  double hideable_s = 0;         // idle inter-node time beside the MoE layers of the stage that reduces most
  KindLayers reducing_layers{};  // MoE layers of that stage
  int reducing_stage = 0;
  std::array<LayerParameters, kMaxMoeKinds> moe_layer{};
  LayerParameters dense_layer, mtp_layer;
  std::array<LayerBeside, kMaxMoeKinds> beside_moe{};
  LayerBeside beside_dense;
  double optimizer_s = 0;
};

// Collectives around the layers: the same for every way to run a layout.
struct StepCurves {
  // fp32 gradients summed, updated weights gathered. Dense ones over DP and CP: the outer of them carries the bytes.
  struct Reduction {
    CollectiveCurve scatter, gather;  // ZeRO 0: all-reduce, nothing
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
  std::span<const Interval> idle = {};   // when
  double wgrad_s = 0;                    // until the experts' weight gradients are there
};
// Of each kind of MoE layers.
TimeBreakdown step_time(const StepCosts& c, std::span<const MoeTimes> moe);
inline TimeBreakdown step_time(const StepCosts& c, const MoeTimes& moe) { return step_time(c, {&moe, 1}); }
// What of attention_ms and bubble_ms collectives of TP and CP and sends between stages take.
LinkTimes links_beside_moe(const StepCosts& c, std::span<const MoeTimes> moe, bool stages_on_other_nodes);

}  // namespace topomoe
