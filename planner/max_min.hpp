// Max-min fair rates: all rates rise together until a flow reaches its limit or a resource is full, which
// fixes the flows on it; the rest rise on (progressive filling).
//
// A flow at rate r takes weight * r of each resource that it uses. The result is the only one where no rate
// can be raised without lowering another that is not larger. Ignored: latency, windows, packets.
#pragma once

#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace topomoe {

struct Flow {
  double work = 0;                                         // e.g. bytes; 0 takes no time
  double limit = std::numeric_limits<double>::infinity();  // of its rate, e.g. bytes/s; finite where it uses nothing
  std::vector<std::pair<int, double>> uses;                // resource, weight >= 0
  int queue = -1;                                          // flows of a queue run one after another; -1: none
  std::vector<int> after;                                  // indices of earlier flows that must have finished
};

// What rates depend on; `uses` stays the caller's.
struct FlowView {
  double work = 0, limit = 0;
  std::span<const std::pair<int, double>> uses;
};
std::vector<FlowView> views(std::span<const Flow> flows);

// Flows and capacities (which are positive) stay the caller's and must outlive the calls of share(). What is kept
// between calls is scratch space and a packed copy of the uses: results depend on the arguments only.
class MaxMin {
 public:
  MaxMin() = default;
  MaxMin(std::span<const FlowView> flows, std::span<const double> capacity) { reset(flows, capacity); }
  void reset(std::span<const FlowView> flows, std::span<const double> capacity);
  // rate[f] for each f of `active` (without duplicates).
  void share(std::span<const int> active, std::vector<double>& rate);

 private:
  void share_few(std::span<const int> active, std::vector<double>& rate);
  void share_many(std::span<const int> active, std::vector<double>& rate);
  void pack();

  struct Use {
    int resource;
    double weight;
  };
  std::span<const FlowView> flows_;
  std::span<const double> capacity_;
  std::vector<double> load_, rising_, whole_;
  std::vector<char> fixed_;
  // Of share_many: uses by flow, flows by resource, each flow once.
  std::vector<Use> uses_;
  std::vector<int> first_use_, users_, first_user_, open_, by_limit_;
  std::vector<std::pair<double, int>> heap_;
};

}  // namespace topomoe
