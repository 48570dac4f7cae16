// How long a collective takes on a group of GPUs: measured curves inside a node, composed with the NICs and the
// fabric between nodes.
//
// Model: a curve measured at this very shape is the answer, on any number of nodes. Else inside one scale-up domain
// the node curve is (node_collective.hpp; routed_node.hpp where GPUs share links). Between nodes the time is a latency
// plus the slowest of three that run side by side: the part inside the node, the NICs, and the leaf's uplinks; NIC
// messages are posted one by one. All-gather, reduce-scatter and all-reduce go in rings over all rails, an all-reduce
// of little data up and down a tree. All groups of this shape run at once, each GPU with its own share of the NICs.
// Where a curve was measured at this shape, so may have been that of a further operation of several in a row.
// Ignored: congestion in the fabric, other traffic, GPUs that start late.
#pragma once

#include <compare>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "planner/curve.hpp"
#include "planner/rates/collective_work.hpp"
#include "planner/rates/estimate.hpp"
#include "topomoe/calibration.hpp"
#include "topomoe/topology.hpp"

namespace topomoe {

// Which ranks take part, by what their number on each node comes to. Free to copy where `gpus` is empty.
struct CollectiveGroup {
  int ranks = 1;
  int nodes = 1;
  int most = 1, fewest = 1;  // ranks on one node
  std::vector<int> gpus;     // those of the fullest node, where links are shared; empty: its first ones
  auto operator<=>(const CollectiveGroup&) const = default;
};

// InvalidInput unless both are positive.
CollectiveGroup regular_group(int ranks_per_node, int nodes);
// The first `gpus` GPUs, nodes filled in order.
CollectiveGroup first_gpus(const Topology&, int gpus);
// Any ranks (GPU numbers, each once).
CollectiveGroup group_of(const Topology&, const std::vector<int>& gpus);

// The time of one collective on one group, by bytes. Immutable; evaluation allocates nothing but the strings of an
// Estimate.
class CollectiveCurve {
 public:
  // send_bytes: one rank's send buffer (all_gather: its contribution; reduce_scatter, all_reduce: the whole buffer).
  double time_us(double send_bytes) const;
  double bound_us(double send_bytes) const;
  // A further one of several that are issued in a row: what it adds. As alone where that was not measured; outside
  // of the sizes that were, in its ratio to one alone, or as that.
  double in_a_row_us(double send_bytes) const;
  bool in_a_row_measured() const { return in_a_row_ != nullptr; }
  // Measured at this very shape.
  bool measured() const { return measured_; }
  Estimate estimate(double send_bytes) const;
  double error() const { return error_; }
  const std::string& source() const { return source_; }

 private:
  friend class CollectiveModel;
  struct Part {
    double us_per_byte = 0;  // of the whole buffer
    std::string name;
  };
  double whole(double send_bytes) const { return send_bytes * whole_per_send_; }
  double node_us(double whole_bytes) const;

  double whole_per_send_ = 1;
  double latency_us_ = 0;   // before anything flows; the node curve's own floor where there is one node
  double postings_us_ = 0;  // of messages to the NIC, beside the flow of bytes
  std::shared_ptr<const SizeCurve> node_;
  double node_floor_us_ = 0, node_work_ = 1, node_share_ = 1;
  bool measured_ = false;
  std::shared_ptr<const SizeCurve> in_a_row_;
  double in_a_row_least_ = 0, in_a_row_most_ = 0;  // of whole buffers, measured
  bool whole_ = true;                              // node_ is the time of the whole group
  std::string node_name_;
  std::vector<Part> network_, bounds_;
  double error_ = 0;
  std::string source_;
};

class CollectiveModel {
 public:
  // Keeps copies of what it needs. Of equally near calibrations the last one wins.
  CollectiveModel(const Topology&, std::span<const Calibration>);
  // Costs some 10 us; keep it (or use estimate) where the same group is asked often. Thread-safe.
  CollectiveCurve curve(Collective, const CollectiveGroup&) const;
  // The same over a cache. Thread-safe. Throws InvalidInput for bytes that are negative or not finite.
  Estimate estimate(Collective, double send_bytes, const CollectiveGroup&) const;
  double time_us(Collective, double send_bytes, const CollectiveGroup&) const;
  const Topology& topology() const;

 private:
  struct State;
  std::shared_ptr<const CollectiveCurve> cached(Collective, const CollectiveGroup&) const;
  std::shared_ptr<State> state_;
};

}  // namespace topomoe
