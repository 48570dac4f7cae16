// Exhaustive search: every layout, every way to run it that fits, every algorithm that applies, priced on its
// timeline; what cannot beat the best is left out by bounds. See include/topomoe/planner.hpp.
//
// Candidates come in order of a bound that needs no schedule: what is known of the step, and the routed experts'
// flops at peak. Those still in the race are priced in one chunk, whose resource bound holds for any number of
// chunks; those still in the race after that get their chunks chosen. Bounds are never above the time that they
// bound, and ties go to the earlier candidate, so pruning never changes the choice. Of the fastest layout the algorithm
// is then chosen anew (choose(), algorithm_choice.hpp): within 1% the one that asks least of the network.

#include <algorithm>
#include <cmath>
#include <limits>

#include "fmt/format.h"
#include "planner/certainty.hpp"
#include "planner/fewer_gpus.hpp"
#include "planner/flips.hpp"
#include "planner/plan/capacity.hpp"
#include "planner/search_state.hpp"
#include "planner/sensitivity.hpp"

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
      options{.split = r.split, .transport = r.transport, .chunks = r.chunks, .train = r.job.phase == Phase::train},
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

namespace {

// No step of these passes or longer ones takes less. A backward that is longer hides more gradients, but never more
// than it is longer; where that could be less than nothing, because another stage than the one that reduces most sets
// the pace, all of them count as hidden.
double bound_ms(const StepCosts& c, std::vector<MoeTimes> kinds) {
  for (std::size_t kind = 0; kind < kinds.size(); ++kind) {
    int least_layers = std::numeric_limits<int>::max();
    for (const StepCosts::Stage& stage : c.stages) least_layers = std::min(least_layers, stage.by_kind[kind]);
    if (c.micro_batches * least_layers < c.gradient_passes * c.reducing_layers[kind])
      kinds[kind].idle_s = std::numeric_limits<double>::infinity();
  }
  return step_time(c, kinds).total_ms();
}

void place(Search& s, Candidate& c) {
  if (!c.placed) c.time = s.time(c.layout, c.costs, c.algorithm, c.later), c.placed = true;
}

// Sorts by time, gradients placed in all that a plan tells of: the first ones, and those as fast as the first. Of the
// others the time is a bound.
void settle(Search& s, std::vector<Candidate>& priced) {
  constexpr std::size_t kTold = 8;
  for (bool again = true; again;) {
    std::stable_sort(priced.begin(), priced.end(),
                     [](const Candidate& a, const Candidate& b) { return a.time.total_ms() < b.time.total_ms(); });
    again = false;
    for (std::size_t i = 0; i < priced.size(); ++i) {
      if (i >= kTold && !as_fast(priced[i].time.total_ms(), priced[0].time.total_ms())) break;
      again |= !priced[i].placed;
      place(s, priced[i]);
    }
  }
}

// Routed experts at peak rate: no schedule computes less, nor faster.
double flops_bound_ms(const Search& s, const Candidate& c) {
  const Model& m = s.request.model;
  std::vector<MoeTimes> kinds;
  for (int kind = 0; kind < moe_kind_count(m); ++kind) {
    const double flops_s = s.tokens(c.job, c.layout) / c.layout.tp * moe_kind(m, kind).top_k * 2 *
                           expert_parameters(m, kind) / s.machine.flops.value;
    const double backward_s = s.options.train ? 2 * flops_s : 0;
    kinds.push_back({flops_s, backward_s, backward_s});
  }
  return bound_ms(c.costs, std::move(kinds));
}

std::string why_slower(const Candidate& c, const Candidate& chosen) {
  const std::pair<const char*, double> parts[] = {
      {"MoE layers", c.time.moe_ms - chosen.time.moe_ms},
      {"attention, dense parts and logits", c.time.attention_ms - chosen.time.attention_ms},
      {"pipeline fill, drain and transfers", c.time.bubble_ms - chosen.time.bubble_ms},
      {"exposed gradient reduction", c.time.gradients_ms - chosen.time.gradients_ms},
      {"optimizer", c.time.other_ms - chosen.time.other_ms}};
  const auto worst =
      std::max_element(std::begin(parts), std::end(parts), [](auto& a, auto& b) { return a.second < b.second; });
  if (c.time.total_ms() < chosen.time.total_ms())
    return fmt::format("{:.1f}% faster, which nothing here can tell{}",
                       100 * (chosen.time.total_ms() / c.time.total_ms() - 1),
                       c.algorithm.network_s > 1.01 * chosen.algorithm.network_s && chosen.algorithm.network_s > 0 &&
                               c.layout == chosen.layout && c.job == chosen.job
                           ? fmt::format("; its NICs are busy {:.1f} times as long",
                                         c.algorithm.network_s / chosen.algorithm.network_s)
                           : "");
  return fmt::format("{:.1f}% slower: {} cost {:.1f} ms more", 100 * (c.time.total_ms() / chosen.time.total_ms() - 1),
                     worst->first, worst->second);
}

// Hosts may differ in links: the slowest sets the pace, since all traffic is routed. Not in GPUs: ranks are dealt out
// in equal nodes, and one GPU's rates stand for all.
void require_equal_gpus(const Topology& t) {
  const auto refuse = [&](const std::string& what) {
    throw InvalidInput("--cluster", t.name,
                       what + "; plans need equal GPUs on all hosts: use --gpus to take the first ones");
  };
  const HostTemplate* first = nullptr;
  for (const HostGroup& group : t.groups) {
    const HostTemplate& host = t.templates[static_cast<std::size_t>(group.template_index)];
    if (host.gpus.empty() && t.hosts_per_domain == 1) continue;
    if (first == nullptr) first = &host;
    if (host.gpus.size() != first->gpus.size())
      refuse(fmt::format("hosts have {} and {} GPUs", first->gpus.size(), host.gpus.size()));
    const GpuSpec &a = host.gpu, &b = first->gpu;
    if (a.bf16_TFLOPps != b.bf16_TFLOPps || a.fp32_TFLOPps != b.fp32_TFLOPps || a.hbm_GBps != b.hbm_GBps ||
        a.memory_GiB != b.memory_GiB)
      refuse(fmt::format("hosts have {} and {}", b.name, a.name));
  }
  if (t.hosts_per_domain > 1 && t.host_count() > t.hosts_per_domain && t.host_count() % t.hosts_per_domain != 0)
    refuse("the last scale-up domain is not full");
}

// Of the split that needs most, of those that its kinds of MoE layers take.
double candidate_GiB(Search& s, const Candidate& c) {
  double GiB = in_GiB(s.memory(c.job, c.layout, c.algorithm.split).total());
  for (const Algorithm& a : c.later) GiB = std::max(GiB, in_GiB(s.memory(c.job, c.layout, a.split).total()));
  return GiB;
}

Candidate least_traffic(Search& s, const Candidate& fastest) {
  const double tokens = s.tokens(fastest.job, fastest.layout), forwards = fastest.costs.moe_forwards;
  std::vector<Outcome> outcomes;
  std::vector<double> memory_GiB;
  for (std::size_t i = 0; i < s.prices.in_one_chunk(fastest.layout, tokens).size(); ++i) {
    const Algorithm& a = s.prices.refined(fastest.layout, tokens, i, forwards);
    const double GiB = in_GiB(s.memory(fastest.job, fastest.layout, a.split).total());
    if (GiB > s.limit_GiB) continue;
    outcomes.push_back({a, s.time(fastest.layout, fastest.costs, a, fastest.later).total_ms()});
    memory_GiB.push_back(GiB);
  }
  const std::size_t best = choose(outcomes);
  Candidate out = fastest;
  out.algorithm = outcomes[best].algorithm;
  out.memory_GiB = memory_GiB[best];
  if (!out.later.empty()) {
    bool fits[2];
    for (const TokenSplit split : {TokenSplit::sliced, TokenSplit::replicated}) {
      const double GiB = in_GiB(s.memory(out.job, out.layout, split).total());
      fits[static_cast<std::size_t>(split)] = GiB <= s.limit_GiB;
    }
    least_traffic_later(s, out, fits);
    out.memory_GiB = candidate_GiB(s, out);
  }
  out.placed = false;
  place(s, out);
  return out;
}

void check_request(const PlanRequest& r) {
  check(r.model);
  check_request(r.job);
  check(r.routing);
  if (!r.transport.empty()) find_transport(r.transport);  // names the known ones
  if (!r.split.empty() && r.split != "sliced" && r.split != "replicated")
    throw InvalidInput("--split", r.split, "sliced or replicated");
  if (!(r.memory_GiB >= 0 && r.memory_GiB <= 1e6))
    throw InvalidInput("--memory-GiB", fmt::format("{}", r.memory_GiB), "a positive number of GiB");
  if (r.chunks < 0 || r.chunks > 64) throw InvalidInput("--chunks", std::to_string(r.chunks), "1 to 64, or 0 for any");
  require_equal_gpus(r.topology);
  for (int kind = 0; kind < moe_kind_count(r.model); ++kind) {
    if (r.routing.kind == RoutingProfile::Kind::histogram && kind > 0 &&
        moe_kind(r.model, kind).experts != r.model.experts)
      throw InvalidInput("routing: histogram", std::to_string(r.routing.histogram.size()) + " counts",
                         fmt::format("{} and {} would need two; use uniform or zipf", kind_name(r.model, 0),
                                     kind_name(r.model, kind)));
    if (kind > 0 && r.target != "any")
      throw InvalidInput("--target", r.target,
                         "its arguments give all MoE layers the same experts, this model has " + kind_name(r.model, 0) +
                             " and " + kind_name(r.model, kind));
  }
}

// A candidate that fits, with the splits that do.
struct Open {
  Candidate base;
  double bound_ms = 0;
  bool fits[2] = {false, false};  // by TokenSplit
  double memory_GiB[2] = {0, 0};
};

struct TooLarge {
  Candidate candidate;
  TokenSplit split;
  double bound_ms;
};

// All ways to run the layouts.
struct Field {
  std::vector<Open> open;  // in order of their bounds
  std::vector<TooLarge> forbidden;
  std::int64_t enumerated = 0, too_big = 0;
};
Field enter(Search& s, const std::vector<Layout>& layouts) {
  Field field;
  for (const Layout& layout : layouts) {
    const StepCurves curves = step_curves(layout, s.machine, s.gpus_per_node());
    std::vector<StageClass> stages;
    int vpp = 0;
    bool runs[2] = {false, false};  // by split: at a lower stage of ZeRO, all else alike
    for (const Variant& v : variants(layout, s.request.model, s.request.job, s.constraints)) {
      Open o;
      Candidate& c = o.base;
      c.layout = layout, c.layout.vpp = v.vpp, c.layout.zero = v.zero;
      c.job = s.request.job, c.job.micro_batch = v.micro_batch, c.job.recompute = v.recompute;
      if (v.vpp != vpp) stages = stage_classes(s.request.model, c.layout), vpp = v.vpp;
      if (v.zero == layout.zero) runs[0] = runs[1] = false;
      bool any = false;
      int least = -1;  // the split that needs least
      for (const TokenSplit split : {TokenSplit::sliced, TokenSplit::replicated}) {
        if (!s.request.split.empty() && s.request.split != name(split)) continue;
        if (split == TokenSplit::replicated && layout.tp == 1 && s.request.split.empty()) break;  // the same thing
        const auto i = static_cast<std::size_t>(split);
        if (runs[i]) continue;
        o.memory_GiB[i] = in_GiB(s.memory(c.job, c.layout, split, stages).total());
        o.fits[i] = runs[i] = o.memory_GiB[i] <= s.limit_GiB;
        any |= o.fits[i];
        if (least < 0 || o.memory_GiB[i] < o.memory_GiB[static_cast<std::size_t>(least)]) least = static_cast<int>(i);
      }
      if (least < 0) continue;
      ++field.enumerated;
      field.too_big += !any;
      // What is far too large is not told of.
      c.memory_GiB = o.memory_GiB[static_cast<std::size_t>(least)];
      if (!any && c.memory_GiB > 1.25 * s.limit_GiB) continue;
      c.costs = step_costs(s.request.model, c.job, c.layout, stages, s.layer_costs(c.job, c.layout), curves, s.machine);
      o.bound_ms = flops_bound_ms(s, c);
      if (any)
        field.open.push_back(std::move(o));
      else
        field.forbidden.push_back({c, static_cast<TokenSplit>(least), o.bound_ms});
    }
  }
  std::stable_sort(field.open.begin(), field.open.end(),
                   [](const Open& a, const Open& b) { return a.bound_ms < b.bound_ms; });
  return field;
}

// Prices what may be the fastest, in order of the bounds; `pruned` is increased by those whose bound was enough.
// In order of time.
std::vector<Candidate> race(Search& s, std::span<const Open> open, std::int64_t& pruned) {
  std::vector<Candidate> priced;
  double best_ms = std::numeric_limits<double>::infinity();
  const auto hopeless = [&](double bound) { return bound >= best_ms && !s.request.exhaustive; };
  for (const Open& o : open) {
    if (hopeless(o.bound_ms)) {
      ++pruned;
      continue;
    }
    const Candidate& base = o.base;
    const double tokens = s.tokens(base.job, base.layout), forwards = base.costs.moe_forwards;
    const auto& algorithms = s.prices.in_one_chunk(base.layout, tokens);
    // The most promising first: what it leaves open of the others need not be priced.
    std::vector<std::pair<double, std::size_t>> order;
    const auto later = later_bounds(s, base, o.fits);
    for (std::size_t i = 0; later && i < algorithms.size(); ++i) {
      const Algorithm& a = algorithms[i];
      std::vector<MoeTimes> kinds{{a.forward_bound_s, a.backward_bound_s, a.idle_bound_s}};
      kinds.insert(kinds.end(), later->begin(), later->end());
      order.emplace_back(bound_ms(base.costs, std::move(kinds)), i);
    }
    std::sort(order.begin(), order.end());
    bool refined = order.empty();
    std::optional<std::vector<Algorithm>> fastest;             // of the later kinds
    double mine_ms = std::numeric_limits<double>::infinity();  // the best of this candidate
    for (const auto& [bound, i] : order) {
      const auto split = static_cast<std::size_t>(algorithms[i].split);
      if (!o.fits[split] || hopeless(bound) || (bound >= mine_ms && !s.request.exhaustive)) continue;
      refined = true;
      Candidate c = base;
      c.algorithm = s.prices.refined(base.layout, tokens, i, forwards);
      if (!fastest) fastest = fastest_later(s, base, o.fits);
      c.later = *fastest;
      c.time = step_time(c.costs, moe_times(c.algorithm, c.later));
      c.memory_GiB = c.later.empty() ? o.memory_GiB[split] : candidate_GiB(s, c);
      // Hiding gradients in the sum of idle time is a bound too: where it is not enough, nothing need be placed.
      if (!hopeless(c.time.total_ms())) place(s, c);
      mine_ms = std::min(mine_ms, c.time.total_ms()), best_ms = std::min(best_ms, mine_ms);
      priced.push_back(std::move(c));
    }
    pruned += !refined;
  }
  settle(s, priced);
  return priced;
}

// The fastest of those that need less and less memory, the choice first. Steps of less than 5% are not worth a line;
// after kParetoSteps of them nobody reads on.
constexpr double kParetoStep = 0.95;
constexpr int kParetoSteps = 5;
std::vector<ParetoPoint> pareto_front(Search& s, const Candidate& chosen, std::vector<Open> open) {
  std::vector<ParetoPoint> front;
  const auto add = [&](const Candidate& c) {
    front.push_back({run_name(c.layout, c.job), algorithms_name(c), c.time.total_ms(), c.memory_GiB});
  };
  add(chosen);
  for (double GiB = chosen.memory_GiB * kParetoStep; static_cast<int>(front.size()) <= kParetoSteps;
       GiB = front.back().memory_GiB * kParetoStep) {
    std::erase_if(open, [&](Open& o) {
      for (const int split : {0, 1}) o.fits[split] = o.fits[split] && o.memory_GiB[split] <= GiB;
      return !o.fits[0] && !o.fits[1];
    });
    std::int64_t pruned = 0;
    const std::vector<Candidate> leaner = race(s, open, pruned);
    if (leaner.empty()) break;
    if (front.size() == 1 && leaner.front().time.total_ms() < chosen.time.total_ms()) front.clear();
    add(leaner.front());
  }
  return front;
}

}  // namespace

Expected<Plan, Infeasible> make_plan(const PlanRequest& request) {
  check_request(request);
  Search s(request);
  if (!(s.limit_GiB > 0))
    throw InvalidInput("--memory-GiB", "unknown", "the topology does not say how much memory a GPU has");
  const auto layouts =
      enumerate_layouts(request.topology.gpu_count(), s.gpus_per_node(), request.model, request.job, s.constraints);
  if (!layouts) return layouts.error();

  Field field = enter(s, *layouts);
  if (field.open.empty() && s.options.train && s.constraints.fix.count("zero") + s.constraints.max.count("zero") == 0) {
    s.constraints.unasked_zero = kMostZero;
    field = enter(s, *layouts);
  }
  if (field.open.empty()) return too_large(s, *layouts);

  std::int64_t pruned = 0;
  std::vector<Candidate> priced;
  Candidate chosen;
  for (;;) {
    pruned = 0;
    priced = race(s, field.open, pruned);
    if (priced.empty())
      return Infeasible{"transport: none applies to any layout that fits", "leave --transport and --split free"};
    // Of the fastest layout, the algorithm: among equally fast ones, that which asks least of the network.
    chosen = least_traffic(s, priced.front());
    const MemoryBreakdown exact = s.memory(chosen);
    chosen.memory_GiB = in_GiB(exact.total());
    if (chosen.memory_GiB <= s.limit_GiB) break;
    // The rule let it in. Corrected by what this schedule needs, it shuts out this one and its like.
    s.dispatch_scale *= exact.dispatch_buffers.value /
                        s.memory(chosen.job, chosen.layout, chosen.algorithm.split).dispatch_buffers.value;
    field = enter(s, *layouts);
    if (field.open.empty()) return too_large(s, *layouts);
  }

  Plan plan = describe(s, chosen);
  plan.layouts_enumerated = field.enumerated;
  plan.layouts_too_large = field.too_big;
  plan.layouts_pruned = pruned;
  // What memory forbids although it might be faster: the one that misses by least.
  const TooLarge* nearest = nullptr;
  for (const TooLarge& f : field.forbidden) {
    if (f.bound_ms >= chosen.time.total_ms()) continue;
    if (nearest == nullptr || f.candidate.memory_GiB < nearest->candidate.memory_GiB) nearest = &f;
  }
  if (nearest != nullptr) {
    const Candidate& c = nearest->candidate;
    plan.rejected.push_back({run_name(c.layout, c.job), std::string(name(nearest->split)), 0, c.memory_GiB, false,
                             fmt::format("needs {:.1f} GiB a GPU, the limit is {:.1f}", c.memory_GiB, s.limit_GiB)});
  }
  const auto is_chosen = [&](const Candidate& c) {
    return run_name(c.layout, c.job) == run_name(chosen.layout, chosen.job) &&
           algorithms_name(c) == algorithms_name(chosen);
  };
  const auto ties = [&](const Candidate& c) {
    return as_fast(c.time.total_ms(), chosen.time.total_ms()) && !is_chosen(c);
  };
  auto others = std::count_if(priced.begin(), priced.end(), ties);
  for (std::size_t i = 0; i < priced.size() && plan.rejected.size() < 3; ++i) {
    const Candidate& c = priced[i];
    const bool tie = ties(c);
    if (is_chosen(c) || (tie && others == 0)) continue;
    plan.rejected.push_back({run_name(c.layout, c.job), algorithms_name(c), c.time.total_ms(), c.memory_GiB,
                             undecided(s, c, chosen),
                             !tie          ? why_slower(c, chosen)
                             : others == 1 ? "the first of equals is taken"
                                           : fmt::format("one of {} that are, of which the first is taken", others)});
    if (tie) others = 0;  // one of them stands for all
  }
  plan.schedules_priced = s.prices.timelines();
  for (const LayerPrices& kind : s.later_prices) plan.schedules_priced += kind.timelines();
  if (request.flips) {
    plan.pareto = pareto_front(s, chosen, std::move(field.open));
    plan.sensitivity = find_sensitivity(s, chosen, priced), plan.flips = find_flips(s, chosen);
    for (Flip& flip : find_skew_flips(s, chosen)) plan.flips.push_back(std::move(flip));
    const std::string fewer = faster_on_fewer(s, plan);
    if (!fewer.empty()) plan.topology.note += (plan.topology.note.empty() ? "" : "; ") + fewer;
  }
  return plan;
}

}  // namespace topomoe
