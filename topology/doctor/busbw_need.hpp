// What a collective cannot do without: bytes over the edge of a set of ranks. Internal to the doctor.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace topomoe {

// What one edge, or all edges of a partition, must pass at least while groups of `n` ranks run; in buffers of one rank,
// any algorithm of sends and receives.
class Need {
 public:
  Need(std::string operation, double n) : operation_(std::move(operation)), n_(n) {}

  // One direction, of groups with `inside` of their ranks in the set. All-reduce: a sum must leave, the result come in.
  // All-gather: the parts of those outside come in, of those inside leave; reduce-scatter the other way round.
  double of_edge(const std::vector<int>& inside) const {
    if (operation_ != "all_gather" && operation_ != "reduce_scatter") return static_cast<double>(inside.size());
    double in = 0, out = 0;
    for (const int count : inside) in += (n_ - count) / n_, out += count / n_;
    return std::max(in, out);
  }
  // Of k sets that a group spans, k-1 must send before one knows the sum, and k-1 receive after that: all-reduce alone.
  double of_partition(int sets) const { return operation_ == "all_reduce" ? 2.0 * (sets - 1) : 0; }
  // Bus bandwidth, as nccl-tests counts it, of one buffer a second.
  double busbw() const {
    return operation_ == "all_reduce"                                     ? 2 * (n_ - 1) / n_
           : operation_ == "all_gather" || operation_ == "reduce_scatter" ? (n_ - 1) / n_
                                                                          : 1;
  }

 private:
  std::string operation_;
  double n_;
};

}  // namespace topomoe
