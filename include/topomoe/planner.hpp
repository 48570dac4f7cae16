// The planner: from what a cluster is and what is to be trained on it to a Plan. Pure: no clocks, no
// environment, no files; the same arguments give the same plan.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "topomoe/calibration.hpp"
#include "topomoe/error.hpp"
#include "topomoe/job.hpp"
#include "topomoe/model.hpp"
#include "topomoe/plan.hpp"
#include "topomoe/routing.hpp"
#include "topomoe/topology.hpp"

namespace topomoe {

// What plans of one model have in common (schedules by request), kept from one make_plan to the next. It changes no
// plan. Not thread-safe: one for each thread.
struct PlanCache;
std::shared_ptr<PlanCache> new_plan_cache();

struct PlanRequest {
  Topology topology;          // all its GPUs are used
  std::string topology_note;  // what resize_hosts said
  Model model;
  Job job;  // micro_batch 0 and recompute automatic are chosen
  RoutingProfile routing;
  std::vector<Calibration> calibrations;  // what was measured, of this machine or others; may be empty
  std::vector<std::string> fix, max;      // "tp=8", as on the command line; also vpp, mbs and zero
  std::string target = "any";             // only what this training stack can run: megatron, deepspeed
  double memory_GiB = 0;                  // of a GPU; 0: what the topology says
  // Restrict the algorithm; empty: all. "sliced" or "replicated"; a name of transports(); 0: any n.
  std::string split, transport;
  int chunks = 0;
  bool flips = true;  // fill flips, sensitivity and the front of time and memory, and say where fewer GPUs are faster:
                      // more searches
  std::shared_ptr<PlanCache> cache;  // may be null
  bool exhaustive = false;           // prices everything; the choice is the same
};

// The fastest plan that fits. Infeasible names the binding constraint and the smallest change that helps.
// Throws InvalidInput where the request itself makes no sense.
Expected<Plan, Infeasible> make_plan(const PlanRequest& request);

// The decision for people: layout, algorithm, bottleneck, the MoE layer step by step, memory, what was
// rejected and why, where the choice would flip.
std::string explain_text(const Plan& plan);
// The words that plans use, a line each.
std::string glossary_text();

}  // namespace topomoe
