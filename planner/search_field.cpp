#include "planner/search_field.hpp"

#include <algorithm>
#include <limits>
#include <optional>

#include "planner/certainty.hpp"

namespace topomoe {

void place(Search& s, Candidate& c) {
  if (!c.placed) c.time = s.time(c.layout, c.costs, c.algorithm, c.later), c.placed = true;
}

double candidate_GiB(Search& s, const Candidate& c) {
  double GiB = in_GiB(s.memory(c.job, c.layout, c.algorithm.split).total());
  for (const Algorithm& a : c.later) GiB = std::max(GiB, in_GiB(s.memory(c.job, c.layout, a.split).total()));
  return GiB;
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

}  // namespace

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

}  // namespace topomoe
