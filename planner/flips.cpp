#include "planner/flips.hpp"

#include <algorithm>
#include <cmath>

namespace topomoe {
namespace {

Algorithm best_for(Search& s, const Candidate& c, double tokens) {
  // Shorter sequences make the other parts of a step shorter too, and gradients harder to hide.
  Job job = c.job;
  job.sequence = std::max(1, static_cast<int>(std::lround(tokens * c.layout.cp / job.micro_batch)));
  const Model& m = s.request.model;
  const StepCosts costs = job.phase == Phase::decode
                              ? c.costs
                              : step_costs(m, job, c.layout, stage_classes(m, c.layout),
                                           topomoe::layer_costs(m, job, c.layout, s.machine, s.gpus_per_node()),
                                           step_curves(c.layout, s.machine, s.gpus_per_node()), s.machine);
  const double forwards = c.costs.moe_forwards;
  std::vector<Outcome> outcomes;
  for (std::size_t i = 0; i < s.prices.in_one_chunk(c.layout, tokens).size(); ++i) {
    const Algorithm& a = s.prices.refined(c.layout, tokens, i, forwards);
    if (in_GiB(s.memory(job, c.layout, a.split).total()) > s.limit_GiB) continue;
    outcomes.push_back({a, s.time(c.layout, costs, a).total_ms()});
  }
  return outcomes.empty() ? c.algorithm : outcomes[choose(outcomes)].algorithm;
}

}  // namespace

std::vector<Flip> find_flips(Search& s, const Candidate& c) {
  const Algorithm& chosen = c.algorithm;
  const double tokens = s.tokens(c.job, c.layout);
  const auto same_way = [&](const Algorithm& a) { return a.split == chosen.split && a.transport == chosen.transport; };
  const auto same_cut = [&](const Algorithm& a) { return !same_way(a) || a.forward.chunks > 1; };
  std::vector<Flip> flips;
  const auto bisect = [&](double low, double high, auto same) {  // same holds at high, not at low
    while (std::floor(high) - std::floor(low) > 1) {
      const double middle = std::floor((low + high) / 2);
      (same(best_for(s, c, middle)) ? high : low) = middle;
    }
    const Algorithm below = best_for(s, c, low);
    flips.push_back({"tokens per rank", std::ceil(high), name(below)});
  };
  bool cut_seen = chosen.forward.chunks == 1 || s.options.chunks > 0;
  double high = tokens;
  for (double low = std::floor(tokens / 2); low >= 1; low = std::floor(low / 2)) {
    const Algorithm a = best_for(s, c, low);
    if (!cut_seen && !same_cut(a)) bisect(low, high, same_cut), cut_seen = true;
    if (!same_way(a)) {
      bisect(low, high, same_way);
      break;
    }
    high = low;
  }
  return flips;
}

}  // namespace topomoe
