// Which gradients are reduced when: in the idle spans of the inter-node lane that come after their own layer's
// backward.
//
// Model: the last micro-batch goes backward through the layers of the stage that reduces most, one after another: what
// full recomputation repeats, the MoE layer's schedule, then attention (and dense or shared experts). The lane is idle
// beside all but the schedule's own exchanges. An expert's gradient is there with the schedule's last weight gradient,
// the rest of a layer's at its end, the output matrix's before the first layer, the token table's after the last.
// Expert gradients and dense ones are reduced by different groups: that which takes longer is placed first
// (planner/gradient_slack), the other into what is left. Operations are worth it in spans of twice an empty one's time.
// Under ZeRO 3 the next layer's weights are gathered beside a layer before any gradient goes there. What finds no span
// is exposed: one operation a group. Ignored: idle spans of the recomputed forward, those between the last passes of
// virtual stages, the time that a later stage waits for the drain, and what a reduction takes of SMs and HBM.
#pragma once

#include "planner/step_time.hpp"

namespace topomoe {

// A layer of the reducing stage, in order of the backward: seconds from the begin of the first.
struct BackwardLayer {
  int layer = 0;  // of the model; MTP layers follow the last one
  bool moe = true;
  double begin_s = 0, end_s = 0;
};

struct PlacedGradients {
  struct Operation {
    bool experts = false;  // or dense
    int place = 0;         // of the layer that goes backward when it begins, in `layers`
    double begin_s = 0, end_s = 0, bytes = 0;
  };
  std::vector<BackwardLayer> layers;
  std::vector<Operation> operations;  // in order of time
  int windows = 0;                    // that one of them is in
  double exposed_dense_bytes = 0, exposed_expert_bytes = 0;
  double exposed_s = 0;  // all that is left, and what no span hides of ZeRO 3's gathered weights
};

// moe: of each kind of MoE layers.
PlacedGradients place_gradients(const Model& model, const Layout& layout, const StepCosts& costs,
                                std::span<const MoeTimes> moe, const StepCurves& curves);

// step_time(costs, moe) with gradients placed: never below it.
TimeBreakdown placed_step_time(const Model& model, const Layout& layout, const StepCosts& costs,
                               std::span<const MoeTimes> moe, const StepCurves& curves);

// For a plan: to the nanosecond and the byte, layers with equal operations as one.
PredictedGradients predicted_gradients(const PlacedGradients& placed, const Layout& layout, const StepCosts& costs);

}  // namespace topomoe
