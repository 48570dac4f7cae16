// Exhaustive search: every layout that fits, every algorithm that applies to it, priced on its timeline;
// layouts whose lower bound is above the best are not refined. See include/topomoe/planner.hpp.

#include <algorithm>
#include <cmath>

#include "fmt/format.h"
#include "planner/algorithm_choice.hpp"
#include "planner/flips.hpp"
#include "planner/layout_space.hpp"
#include "planner/memory.hpp"
#include "planner/step_time.hpp"
#include "topomoe/planner.hpp"

namespace topomoe {
namespace {

struct Candidate {
  Layout layout;
  LayoutCosts costs;
  Algorithm algorithm;
  TimeBreakdown time;
  double memory_GiB = 0;
};

// What of a request stays the same for all layouts.
struct Search {
  explicit Search(const PlanRequest& r)
      : request(r),
        machine(machine_of(r.topology, r.job.dtype)),
        router(r.topology),
        traffic(router),
        popularity(expert_popularity(r.routing, r.model.experts)),
        options{r.split, r.transport, r.chunks, r.job.phase == Phase::train, r.job.recompute == Recompute::full},
        limit_GiB(r.memory_GiB > 0 ? r.memory_GiB : machine.memory_GiB) {}

  const PlanRequest& request;
  Machine machine;
  Router router;
  TrafficModel traffic;
  std::vector<double> popularity;
  AlgorithmOptions options;
  double limit_GiB;
  ScheduleCache schedules;
  std::int64_t priced = 0;

  int gpus_per_node() const { return request.topology.gpus_per_node(); }
  LayerWidths widths(const Layout& l) const {
    const Model& m = request.model;
    return {
        static_cast<double>(m.hidden), static_cast<double>(m.expert_ffn) / l.etp,       static_cast<double>(m.experts),
        static_cast<double>(m.top_k),  static_cast<double>(size_of(request.job.dtype)), m.gated_ffn ? 3 : 2};
  }
  double tokens(const Layout& l) const { return tokens_per_micro_batch(request.job, l.cp); }
  MemoryBreakdown memory(const Job& job, const Layout& l, TokenSplit split) const {
    const RankGroups groups(l, gpus_per_node());
    const ExpectedCounts counts(groups, popularity, request.model.top_k, 1, 1);
    MemoryOptions o;
    o.skew = counts.share(counts.busiest()) * l.ep;
    o.token_copies = split == TokenSplit::replicated && l.etp == 1 ? l.tp : 1;
    return estimate_memory(request.model, job, l, o);
  }
};

double injected(const Layout& l, const Algorithm& a, double tokens) {
  return a.split == TokenSplit::sliced ? tokens / l.tp : tokens;
}

// The smallest change after which something fits: recomputation, then more GPUs.
Infeasible too_large(Search& s, const std::vector<Layout>& layouts, const LayoutConstraints& constraints) {
  const auto least = [&](const Job& job, const std::vector<Layout>& all, Layout* which) {
    double best = std::numeric_limits<double>::infinity();
    for (const Layout& l : all) {
      const double GiB = in_GiB(s.memory(job, l, TokenSplit::sliced).total());
      if (GiB < best) best = GiB, *which = l;
    }
    return best;
  };
  const PlanRequest& r = s.request;
  Layout best;
  const double need = least(r.job, layouts, &best);
  const auto buckets = s.memory(r.job, best, TokenSplit::sliced).buckets();
  const auto largest =
      std::max_element(buckets.begin(), buckets.end(), [](auto& a, auto& b) { return a.second < b.second; });
  const std::string constraint =
      fmt::format("memory: the smallest layout ({}) needs {:.1f} GiB a GPU ({} {:.1f}), the limit is {:.1f} GiB",
                  name(best), need, largest->first, in_GiB(largest->second), s.limit_GiB);
  if (r.job.phase == Phase::train && r.job.recompute != Recompute::full) {
    Job job = r.job;
    job.recompute = Recompute::full;
    Layout l;
    if (const double GiB = least(job, layouts, &l); GiB <= s.limit_GiB)
      return {constraint, fmt::format("--recompute full fits: {:.1f} GiB with {}", GiB, name(l))};
  }
  for (int factor = 2; factor <= 1024 && r.topology.gpu_count() <= 10'000'000 / factor; factor *= 2) {
    const int world = r.topology.gpu_count() * factor;
    Job job = r.job;
    const auto more = enumerate_layouts(world, s.gpus_per_node(), r.model, job, constraints);
    if (!more) continue;
    Layout l;
    if (const double GiB = least(job, *more, &l); GiB <= s.limit_GiB)
      return {constraint, fmt::format("--gpus {} fits: {:.1f} GiB with {}", world, GiB, name(l))};
  }
  return {constraint, fmt::format("--memory-GiB {:.0f} would be needed", std::ceil(need))};
}

std::string why_slower(const Candidate& c, const Candidate& chosen) {
  const std::pair<const char*, double> parts[] = {
      {"MoE layers", c.time.moe_ms - chosen.time.moe_ms},
      {"attention and TP collectives", c.time.attention_ms - chosen.time.attention_ms},
      {"pipeline bubble", c.time.bubble_ms - chosen.time.bubble_ms},
      {"exposed gradient reduction", c.time.gradients_ms - chosen.time.gradients_ms},
      {"logits and optimizer", c.time.other_ms - chosen.time.other_ms}};
  const auto worst =
      std::max_element(std::begin(parts), std::end(parts), [](auto& a, auto& b) { return a.second < b.second; });
  return fmt::format("{:.1f}% slower: {} cost {:.1f} ms more", 100 * (c.time.total_ms() / chosen.time.total_ms() - 1),
                     worst->first, worst->second);
}

void add_loads(std::vector<LinkClassLoad>& all, const std::vector<LinkClassLoad>& more) {
  for (const LinkClassLoad& l : more) {
    const auto row = std::find_if(all.begin(), all.end(), [&](const auto& x) { return x.link_class == l.link_class; });
    if (row == all.end())
      all.push_back(l);
    else
      row->bytes += l.bytes, row->busy_us += l.busy_us;
  }
}

Plan describe(Search& s, const Candidate& c) {
  const PlanRequest& r = s.request;
  Plan p;
  p.topology = {r.topology.name,   fingerprint(r.topology), r.topology.host_count(), r.topology.gpu_count(),
                s.gpus_per_node(), r.topology_note,         r.topology.warnings};
  if (r.model.router_groups > 1)
    p.topology.warnings.push_back(fmt::format(
        "routing: the router may reach {} of {} expert groups; priced as if it could reach all, so distinct nodes a "
        "token (node_dedup's traffic) are overestimated",
        r.model.router_topk_groups, r.model.router_groups));
  p.model = r.model, p.job = r.job, p.routing = r.routing, p.layout = c.layout;
  for (int rank = 0; rank < c.layout.world; ++rank)
    p.ranks.push_back({"host" + std::to_string(r.topology.host_of(rank)), r.topology.bus_id(rank)});
  for (int i = 0; i < c.layout.ep; ++i)
    p.expert_owners.resize(static_cast<std::size_t>(part_begin(r.model.experts, c.layout.ep, i + 1)), i);
  p.schedule = s.schedules.get(c.algorithm.transport, request_for(c.layout, c.algorithm));
  const RankGroups groups(c.layout, s.gpus_per_node());
  LayerPricer pricer(s.traffic, s.machine, groups, s.widths(c.layout), s.popularity, s.tokens(c.layout));
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
  p.time = c.time;
  p.tokens_per_rank = s.tokens(c.layout);
  const double flops = model_flops_per_token(r.model, r.job.sequence) / (s.options.train ? 1 : 3);
  const double all_tokens =
      static_cast<double>(r.job.global_batch) * (r.job.phase == Phase::decode ? 1 : r.job.sequence);
  p.model_TFLOPps_per_gpu = flops * all_tokens / (c.time.total_ms() * 1e-3) / c.layout.world * 1e-12;
  const MemoryBreakdown memory = s.memory(r.job, c.layout, c.algorithm.split);
  for (const auto& [bucket, size] : memory.buckets()) p.memory_GiB.emplace_back(bucket, in_GiB(size));
  p.memory_stage = memory.stage;
  p.memory_limit_GiB = s.limit_GiB;
  p.source = s.machine.source;
  return p;
}

}  // namespace

Expected<Plan, Infeasible> make_plan(const PlanRequest& request) {
  check(request.model);
  check(request.job);
  check(request.routing);
  if (!request.transport.empty()) find_transport(request.transport);  // names the known ones
  if (!request.split.empty() && request.split != "sliced" && request.split != "replicated")
    throw InvalidInput("--split", request.split, "sliced or replicated");
  if (request.chunks < 0 || request.chunks > 64)
    throw InvalidInput("--chunks", std::to_string(request.chunks), "1 to 64, or 0 for any");
  if (!request.topology.uniform())
    throw InvalidInput("--cluster", request.topology.name,
                       "hosts differ; plans need equal hosts for now: use --gpus to take the first ones");
  Search s(request);
  if (!(s.limit_GiB > 0))
    throw InvalidInput("--memory-GiB", "unknown", "the topology does not say how much memory a GPU has");
  const LayoutConstraints constraints = parse_constraints(request.fix, request.max);
  const auto layouts =
      enumerate_layouts(request.topology.gpu_count(), s.gpus_per_node(), request.model, request.job, constraints);
  if (!layouts) return layouts.error();

  // Each layout at n = 1: what it costs at least, and which algorithms are worth refining.
  struct Open {
    Candidate base;
    std::vector<Algorithm> algorithms;
    double bound_ms;
  };
  std::vector<Open> open;
  std::int64_t too_big = 0;
  struct Forbidden {
    Candidate candidate;
    double bound_ms;
  };
  std::vector<Forbidden> forbidden;  // by memory
  for (const Layout& layout : *layouts) {
    Open o;
    o.base.layout = layout;
    o.base.costs = layout_costs(request.model, request.job, layout, s.machine, s.traffic);
    const RankGroups groups(layout, s.gpus_per_node());
    LayerPricer pricer(s.traffic, s.machine, groups, s.widths(layout), s.popularity, s.tokens(layout));
    o.bound_ms = std::numeric_limits<double>::infinity();
    bool fits = false;
    for (Algorithm& a : list_algorithms(groups, s.options)) {
      const double GiB = in_GiB(s.memory(request.job, layout, a.split).total());
      if (GiB > s.limit_GiB) {
        const double ms = step_time(o.base.costs, 0, 1e9).total_ms();  // even with MoE layers for nothing
        forbidden.push_back({{layout, o.base.costs, a, {}, GiB}, ms});
        continue;
      }
      fits = true;
      price(a, pricer, s.schedules, layout, s.options);
      ++s.priced;
      o.bound_ms = std::min(o.bound_ms, step_time(o.base.costs, a.bound_s, 1e9).total_ms());
      o.algorithms.push_back(a);
    }
    too_big += !fits;
    if (!o.algorithms.empty()) open.push_back(std::move(o));
  }
  if (open.empty()) {
    if (too_big == 0) return Infeasible{"transport: none applies to any layout", "leave --transport and --split free"};
    return too_large(s, *layouts, constraints);
  }
  std::stable_sort(open.begin(), open.end(), [](const Open& a, const Open& b) { return a.bound_ms < b.bound_ms; });

  std::vector<Candidate> priced;
  double best_ms = std::numeric_limits<double>::infinity();
  std::int64_t pruned = 0;
  for (const Open& o : open) {
    if (o.bound_ms >= best_ms) {
      ++pruned;
      continue;
    }
    const Layout& layout = o.base.layout;
    const RankGroups groups(layout, s.gpus_per_node());
    LayerPricer pricer(s.traffic, s.machine, groups, s.widths(layout), s.popularity, s.tokens(layout));
    for (const Algorithm& a : o.algorithms) {
      if (step_time(o.base.costs, a.bound_s, 1e9).total_ms() >= best_ms) continue;
      Candidate c = o.base;
      c.algorithm =
          best_chunks(a, pricer, s.schedules, layout, injected(layout, a, s.tokens(layout)), s.options, s.priced);
      c.time = step_time(c.costs, c.algorithm.time_s, c.algorithm.idle_s);
      c.memory_GiB = in_GiB(s.memory(request.job, layout, a.split).total());
      best_ms = std::min(best_ms, c.time.total_ms());
      priced.push_back(std::move(c));
    }
  }
  std::stable_sort(priced.begin(), priced.end(),
                   [](const Candidate& a, const Candidate& b) { return a.time.total_ms() < b.time.total_ms(); });
  const Candidate& chosen = priced.front();

  Plan plan = describe(s, chosen);
  plan.layouts_enumerated = static_cast<std::int64_t>(layouts->size());
  plan.layouts_too_large = too_big;
  plan.layouts_pruned = pruned;
  // What memory forbids although it might be faster: the one that misses by least.
  const Forbidden* nearest = nullptr;
  for (const Forbidden& f : forbidden)
    if (f.bound_ms < chosen.time.total_ms() &&
        (nearest == nullptr || f.candidate.memory_GiB < nearest->candidate.memory_GiB))
      nearest = &f;
  if (nearest != nullptr) {
    const Candidate& c = nearest->candidate;
    plan.rejected.push_back({name(c.layout), std::string(name(c.algorithm.split)) + " " + c.algorithm.transport, 0,
                             c.memory_GiB,
                             fmt::format("needs {:.1f} GiB a GPU, the limit is {:.1f}", c.memory_GiB, s.limit_GiB)});
  }
  for (std::size_t i = 1; i < priced.size() && plan.rejected.size() < 3; ++i)
    plan.rejected.push_back({name(priced[i].layout), name(priced[i].algorithm), priced[i].time.total_ms(),
                             priced[i].memory_GiB, why_slower(priced[i], chosen)});
  plan.flips =
      find_flips({s.traffic, s.machine, s.widths(chosen.layout), s.popularity, s.schedules, s.options, chosen.costs},
                 chosen.layout, s.gpus_per_node(), chosen.algorithm, s.tokens(chosen.layout), s.priced);
  plan.schedules_priced = s.priced;
  return plan;
}

}  // namespace topomoe
