// MoE layers that differ: the algorithms of the kinds after the first (search_state.hpp). The first kind's are chosen
// in search.cpp, where all of a model's layers are of that kind most often.
//
// Ignored: a kind that idles the inter-node lane longer hides more gradients; that does not sway its choice.

#include <algorithm>
#include <limits>

#include "planner/search_state.hpp"

namespace topomoe {

std::string algorithms_name(const Candidate& c) {
  std::string all = name(c.algorithm);
  for (const Algorithm& a : c.later) all += " / " + name(a);
  return all;
}

std::vector<MoeTimes> moe_times(const Algorithm& first, const std::vector<Algorithm>& later) {
  std::vector<MoeTimes> out{moe_times(first)};
  for (const Algorithm& a : later) out.push_back(moe_times(a));
  return out;
}

namespace {

double bound_s(const Algorithm& a, double forwards) { return forwards * a.forward_bound_s + a.backward_bound_s; }
bool fit(const Algorithm& a, const bool (&fits)[2]) { return fits[static_cast<std::size_t>(a.split)]; }

}  // namespace

std::optional<std::vector<MoeTimes>> later_bounds(Search& s, const Candidate& c, const bool (&fits)[2]) {
  const double tokens = s.tokens(c.job, c.layout), forwards = c.costs.moe_forwards;
  std::vector<MoeTimes> out;
  for (LayerPrices& prices : s.later_prices) {
    const Algorithm* least = nullptr;
    for (const Algorithm& a : prices.in_one_chunk(c.layout, tokens))
      if (fit(a, fits) && (least == nullptr || bound_s(a, forwards) < bound_s(*least, forwards))) least = &a;
    if (least == nullptr) return std::nullopt;
    out.push_back({least->forward_bound_s, least->backward_bound_s, std::numeric_limits<double>::infinity()});
  }
  return out;
}

std::optional<std::vector<Algorithm>> fastest_later(Search& s, const Candidate& c, const bool (&fits)[2]) {
  const double tokens = s.tokens(c.job, c.layout), forwards = c.costs.moe_forwards;
  std::vector<Algorithm> out;
  for (LayerPrices& prices : s.later_prices) {
    const auto& algorithms = prices.in_one_chunk(c.layout, tokens);
    std::vector<std::pair<double, std::size_t>> order;
    for (std::size_t i = 0; i < algorithms.size(); ++i)
      if (fit(algorithms[i], fits)) order.emplace_back(bound_s(algorithms[i], forwards), i);
    std::sort(order.begin(), order.end());
    const Algorithm* best = nullptr;
    for (const auto& [bound, i] : order) {
      if (best != nullptr && bound >= best->time_s(forwards) && !s.request.exhaustive) break;
      const Algorithm& a = prices.refined(c.layout, tokens, i, forwards);
      if (best == nullptr || a.time_s(forwards) < best->time_s(forwards) * (1 - 1e-9)) best = &a;
    }
    if (best == nullptr) return std::nullopt;
    out.push_back(*best);
  }
  return out;
}

void least_traffic_later(Search& s, Candidate& c, const bool (&fits)[2]) {
  const double tokens = s.tokens(c.job, c.layout), forwards = c.costs.moe_forwards;
  for (std::size_t kind = 0; kind < c.later.size(); ++kind) {
    LayerPrices& prices = s.later_prices[kind];
    std::vector<Outcome> outcomes;
    for (std::size_t i = 0; i < prices.in_one_chunk(c.layout, tokens).size(); ++i) {
      const Algorithm& a = prices.refined(c.layout, tokens, i, forwards);
      if (fit(a, fits)) outcomes.push_back({a, a.time_s(forwards)});
    }
    c.later[kind] = outcomes[choose(outcomes)].algorithm;
  }
}

}  // namespace topomoe
