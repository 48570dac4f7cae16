// From the price of one MoE layer to the time of a training step, a prefill or a decode step.
//
//   train   (m + (pp-1)/vpp) x stage + gradients not hidden + optimizer, m micro-batches
//   stage   layers of the slowest stage, forward and backward (backward = 2 x forward for GEMMs; its
//           collectives once; full recompute adds a forward)
//   prefill (m + pp - 1) x forward of a stage;  decode: all layers once
// Attention and dense parts by roofline: flops over peak or bytes over HBM, with the efficiencies of
// planner/machine.hpp. TP collectives around them are not overlapped. Gradient reduction of the last
// micro-batch fills the inter-node lane's idle time in its backward (FSMoE), the rest is exposed.
// Ignored: pipeline point-to-point transfers, selective recompute's elementwise work, data loading.
#pragma once

#include "planner/machine.hpp"
#include "planner/memory.hpp"
#include "planner/traffic.hpp"
#include "topomoe/job.hpp"
#include "topomoe/model.hpp"
#include "topomoe/plan.hpp"

namespace topomoe {

// Everything of a layout that no choice of algorithm changes.
struct LayoutCosts {
  double attention_s = 0;  // per layer and micro-batch, forward (+ backward in training)
  double dense_s = 0;      // FFN of a dense layer
  double shared_s = 0;     // shared experts of a MoE layer
  double logits_s = 0;     // last stage, per micro-batch
  double gradients_s = 0;  // reduction of dense and expert gradients, if nothing hides it
  double optimizer_s = 0;
  double parallel_micro_batches = 1;  // m + bubble
  double micro_batches = 1;
  int moe_layers = 0, dense_layers = 0;  // of the slowest stage
};

LayoutCosts layout_costs(const Model& model, const Job& job, const Layout& layout, const Machine& machine,
                         TrafficModel& traffic);

// moe_s: one MoE layer, forward (+ backward in training); idle_s: inter-node idle time of one layer's backward.
TimeBreakdown step_time(const LayoutCosts& c, double moe_s, double idle_s);

}  // namespace topomoe
