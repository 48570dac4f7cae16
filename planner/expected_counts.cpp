#include "planner/expected_counts.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "topomoe/routing.hpp"

namespace topomoe {

namespace {

// Up to so many groups all sets of them are worked out, at most C(12,6) = 924; of more, sets are drawn.
constexpr int kMostGroups = 12, kDrawnSets = 2048;

// Probability that a token chooses each expert: proportional to popularity, but at most 1, since a token's k
// experts are distinct; what a capped expert leaves goes to the others. Sums to k.
std::vector<double> chosen_with(const std::vector<double>& popularity, int k) {
  std::vector<double> out(popularity.size(), 0);
  std::vector<bool> capped(popularity.size(), false);
  double left = k, mass = 1;
  for (bool again = true; again;) {
    again = false;
    const double scale = mass > 0 ? left / mass : 0;
    for (std::size_t e = 0; e < out.size(); ++e) {
      if (capped[e]) continue;
      out[e] = popularity[e] * scale;
      if (out[e] < 1) continue;
      out[e] = 1, capped[e] = true, again = true;
      left -= 1, mass -= popularity[e];
    }
  }
  return out;
}

// Sets of groups, drawn one after another by weight among those that are left, and their probabilities.
using Sets = std::map<std::vector<int>, double>;

Sets group_sets(const std::vector<double>& weights, int size) {
  const int groups = static_cast<int>(weights.size());
  Sets sets;
  if (groups > kMostGroups) {
    const RoutingProfile by_weight{RoutingProfile::Kind::histogram, 0, weights, "groups"};
    const auto drawn = draw_routing(by_weight, groups, size, kDrawnSets, 0);
    for (auto from = drawn.begin(); from != drawn.end(); from += size) {
      std::vector<int> set(from, from + size);
      std::sort(set.begin(), set.end());
      sets[set] += 1.0 / kDrawnSets;
    }
    return sets;
  }
  sets[{}] = 1;
  for (int drawn = 0; drawn < size; ++drawn) {
    Sets next;
    for (const auto& [set, probability] : sets) {
      std::vector<int> rest;
      for (int g = 0; g < groups; ++g)
        if (!std::binary_search(set.begin(), set.end(), g)) rest.push_back(g);
      const auto weight = [&](int g) { return weights[static_cast<std::size_t>(g)]; };
      const double left =
          std::accumulate(rest.begin(), rest.end(), 0.0, [&](double s, int g) { return s + weight(g); });
      for (const int g : rest) {
        const double share = left > 0 ? weight(g) / left : 1.0 / static_cast<double>(rest.size());
        if (share == 0) continue;
        std::vector<int> more = set;
        more.insert(std::upper_bound(more.begin(), more.end(), g), g);
        next[more] += probability * share;
      }
    }
    sets = std::move(next);
  }
  return sets;
}

// C(all - members, k) / C(all, k) as a product: that k of `all` miss `members` of them.
double missed(int all, int members, int k) {
  double miss = 1;
  for (int i = 0; i < k; ++i) miss *= std::max(0.0, static_cast<double>(all - members - i) / (all - i));
  return miss;
}

}  // namespace

RoutingOdds::RoutingOdds(const std::vector<double>& popularity, int top_k, int groups, int topk_groups)
    : top_k_(top_k), groups_(groups), topk_groups_(topk_groups) {
  const auto [least, most] = std::minmax_element(popularity.begin(), popularity.end());
  uniform_ = *most - *least < 1e-12;
  chosen_ = chosen_with(popularity, top_k);  // group-limited too where uniform: no expert is preferred
  if (uniform_ || !limited()) return;
  const std::size_t size = popularity.size() / static_cast<std::size_t>(groups);
  std::vector<double> weights(static_cast<std::size_t>(groups), 0.0);
  for (std::size_t e = 0; e < popularity.size(); ++e) weights[e / size] += popularity[e];
  std::fill(chosen_.begin(), chosen_.end(), 0.0);
  for (const auto& [set, probability] : group_sets(weights, topk_groups)) {
    double mass = 0;
    for (const int g : set) mass += weights[static_cast<std::size_t>(g)];
    std::vector<double> inside(popularity.size(), 0.0);
    for (const int g : set)
      for (std::size_t e = size * static_cast<std::size_t>(g); e < size * static_cast<std::size_t>(g + 1); ++e)
        inside[e] = mass > 0 ? popularity[e] / mass : 1.0 / static_cast<double>(size * set.size());
    inside = chosen_with(inside, top_k);
    Allowed allowed{probability, {0.0}};
    for (std::size_t e = 0; e < inside.size(); ++e) {
      chosen_[e] += probability * inside[e];
      allowed.before.push_back(allowed.before.back() + inside[e]);
    }
    allowed_.push_back(std::move(allowed));
  }
}

double RoutingOdds::chosen(int first, int end) const {
  return std::accumulate(chosen_.begin() + first, chosen_.begin() + end, 0.0);
}

double RoutingOdds::reached_uniform(int first, int end) const {
  // Group by group: with c of j groups before it allowed, the next one is with (t-c)/(n-j).
  const int size = experts() / groups_;
  std::map<std::pair<int, int>, double> now{{{0, 0}, 1.0}};  // by allowed groups, and experts of [first, end) in them
  int before = 0;
  for (int g = first / size; g * size < end; ++g, ++before) {
    const int inside = std::min(end, (g + 1) * size) - std::max(first, g * size);
    std::map<std::pair<int, int>, double> next;
    for (const auto& [state, probability] : now) {
      const double allowed = static_cast<double>(topk_groups_ - state.first) / (groups_ - before);
      if (allowed > 0) next[{state.first + 1, state.second + inside}] += probability * allowed;
      if (allowed < 1) next[state] += probability * (1 - allowed);
    }
    now = std::move(next);
  }
  double reach = 0;
  for (const auto& [state, probability] : now)
    reach += probability * (1 - missed(size * topk_groups_, state.second, top_k_));
  return reach;
}

double RoutingOdds::reached(int first, int end) const {
  if (first >= end) return 0;
  if (uniform_ && !limited()) return 1 - missed(experts(), end - first, top_k_);
  const auto [at, fresh] = reached_.try_emplace(std::int64_t{first} << 32 | end);
  if (fresh) at->second = uniform_ ? reached_uniform(first, end) : reached_skewed(first, end);
  return at->second;
}

double RoutingOdds::reached_skewed(int first, int end) const {
  const auto with_replacement = [&](double rows) { return 1 - std::pow(1 - std::min(1.0, rows / top_k_), top_k_); };
  if (!limited()) return with_replacement(chosen(first, end));
  double reach = 0;
  for (const Allowed& a : allowed_)
    reach += a.probability *
             with_replacement(a.before[static_cast<std::size_t>(end)] - a.before[static_cast<std::size_t>(first)]);
  return reach;
}

ExpectedCounts::ExpectedCounts(const RankGroups& groups, const RoutingOdds& odds, double held, double injected)
    : CountSource({odds.experts(), groups.size(Role::ep)}),
      groups_(groups),
      odds_(odds),
      held_(held),
      injected_(injected) {
  for (int i = 0; i < groups.size(Role::ep); ++i) {
    const auto [first, end] = experts_of(i);
    share_.push_back(odds.chosen(first, end) / odds.top_k());
  }
}

int ExpectedCounts::busiest() const {
  return static_cast<int>(std::max_element(share_.begin(), share_.end()) - share_.begin());
}

bool ExpectedCounts::alike() const {
  if (!odds_.uniform() || !odds_.limited()) return odds_.uniform();
  const auto reach = [&](std::pair<int, int> experts) { return odds_.reached(experts.first, experts.second); };
  const auto ranks = groups_.members(Role::ep, 0);
  const double place = reach(experts_of(0)), node = reach(experts_on_node(ranks[0]));
  for (std::size_t i = 1; i < ranks.size(); ++i)
    if (std::abs(reach(experts_of(static_cast<int>(i))) - place) > 1e-12 ||
        std::abs(reach(experts_on_node(ranks[i])) - node) > 1e-12)
      return false;
  return true;
}

std::pair<int, int> ExpectedCounts::experts_of(int place) const {
  const auto held = placement().held_by(place);
  return {held.front(), held.back() + 1};
}

std::pair<int, int> ExpectedCounts::experts_on_node(int rank) const {
  const auto node = groups_.members(Role::node, rank);  // places in the EP group one after another
  return {experts_of(groups_.index_in(Role::ep, node.front())).first,
          experts_of(groups_.index_in(Role::ep, node.back())).second};
}

double ExpectedCounts::count(Symbol symbol, int, int, int index) const {
  switch (symbol) {
    case Symbol::held: return held_;
    case Symbol::tokens: return injected_;
    case Symbol::pairs: return injected_ * odds_.chosen(index);
    case Symbol::rank_tokens: {
      const auto [first, end] = experts_of(groups_.index_in(Role::ep, index));
      return injected_ * odds_.reached(first, end);
    }
    case Symbol::node_tokens: {
      const auto [first, end] = experts_on_node(index);
      return injected_ * odds_.reached(first, end);
    }
  }
  return 0;
}

}  // namespace topomoe
