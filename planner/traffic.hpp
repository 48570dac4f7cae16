// Which links an exchange of a group loads, and how much: all ranks do it at once (SPMD), so the load of
// shared links is everybody's.
//
// A GroupLoad is what the exchange puts on the busiest link of each class, per unit of `weight`: rows from
// a rank to a peer, 1 where traffic is equal for all pairs. In worlds of up to 512 GPUs all ranks are routed. Beyond,
// equal traffic is added up by classes of hosts (topomoe/class_loads.hpp); unequal traffic for those ranks that share
// leaves with the rank's EP group, on the assumption that all groups look alike.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "topomoe/schedule.hpp"
#include "topomoe/topology.hpp"

namespace topomoe {

struct GroupLoad {
  struct Class {
    std::string name;  // link class
    std::string link;  // the busiest link
    double units = 0;  // on it
    double mean = 0;   // over the links of the class that carry any
    double raw_GBps = 0;
  };
  std::vector<Class> classes;
  int peers = 0;  // of a rank, itself not counted
};

// What one rank sends to one peer. In a GroupLoad it may depend on the ranks' places in the EP group and on the peer's
// in its own, on nothing else.
using PairWeight = std::function<double(int rank, int peer)>;

// Loads by the pattern of the group; equal ones are kept, since many layouts share patterns. Rank r is GPU r.
class TrafficModel {
 public:
  explicit TrafficModel(const Router& router) : router_(router) {}
  const GroupLoad& equal(const RankGroups& groups, Role role, int rank);
  // what: of everything that the weights depend on apart from where the groups lie (layout, routing, what travels);
  // weights of equal `what` are worked out once.
  const GroupLoad& weighted(const RankGroups& groups, Role role, int rank, std::uint64_t what,
                            const PairWeight& weight);
  // The same flows onto loads that others share.
  void add(LinkLoads& loads, const RankGroups& groups, Role role, int rank, const PairWeight& weight) const;
  const Router& router() const { return router_; }

 private:
  // Which pairs cross which link, pairs of equal places as one and links crossed by the same pairs as one.
  struct Crossings {
    struct Link {
      int klass = 0, link = 0;  // the lowest of those alike
      double GBps = 0;
      std::vector<std::pair<int, int>> flows;  // pair, how often
      int alike = 1;
    };
    std::vector<std::pair<int, int>> pairs;  // an example of each: a rank and its peer
    std::vector<std::string> classes;
    std::vector<Link> links;
  };
  const Crossings& crossings(const RankGroups& groups, Role role, int rank);
  GroupLoad load_of(const Crossings& crossings, int peers, const PairWeight& weight) const;

  Router router_;
  std::map<std::vector<int>, GroupLoad> known_;
  std::map<std::pair<std::vector<int>, std::uint64_t>, GroupLoad> weighted_;
  std::map<std::vector<int>, Crossings> crossings_;
};

}  // namespace topomoe
