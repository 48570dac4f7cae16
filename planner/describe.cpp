// A chosen candidate as a Plan: everything is priced once more, in full.

#include <algorithm>

#include "fmt/format.h"
#include "planner/certainty.hpp"

namespace topomoe {
namespace {

void add_loads(std::vector<LinkClassLoad>& all, const std::vector<LinkClassLoad>& more) {
  for (const LinkClassLoad& l : more) {
    const auto row = std::find_if(all.begin(), all.end(), [&](const auto& x) { return x.link_class == l.link_class; });
    if (row == all.end())
      all.push_back(l);
    else
      row->bytes += l.bytes, row->busy_us += l.busy_us;
  }
}

// The shared expert's steps are carried for whoever executes the schedule. Their time is in the dense parts
// (layer_costs): here they take none, and end with what they wait for.
PredictedPass carried(PredictedPass pass, const std::vector<Step>& steps) {
  std::vector<PredictedStep> all;
  auto next = pass.steps.begin();
  for (const Step& step : steps) {
    if (!step.beside) {
      all.push_back(std::move(*next++));
      continue;
    }
    PredictedStep& p = all.emplace_back(PredictedStep{.name = step.name, .bottleneck = "in the dense parts"});
    for (const int before : step.after) p.end_us = std::max(p.end_us, all[static_cast<std::size_t>(before)].end_us);
    p.begin_us = p.end_us;
  }
  pass.steps = std::move(all);
  return pass;
}

PlannedKind describe_kind(Search& s, const Candidate& c, int kind) {
  const std::size_t later = static_cast<std::size_t>(kind) - 1;
  LayerPrices& prices = kind == 0 ? s.prices : s.later_prices[later];
  PlannedKind p;
  p.expert_owners = even_blocks(moe_kind(s.request.model, kind).experts, c.layout.ep);
  const Algorithm& algorithm = kind == 0 ? c.algorithm : c.later[later];
  p.schedule = prices.schedule(c.layout, algorithm);
  const RankGroups groups(c.layout, s.gpus_per_node());
  LayerPricer pricer(s.traffic, s.machine, groups, prices.widths(c.layout), kind == 0 ? s.odds : s.later_odds[later],
                     s.tokens(c.job, c.layout));
  const auto priced = [&](bool backward) {
    PredictedPass pass = pricer.price(p.schedule, backward);
    const LayerPricer::Bound bound = pricer.lower_bound(p.schedule, backward);
    pass.bound_us = bound.seconds * 1e6, pass.bound_by = bound.by;
    return pass;
  };
  p.forward = priced(false);
  add_loads(p.loads, pricer.last_loads());
  if (s.options.train) {
    p.backward = priced(true);
    add_loads(p.loads, pricer.last_loads());
  }
  if (const SharedPart shared = shared_part(s.request.model, kind); shared != SharedPart::none) {
    ScheduleRequest request = request_for(c.layout, algorithm);
    request.shared = shared;
    p.schedule = build_schedule(algorithm.transport, request);
    p.forward = carried(std::move(p.forward), p.schedule.forward);
    if (s.options.train) p.backward = carried(std::move(p.backward), p.schedule.backward);
  }
  return p;
}

}  // namespace

Plan describe(Search& s, const Candidate& c) {
  const PlanRequest& r = s.request;
  Plan p;
  p.topology = {r.topology.name,   fingerprint(r.topology), r.topology.host_count(), r.topology.gpu_count(),
                s.gpus_per_node(), r.topology_note,         r.topology.warnings};
  p.model = r.model, p.job = c.job, p.routing = r.routing, p.layout = c.layout;
  for (int rank = 0; rank < c.layout.world; ++rank)
    p.ranks.push_back({r.topology.host_name(r.topology.host_of(rank)), r.topology.bus_id(rank)});
  PlannedKind first = describe_kind(s, c, 0);
  p.expert_owners = std::move(first.expert_owners), p.schedule = std::move(first.schedule);
  p.forward = std::move(first.forward), p.backward = std::move(first.backward), p.loads = std::move(first.loads);
  for (int kind = 1; kind < moe_kind_count(r.model); ++kind) p.later_kinds.push_back(describe_kind(s, c, kind));
  p.time = c.time;
  if (s.options.train) {
    const StepCurves curves = step_curves(c.layout, s.machine, s.gpus_per_node());
    p.gradients = predicted_gradients(
        place_gradients(r.model, c.layout, c.costs, moe_times(c.algorithm, c.later), curves), c.layout, c.costs);
  }
  p.tokens_per_rank = s.tokens(c.job, c.layout);
  const double flops = model_flops_per_token(r.model, r.job.sequence) / (s.options.train ? 1 : 3);
  p.peak_TFLOPps_per_gpu = s.machine.flops.value * 1e-12;
  p.model_TFLOPps_per_gpu = flops * tokens_per_step(c.job) / (c.time.total_ms() * 1e-3) / c.layout.world * 1e-12;
  const MemoryBreakdown memory = s.memory(c);
  for (const auto& [bucket, size] : memory.buckets()) p.memory_GiB.emplace_back(bucket, in_GiB(size));
  p.memory_stage = memory.stage;
  p.memory_limit_GiB = s.limit_GiB;
  const double error = error_ms(s.machine, time_parts(s, c));
  p.low_ms = c.time.total_ms() * c.time.total_ms() / (c.time.total_ms() + error);
  p.high_ms = c.time.total_ms() + error;
  p.rates = s.machine.sources;
  return p;
}

}  // namespace topomoe
