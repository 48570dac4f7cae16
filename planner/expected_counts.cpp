#include "planner/expected_counts.hpp"

#include <algorithm>
#include <cmath>

namespace topomoe {

ExpectedCounts::ExpectedCounts(const RankGroups& groups, std::vector<double> popularity, int top_k, double held,
                               double injected)
    : groups_(groups), popularity_(std::move(popularity)), top_k_(top_k), held_(held), injected_(injected) {
  const int parts = groups.size(Role::ep), all = experts();
  for (int i = 0; i < parts; ++i) {
    double sum = 0;
    for (auto e = part_begin(all, parts, i); e < part_begin(all, parts, i + 1); ++e)
      sum += popularity_[static_cast<std::size_t>(e)];
    share_.push_back(sum);
  }
  const auto [least, most] = std::minmax_element(popularity_.begin(), popularity_.end());
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
    case Symbol::pairs: return injected_ * top_k_ * popularity_[static_cast<std::size_t>(index)];
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
