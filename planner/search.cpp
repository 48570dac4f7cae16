// Exhaustive search: every layout, every way to run it that fits, every algorithm that applies, priced on its
// timeline; what cannot beat the best is left out by bounds. See include/topomoe/planner.hpp.
//
// Candidates come in order of a bound that needs no schedule: what is known of the step, and the routed experts'
// flops at peak. Those still in the race are priced in one chunk, whose resource bound holds for any number of
// chunks; those still in the race after that get their chunks chosen. Bounds are never above the time that they
// bound, and ties go to the earlier candidate, so pruning never changes the choice. Of the fastest layout the algorithm
// is then chosen anew (choose(), algorithm_choice.hpp): within 1% the one that asks least of the network.

#include <algorithm>

#include "fmt/format.h"
#include "planner/certainty.hpp"
#include "planner/fewer_gpus.hpp"
#include "planner/flips.hpp"
#include "planner/search_field.hpp"
#include "planner/sensitivity.hpp"

namespace topomoe {

namespace {

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
