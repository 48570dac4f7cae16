#include "planner/flips.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "fmt/format.h"

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
  bool fits[2];
  for (const TokenSplit split : {TokenSplit::sliced, TokenSplit::replicated})
    fits[static_cast<std::size_t>(split)] = in_GiB(s.memory(job, c.layout, split).total()) <= s.limit_GiB;
  Candidate there = c;
  there.job = job;
  const auto later = fastest_later(s, there, fits);
  std::vector<Outcome> outcomes;
  for (std::size_t i = 0; later && i < s.prices.in_one_chunk(c.layout, tokens).size(); ++i) {
    const Algorithm& a = s.prices.refined(c.layout, tokens, i, forwards);
    if (!fits[static_cast<std::size_t>(a.split)]) continue;
    outcomes.push_back({a, s.time(c.layout, costs, a, *later).total_ms()});
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
    flips.push_back({Flip::kTokens, std::ceil(high), false, name(below)});
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
  if (flips.empty()) flips.push_back({Flip::kTokens, 1, false, ""});
  return flips;
}

namespace {

// Where experts live and how tokens get there; everything else of a plan may differ.
struct Kind {
  int ep = 0, etp = 0;  // 0: nothing fits
  ExpertOrder order = ExpertOrder::ep_inner;
  std::string split, transport;
  bool operator==(const Kind&) const = default;
};

struct Skewed {
  Kind kind;
  std::string words;  // the whole choice
};

// Skews are multiples of 1/20: routers are not known better than that.
constexpr int kGrid = 20;
constexpr int kLadder[] = {5, 10, 20, 40};  // above the plan's own
constexpr std::size_t kMostFlips = 2;
// Under skew no two ranks of an EP group are alike, and pricing a wide one takes a second.
constexpr int kMostGpus = 256;

Skewed choice_at(const Search& s, const Candidate& chosen, int skew) {
  PlanRequest there = s.request;
  there.cache = s.cache;
  there.flips = there.exhaustive = false;
  there.routing = zipf_routing(static_cast<double>(skew) / kGrid);
  there.job.micro_batch = chosen.job.micro_batch;
  there.fix.push_back(fmt::format("tp={},cp={}", chosen.layout.tp, chosen.layout.cp));
  const auto plan = make_plan(there);
  if (!plan) return {Kind{}, "none: " + plan.error().constraint};
  return {Kind{plan->layout.ep, plan->layout.etp, plan->layout.expert_order, plan->schedule.split,
               plan->schedule.transport},
          run_name(plan->layout, plan->job) + " | " + algorithms_name(*plan)};
}

}  // namespace

std::vector<Flip> find_skew_flips(const Search& s, const Candidate& chosen) {
  const RoutingProfile& own = s.request.routing;
  if (own.kind == RoutingProfile::Kind::histogram || chosen.layout.world > kMostGpus) return {};
  std::map<int, Skewed> known;
  const auto at = [&](int skew) -> const Skewed& {
    const auto [found, fresh] = known.try_emplace(skew);
    if (fresh) found->second = choice_at(s, chosen, skew);
    return found->second;
  };
  // The next multiple below; there the plan's own choice is taken to hold.
  int low = static_cast<int>(std::floor(own.zipf_s * kGrid + 1e-9));
  const int first = low;
  Kind now{chosen.layout.ep, chosen.layout.etp, chosen.layout.expert_order, std::string(name(chosen.algorithm.split)),
           chosen.algorithm.transport};
  std::vector<Flip> flips;
  for (const int above : kLadder) {
    const int high = std::min(first + above, static_cast<int>(kMostZipf) * kGrid);
    while (flips.size() < kMostFlips && !(at(high).kind == now)) {
      int same = low, other = high;
      while (other - same > 1) {
        const int middle = (same + other) / 2;
        (at(middle).kind == now ? same : other) = middle;
      }
      flips.push_back({Flip::kSkew, static_cast<double>(other) / kGrid, true, at(other).words});
      low = other, now = at(other).kind;
    }
    if (flips.size() == kMostFlips) return flips;
    low = high;
  }
  if (flips.empty()) flips.push_back({Flip::kSkew, static_cast<double>(low) / kGrid, true, ""});
  return flips;
}

}  // namespace topomoe
