// Expected counts under a routing profile, before any token exists: what the planner binds the symbols of
// a schedule to. All sources inject the same number of tokens; chunks are ignored (a chunk of n is 1/n).
//
// pairs: T times the probability of the expert among a token's k distinct ones (about k p_e, at most 1). Distinct
// tokens reaching a set with share q of the popularity: T (1 - C(E-m,k)/C(E,k)) for m of E equally popular experts
// (exact), else T (1 - (1-q)^k) (draws with replacement; skew makes it an upper bound).
#pragma once

#include <vector>

#include "topomoe/schedule.hpp"

namespace topomoe {

class ExpectedCounts final : public CountSource {
 public:
  // popularity sums to 1. held: tokens a rank holds; injected: tokens it sends into the exchange.
  ExpectedCounts(const RankGroups& groups, const std::vector<double>& popularity, int top_k, double held,
                 double injected);
  double count(Symbol symbol, int chunk, int source, int index) const override;
  int experts() const override { return static_cast<int>(chosen_.size()); }

  // Share of all pairs that go to the experts of a place in the EP group.
  double share(int ep_index) const { return share_[static_cast<std::size_t>(ep_index)]; }
  int busiest() const;  // place in the EP group with the largest share

 private:
  double reach(double share, int experts) const;
  const RankGroups& groups_;
  std::vector<double> chosen_, share_;  // by expert: rows of a token; by place: share of all pairs
  int top_k_;
  double held_, injected_;
  bool uniform_;
};

}  // namespace topomoe
