// A Plan: the decision, why it was taken, and all that is needed to execute it (DESIGN 7).
//
// A plain value, written as plan.json (schema topomoe.plan/1 in configs/schema). The same inputs give the
// same bytes: no clocks, no paths, keys in a fixed order. It carries the schedules themselves; the runtime
// executes them as they are and searches nothing. Its size grows with the world only by `ranks` and
// `expert_owners`.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "topomoe/job.hpp"
#include "topomoe/layout.hpp"
#include "topomoe/model.hpp"
#include "topomoe/routing.hpp"
#include "topomoe/schedule.hpp"

namespace topomoe {

// What the plan was made for, and how to recognise it.
struct PlannedTopology {
  std::string name;
  std::string fingerprint;  // 16 hex digits; of the topology as planned, after --gpus
  int hosts = 0, gpus = 0, gpus_per_node = 0;
  std::string note;                   // what --gpus changed, and whether fewer GPUs are faster; empty if nothing
  std::vector<std::string> warnings;  // what is unknown or assumed
};

struct PlannedRank {
  std::string host;    // "host3", or what people call it
  std::string bus_id;  // empty where the topology does not know it
};

// One step of a pass as predicted: seconds from the pass's begin, on the representative (busiest) rank.
struct PredictedStep {
  std::string name;  // of the schedule's step
  double begin_us = 0, end_us = 0;
  double alone_us = 0;     // without contention
  double bytes = 0;        // this rank sends to others (communication), or moves through memory
  std::string bottleneck;  // what it waits for most: a link's name, "hbm", "compute", "latency"
};

struct PredictedPass {
  double time_us = 0;                // fluid timeline
  double bound_us = 0;               // no execution can be faster: max over resources of volume / raw rate
  std::string bound_by;              // the resource or link that attains it
  std::vector<PredictedStep> steps;  // same order as the schedule's
};

// Load of one class of equal links in one MoE layer, forward and backward.
struct LinkClassLoad {
  std::string link_class;  // "nvlink", "nic_out", ...
  std::string link;        // the busiest one, by name
  double GBps_per_direction = 0;
  double bytes = 0;  // on it
  double busy_us = 0;
};

// Time of one optimizer step (train) or of one pass (prefill, decode), ms.
struct TimeBreakdown {
  double moe_ms = 0;        // MoE layers of the slowest stage, all micro-batches
  double attention_ms = 0;  // attention, dense and shared parts
  double bubble_ms = 0;     // pipeline fill and drain
  double gradients_ms = 0;  // reduction that nothing hides
  double other_ms = 0;      // embedding, logits, optimizer
  double total_ms() const { return moe_ms + attention_ms + bubble_ms + gradients_ms + other_ms; }
};

// Where a figure comes from and how far off such figures were where they could be checked (planner_accuracy):
// 0.1 says that nine in ten lay within a factor of 1.1.
struct RateSource {
  std::string what;    // "exchange inside a node"
  std::string source;  // "measured: ...", "scaled from ...", "datasheet"
  double error = 0;
};

// A reduction of gradients in the idle time of the inter-node lane.
struct GradientOperation {
  Role group = Role::dp;            // dp or cp: dense gradients; edp: those of experts
  double begin_us = 0, end_us = 0;  // from the begin of the backward of the layer in which it begins
  double bytes = 0;                 // of fp32 gradients, before they are reduced
  bool operator==(const GradientOperation&) const = default;
};
// Consecutive layers, in order of the backward, beside which the same is reduced.
struct GradientLayers {
  int first = 0;           // of the model, MTP layers after the last one
  int layers = 1;          // how many, each the one before the last in the backward's order
  double backward_us = 0;  // of one, with what is computed again
  std::vector<GradientOperation> operations;
};
// Gradients of one backward of a micro-batch that reduces, on the stage that reduces most.
struct PredictedGradients {
  int stage = 0;
  double backward_us = 0;  // of all layers of the stage
  int windows = 0;         // idle spans that something was put into
  double hidden_bytes = 0, exposed_bytes = 0;
  double exposed_us = 0;  // after the backward; under ZeRO 3 with weights that no idle span hides
  std::vector<GradientLayers> layers;
  std::vector<std::pair<Role, double>> exposed;  // bytes, one operation each
};

// Another candidate and why it lost.
struct Rejected {
  std::string layout, algorithm;
  double time_ms = 0;  // 0 where it was never priced
  double memory_GiB = 0;
  bool undecided = false;  // the difference is smaller than the errors of what they differ in
  std::string reason;
};

// A candidate that no other beats in both time and memory.
struct ParetoPoint {
  std::string layout, algorithm;
  double time_ms = 0, memory_GiB = 0;
};

// The same search, among the best candidates, with one rate changed.
struct Sensitivity {
  std::string rate;  // "nic_out", "hbm", "compute", ...
  double factor = 1;
  double time_ms = 0;  // of the choice then
  bool changes = false;
  std::string layout, algorithm;  // the choice then
};

// Where the choice would change.
struct Flip {
  static constexpr const char* kTokens = "tokens per rank";
  static constexpr const char* kSkew = "routing skew";  // Zipf's exponent
  std::string quantity;                                 // one of them
  double at = 0;                                        // below it, or from it on upward, another choice is made
  bool above = false;
  std::string instead;  // that choice; empty: looked as far as `at` and found none
};

// Of the MoE layers of one kind (Model::moe_kinds) what a Plan says of those of the first.
struct PlannedKind {
  ExpertOwners expert_owners;
  Schedule schedule;
  PredictedPass forward, backward;
  std::vector<LinkClassLoad> loads;
};

struct Plan {
  PlannedTopology topology;
  Model model;
  Job job;
  RoutingProfile routing;
  Layout layout;
  std::vector<PlannedRank> ranks;  // rank -> device
  ExpertOwners expert_owners;      // the planner makes even blocks; the runtime executes any
  Schedule schedule;               // of the MoE layers of the first kind; forward and backward
  PredictedPass forward, backward;
  std::vector<PlannedKind> later_kinds;  // of the others; empty where all MoE layers are alike
  TimeBreakdown time;
  PredictedGradients gradients;      // of training
  double tokens_per_rank = 0;        // T of DESIGN 5: tokens that a TP group holds in one micro-batch
  double model_TFLOPps_per_gpu = 0;  // Megatron's convention
  double peak_TFLOPps_per_gpu = 0;   // dense, of the job's dtype; MFU is the one over the other
  std::vector<LinkClassLoad> loads;
  std::vector<std::pair<std::string, double>> memory_GiB;  // by bucket, worst stage
  int memory_stage = 0;
  double memory_limit_GiB = 0;
  double low_ms = 0, high_ms = 0;  // nine steps in ten are expected between them
  std::vector<RateSource> rates;
  std::int64_t layouts_enumerated = 0, layouts_too_large = 0, schedules_priced = 0, layouts_pruned = 0;
  std::vector<Rejected> rejected;
  std::vector<Flip> flips;
  std::vector<ParetoPoint> pareto;  // in order of time, the choice first
  std::vector<Sensitivity> sensitivity;
};

std::string algorithms_name(const Plan& plan);  // of all kinds of MoE layers

// plan.json as text, ending in a newline; byte-identical for equal plans.
std::string write_plan(const Plan& plan);
// Throws InvalidInput naming what is missing, unknown or inconsistent. read(write(p)) writes the same text.
Plan read_plan(const std::string& text, const std::string& where);
// 16 hex digits over write_plan's text; ranks compare it before their first collective.
std::string plan_hash(const Plan& plan);

}  // namespace topomoe
