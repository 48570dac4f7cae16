// Expected counts under a routing profile, before any token exists: what the planner binds the symbols of
// a schedule to. All sources inject the same number of tokens; chunks are ignored (a chunk of n is 1/n).
//
// pairs: T times the probability of the expert among a token's k distinct ones (about k p_e, at most 1). Distinct
// tokens reaching a set with share q of the popularity: T (1 - C(E-m,k)/C(E,k)) for m of E equally popular experts
// (exact), else T (1 - (1-q)^k) (draws with replacement; skew makes it an upper bound).
// Group-limited routing: the same inside the groups that a token may reach, averaged over which groups these are.
// They are drawn by popularity, as draw_routing() draws them; a router that keeps the groups of the best experts
// fills them a little more evenly.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include "topomoe/schedule.hpp"

namespace topomoe {

// What is known of a token's k experts before it exists. Not thread-safe: keeps what it has worked out.
class RoutingOdds {
 public:
  // popularity sums to 1. With topk_groups < groups a token's experts lie in that many of the equal groups of
  // consecutive experts.
  RoutingOdds(const std::vector<double>& popularity, int top_k, int groups = 1, int topk_groups = 1);
  int experts() const { return static_cast<int>(chosen_.size()); }
  int top_k() const { return top_k_; }
  bool uniform() const { return uniform_; }  // experts are equally popular
  bool limited() const { return topk_groups_ < groups_; }
  // Probability that an expert is one of them; sums to k.
  double chosen(int expert) const { return chosen_[static_cast<std::size_t>(expert)]; }
  double chosen(int first, int end) const;
  // Probability that at least one of the experts [first, end) is.
  double reached(int first, int end) const;

 private:
  double reached_uniform(int first, int end) const;
  double reached_skewed(int first, int end) const;
  std::vector<double> chosen_;
  int top_k_, groups_, topk_groups_;
  bool uniform_;
  // Of skewed and limited routing: sets of groups that a token may be left with, their probability, and given these the
  // sum over experts before i of the probability that each is chosen.
  struct Allowed {
    double probability = 0;
    std::vector<double> before;
  };
  std::vector<Allowed> allowed_;
  mutable std::unordered_map<std::int64_t, double> reached_;  // by first and end
};

class ExpectedCounts final : public CountSource {
 public:
  // held: tokens a rank holds; injected: tokens it sends into the exchange. Experts lie in even blocks. Keeps references.
  ExpectedCounts(const RankGroups& groups, const RoutingOdds& odds, double held, double injected);
  double count(Symbol symbol, int chunk, int source, int index) const override;

  // Share of all pairs that go to the experts of a place in the EP group.
  double share(int ep_index) const { return share_[static_cast<std::size_t>(ep_index)]; }
  int busiest() const;  // place in the EP group with the largest share
  bool alike() const;   // all places get the same, and so do all nodes

 private:
  std::pair<int, int> experts_of(int place) const;      // [first, end)
  std::pair<int, int> experts_on_node(int rank) const;  // of the members of its EP group there
  const RankGroups& groups_;
  const RoutingOdds& odds_;
  std::vector<double> share_;  // by place: of all pairs
  double held_, injected_;
};

}  // namespace topomoe
