// Plans and schedules for the tests of their JSON and checks: a plan of believable numbers around a
// schedule of `flat`, and every schedule that the builders make.
#pragma once

#include <string>
#include <vector>

#include "planner/schedules/build.hpp"
#include "tests/planner/helpers.hpp"
#include "topomoe/plan.hpp"

namespace topomoe {

// TP8, ETP8, EP2 and as many replicas as `world` allows; n chunks in n pieces.
inline Plan sample_plan(int n, int world = 16) {
  Plan p;
  p.topology = {"h100-2x8",
                "0123456789abcdef",
                world / 8,
                world,
                8,
                "2 hosts of 32",
                {"nic 50 GB/s: assumed", "a \"quoted\" line"}};
  p.model = shipped("mixtral-8x7b");
  p.routing = {RoutingProfile::Kind::zipf, 0.1, {}, "zipf 0.1"};
  p.layout = make_layout(world, 8, 1, 1, 8, 2);
  for (int rank = 0; rank < world; ++rank)
    p.ranks.push_back({"host" + std::to_string(rank / 8), rank % 8 == 7 ? "" : "0000:1b:00.0"});
  for (int e = 0; e < p.model.experts; ++e) p.expert_owners.push_back({e * p.layout.ep / p.model.experts});
  p.schedule =
      build_schedule("flat", {.split = TokenSplit::sliced, .tp = 8, .etp = 8, .ep = 2, .chunks = n, .pieces = n});
  const auto predict = [](const std::vector<Step>& steps, PredictedPass& pass) {
    for (const Step& s : steps) {
      const double begin = pass.time_us;
      pass.time_us += 100.0 / 3;  // not exact in binary: must read back as the same double
      pass.steps.push_back(
          {s.name, begin, pass.time_us, 33, 1.5e9, s.kind == StepKind::exchange ? "nic_out host0/nic0" : "hbm"});
    }
    pass.bound_us = pass.time_us * 0.7;
    pass.bound_by = "nic_out host0/nic0";
  };
  predict(p.schedule.forward, p.forward);
  predict(p.schedule.backward, p.backward);
  p.time = {123.4, 0.1, 0, 1e-7, 3};
  p.tokens_per_rank = 4096;
  p.model_TFLOPps_per_gpu = 412.5, p.peak_TFLOPps_per_gpu = 989;
  p.loads = {{"nic_out", "host0/nic0", 50, 1e9, 2e4}, {"nvlink", "host0/gpu0 -> nvswitch", 450, 3e9, 6666.7}};
  p.memory_GiB = {{"weights", 30.5}, {"optimizer", 20}, {"activations", 10.25}};
  p.memory_limit_GiB = 80;
  p.low_ms = 100.1, p.high_ms = 150;
  p.rates = {{"exchange between nodes", "datasheet, efficiencies assumed", 0.3}};
  p.gradients = {0,
                 9e5,
                 2,
                 3.5e9,
                 2e8,
                 4100.0 / 3,
                 {{31, 1, 3000, {}}, {30, 31, 2900, {{Role::edp, 100.0 / 3, 900, 1e8}, {Role::dp, 1000, 1100, 1e7}}}},
                 {{Role::dp, 5e7}, {Role::edp, 1.5e8}}};
  p.gradients.hidden_bytes = 31 * 1.1e8;
  p.layouts_enumerated = 120, p.layouts_too_large = 40, p.schedules_priced = 900, p.layouts_pruned = 7;
  p.rejected = {{"TP4 CP1 DP4 PP1 | ETP4 EP4 EDP1", "sliced flat n=2", 150.5, 70, true, "slower by 20 %"}};
  p.pareto = {{"TP8 CP1 DP2 PP1 | ETP8 EP2 EDP1", "sliced flat n=2", 126.5, 60.75}};
  p.sensitivity = {{"nic_out", 0.8, 140.1, true, "TP4 CP1 DP4 PP1 | ETP4 EP4 EDP1", "sliced flat n=3"}};
  p.flips = {{Flip::kTokens, 2048, false, "replicated flat n=1"}, {Flip::kSkew, 2, true, ""}};
  return p;
}

// Calls visit(schedule) for all transports, splits, tensor layouts, chunk and piece counts, and now and then with a
// backward that is cut otherwise, a shared expert, or tokens that go out as fp8 to experts with or without a gate.
template <class Visit>
void each_schedule(const std::vector<int>& chunk_counts, Visit visit) {
  for (const Transport& t : transports())
    for (const TokenSplit split : {TokenSplit::sliced, TokenSplit::replicated})
      for (const auto& [tp, etp, sp] :
           {std::tuple{1, 1, false}, {2, 1, false}, {2, 2, false}, {2, 1, true}, {2, 2, true}})
        for (const int n : chunk_counts)
          for (int r = 1; r <= n; ++r) {
            ScheduleRequest request{
                .split = split, .tp = tp, .etp = etp, .ep = 4, .sequence_parallel = sp, .chunks = n, .pieces = r};
            if (n % r != 0 || !t.refuses(request).empty()) continue;
            visit(t.build(request));
            if (r > 1) continue;
            request.backward_chunks = n + 1, request.backward_pieces = n + 1;
            visit(t.build(request));
            request.shared = n % 2 == 0 ? SharedPart::mixed : SharedPart::added;
            visit(t.build(request));
            request.fp8_dispatch = true, request.gated = n % 2 == 0;
            visit(t.build(request));
          }
}

}  // namespace topomoe
