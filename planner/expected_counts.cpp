#include "planner/expected_counts.hpp"

#include <algorithm>
#include <cmath>

namespace topomoe {

namespace {

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

}  // namespace

ExpectedCounts::ExpectedCounts(const RankGroups& groups, const std::vector<double>& popularity, int top_k, double held,
                               double injected)
    : groups_(groups), chosen_(chosen_with(popularity, top_k)), top_k_(top_k), held_(held), injected_(injected) {
  const int parts = groups.size(Role::ep), all = experts();
  for (int i = 0; i < parts; ++i) {
    double sum = 0;
    for (auto e = part_begin(all, parts, i); e < part_begin(all, parts, i + 1); ++e)
      sum += chosen_[static_cast<std::size_t>(e)];
    share_.push_back(sum / top_k);
  }
  const auto [least, most] = std::minmax_element(popularity.begin(), popularity.end());
  uniform_ = *most - *least < 1e-12;
}

int ExpectedCounts::busiest() const {
  return static_cast<int>(std::max_element(share_.begin(), share_.end()) - share_.begin());
}

double ExpectedCounts::reach(double share, int members) const {
  if (!uniform_) return 1 - std::pow(1 - std::min(1.0, share), top_k_);
  // C(E-m, k) / C(E, k) as a product.
  double miss = 1;
  for (int i = 0; i < top_k_; ++i)
    miss *= std::max(0.0, static_cast<double>(experts() - members - i) / (experts() - i));
  return 1 - miss;
}

double ExpectedCounts::count(Symbol symbol, int, int, int index) const {
  switch (symbol) {
    case Symbol::held: return held_;
    case Symbol::tokens: return injected_;
    case Symbol::pairs: return injected_ * chosen_[static_cast<std::size_t>(index)];
    case Symbol::rank_tokens: {
      const int place = groups_.index_in(Role::ep, index), parts = groups_.size(Role::ep);
      return injected_ * reach(share(place), static_cast<int>(part_begin(experts(), parts, place + 1) -
                                                              part_begin(experts(), parts, place)));
    }
    case Symbol::node_tokens: {
      double sum = 0;
      int members = 0;
      const auto node = groups_.members(Role::node, index);
      const int parts = groups_.size(Role::ep);
      for (const int rank : node) {
        const int place = groups_.index_in(Role::ep, rank);
        sum += share(place);
        members += static_cast<int>(part_begin(experts(), parts, place + 1) - part_begin(experts(), parts, place));
      }
      return injected_ * reach(sum, members);
    }
  }
  return 0;
}

}  // namespace topomoe
