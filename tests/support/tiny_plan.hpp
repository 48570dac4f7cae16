// A whole plan of four ranks that takes milliseconds to make, for tests of what reads one.
#pragma once

#include <stdexcept>

#include "topomoe/planner.hpp"

namespace topomoe::testing {

// Two hosts of two GPUs, TP2 EP2: `change` may ask for another model.
template <class Change>
Plan planned(Change change) {
  const auto rate = [](double GBps) { return Rate{GBps, 0.5, Source::assumed, "made up"}; };
  HostShape shape;
  shape.kind = "nvswitch";
  shape.gpus = 2, shape.nics = 2;
  shape.nvlink = rate(450), shape.pcie = rate(64), shape.nic = rate(50);
  PlanRequest r;
  r.topology.name = "2x2";
  r.topology.templates = {build_host(shape, {"made up", 80, 3350, 989, 1978, 67, 132, Source::assumed, ""}, "host")};
  r.topology.groups = {{0, 2}};
  r.topology.fabric = Fabric{};
  r.topology.fabric->rails = 2;
  r.topology.fabric->rail_optimised = true;
  r.topology.fabric->hosts_per_leaf = 2;
  r.topology.fabric->spine_count = 1;
  r.topology.fabric->uplink = rate(200);
  Model& m = r.model;
  m.name = "tiny", m.model_type = "mixtral";
  m.hidden = 16, m.layers = 1, m.heads = 2, m.kv_heads = 2, m.head_dim = 8, m.vocab = 64;
  m.experts = 4, m.top_k = 2, m.expert_ffn = 24, m.is_moe = {1}, m.renormalize = true;
  r.job.sequence = 16, r.job.global_batch = 4;
  r.job.sequence_parallel = SequenceParallel::off;
  r.fix = {"tp=2", "ep=2", "etp=2", "pp=1", "cp=1"};
  r.split = "sliced", r.transport = "flat", r.chunks = 2;
  r.flips = false;
  change(r);
  const auto plan = make_plan(r);
  if (!plan) throw std::runtime_error(plan.error().message());
  return *plan;
}
inline const Plan& tiny() {
  static const Plan plan = planned([](PlanRequest&) {});
  return plan;
}

}  // namespace topomoe::testing
