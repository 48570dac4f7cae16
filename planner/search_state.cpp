// What a search works out once for all layouts: memory, costs of dense parts, step times.
#include "planner/search_state.hpp"

#include <algorithm>

#include "fmt/format.h"
#include "planner/plan/capacity.hpp"

namespace topomoe {

namespace {
// Of a GPU's memory: driver context, workspaces of libraries, fragmentation. Assumed: usual jobs fail above 96%.
constexpr double kKeptFree = 0.04;
}  // namespace

std::shared_ptr<PlanCache> new_plan_cache() { return std::make_shared<PlanCache>(); }

Search::Search(const PlanRequest& r)
    : request(r),
      constraints(parse_constraints(r.fix, r.max)),
      machine(machine_of(r.topology, r.job.dtype, r.calibrations)),
      router(r.topology),
      traffic(router),
      odds(expert_popularity(r.routing, r.model.experts), r.model.top_k, r.model.router_groups,
           r.model.router_topk_groups),
      options{.split = r.split,
              .transport = r.transport,
              .chunks = r.chunks,
              .train = r.job.phase == Phase::train,
              .gated = r.model.gated_ffn,
              .fp8_dispatch = r.job.dispatch_dtype == DispatchDType::fp8},
      limit_GiB(r.memory_GiB > 0 ? r.memory_GiB : (1 - kKeptFree) * machine.memory_GiB),
      cache(r.cache ? r.cache : new_plan_cache()),
      prices(r.model, 0, r.job.dtype, machine, traffic, odds, options, cache->schedules) {
  for (int kind = 1; kind < moe_kind_count(r.model); ++kind) {
    const MoeKind k = moe_kind(r.model, kind);
    later_odds.emplace_back(expert_popularity(r.routing, k.experts), k.top_k, r.model.router_groups,
                            r.model.router_topk_groups);
    later_prices.emplace_back(r.model, kind, r.job.dtype, machine, traffic, later_odds.back(), options,
                              cache->schedules);
  }
  set_phase(machine, r.job.phase, r.model.quantized_weight_bytes);
  if (!r.topology.uniform() || (r.topology.fabric && !r.topology.fabric->exceptions.empty()))
    for (int id = 0; id < router.link_count(); ++id) {
      const LinkInfo link = router.link(id);
      double& meant = machine.meant_GBps[link.klass];
      meant = std::max(meant, link.GBps_per_direction);
    }
  constraints.target = target_limits(r.target);
  options.transports = constraints.target.transports;
  if (!constraints.target.chunked) {
    if (options.chunks > 1)
      throw InvalidInput("--chunks", std::to_string(options.chunks),
                         "target " + r.target + " moves tokens in one chunk");
    options.chunks = 1;
  }
}

MemoryBreakdown Search::memory(const Job& job, const Layout& l, TokenSplit split) {
  return memory(job, l, split, stage_classes(request.model, l));
}

MemoryBreakdown Search::memory(const Job& job, const Layout& l, TokenSplit split, std::span<const StageClass> stages) {
  const auto [skew, fresh] = skews_.try_emplace({l.ep, l.etp}, 1.0);
  if (fresh) {
    const RankGroups groups(l, gpus_per_node());
    const auto largest = [&](const RoutingOdds& kind) {
      const ExpectedCounts counts(groups, kind, 1, 1);
      return counts.share(counts.busiest()) * l.ep;
    };
    skew->second = largest(odds);
    for (const RoutingOdds& kind : later_odds) skew->second = std::max(skew->second, largest(kind));
  }
  MemoryOptions o;
  o.skew = skew->second;
  o.token_copies = split == TokenSplit::replicated && l.etp == 1 ? l.tp : 1;
  o.dispatch_scale = dispatch_scale;
  return estimate_memory(request.model, job, l, stages, o);
}

MemoryBreakdown Search::memory(const Candidate& c) {
  TokenSplit split = c.algorithm.split;  // of the kind that needs most
  for (const Algorithm& a : c.later)
    if (a.split == TokenSplit::replicated) split = a.split;
  MemoryBreakdown out = memory(c.job, c.layout, split);
  if (out.dispatch_buffers.value == 0) return out;  // every rank has all experts
  const RankGroups groups(c.layout, gpus_per_node());
  std::size_t most = 0;  // layers share buffers
  for (int kind = 0; kind < moe_kind_count(request.model); ++kind) {
    const std::size_t later = static_cast<std::size_t>(kind) - 1;
    LayerPrices& of_kind = kind == 0 ? prices : later_prices[later];
    const MoeKind k = moe_kind(request.model, kind);
    const ExpertPlacement placement(k.experts, c.layout.ep, even_blocks(k.experts, c.layout.ep));
    const LayerWidths w = of_kind.widths(c.layout);
    const Algorithm& algorithm = kind == 0 ? c.algorithm : c.later[later];
    ScheduleRequest whole = request_for(c.layout, algorithm);
    whole.shared = shared_part(request.model, kind);
    const LayerBytes bytes = layer_bytes(
        whole.shared == SharedPart::none ? of_kind.schedule(c.layout, algorithm)
                                         : build_schedule(algorithm.transport, whole),
        groups,
        {w.hidden, w.ffn_shard, w.top_k, w.experts, w.element_bytes, static_cast<double>(k.shared_ffn) / c.layout.tp},
        placement,
        {tokens(c.job, c.layout), routed_skew(expert_popularity(request.routing, k.experts), placement, k.top_k)});
    most = std::max(most, options.train ? bytes.pass() : bytes.forward);
  }
  out.dispatch_buffers = Bytes{static_cast<double>(most)};
  return out;
}

const LayerCosts& Search::layer_costs(const Job& job, const Layout& l) {
  const auto [at, fresh] = layers_.try_emplace({l.tp, l.cp, job.micro_batch, l.sequence_parallel});
  if (fresh) at->second = topomoe::layer_costs(request.model, job, l, machine, gpus_per_node());
  return at->second;
}

TimeBreakdown Search::time(const Layout& l, const StepCosts& costs, const Algorithm& a,
                           const std::vector<Algorithm>& later) {
  const auto [at, fresh] = curves_.try_emplace({l.tp, l.cp, l.pp, l.etp, l.ep, l.expert_order, l.zero == 0});
  if (fresh) at->second = step_curves(l, machine, gpus_per_node());
  return placed_step_time(request.model, l, costs, moe_times(a, later), at->second);
}

// "TP2 ... PP8, micro-batch 1, recompute full".
std::string run_name(const Layout& l, const Job& job) {
  std::string text = name(l) + fmt::format(", micro-batch {}", job.micro_batch);
  if (job.recompute != Recompute::none) text += fmt::format(", recompute {}", to_string(job.recompute));
  return text;
}

}  // namespace topomoe
