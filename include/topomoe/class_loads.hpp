// Bytes on links of regular traffic, by classes of equal hosts: all-to-all and rings over all GPUs or over each group
// of a regular partition of them, on any topology, in time and memory that grow with the hosts and not with the pairs.
//
// Model: the routes of Router, so the loads equal LinkLoads flow by flow, byte for byte while sums are below 2^53.
// Hosts of the same template, NIC parity and luck (which links above them are dead) are one kind; a pair of kinds is
// walked once for each place they can have to each other (same leaf, same pod, further). Where there are more than 512
// kinds, flows are added one by one.
// Ignored: skew. Unequal pairs go to LinkLoads.
#pragma once

#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

// Ranks 0 .. ranks-1 are the GPUs of these numbers, cut into blocks of group * stride; the members of a group are
// base + i * stride, i < group. Where groups do not fall on whole hosts in the same way, or hosts differ in GPUs and
// there is more than one group, flows are added one by one: exact too, in time ranks * group.
struct RankPattern {
  int ranks = 0;  // 0: all GPUs
  int group = 0;  // 0: all ranks, one group
  int stride = 1;
};

// Loads with equal hosts folded together.
class FoldedLoads {
 public:
  const Router& router() const { return router_; }
  double bytes_on(int link) const;
  Bottleneck bottleneck() const;
  std::vector<ClassLoad> by_class() const;  // as LinkLoads::by_class
  LinkLoads unfold() const;                 // one double a link
  std::size_t kinds_of_host() const { return vectors_.size(); }

 private:
  friend class ClassLoadBuilder;
  struct HostVector {
    int first_host = 0, hosts = 0;
    std::vector<double> bytes;  // by directed link of the host
  };
  explicit FoldedLoads(const Router& router) : router_(router) {}
  Router router_;
  std::vector<HostVector> vectors_;
  std::vector<int> vector_of_host_;  // -1: no load
  std::vector<double> fabric_;
};

// Each rank sends bytes_per_pair to each other rank of its group. InvalidInput names a pair without a path, and a
// pattern that does not divide the ranks.
FoldedLoads all_to_all_loads(const Router&, double bytes_per_pair, const RankPattern& = {});
// Each rank sends bytes to the next of its group, the last to the first: what a ring collective puts on links. Flow by
// flow: there is one a rank.
FoldedLoads ring_loads(const Router&, double bytes, const RankPattern& = {});

}  // namespace topomoe
