// The bus bandwidth, as nccl-tests counts it, that a collective can reach on a topology. Internal to the doctor.
//
// All-to-all and send_recv: the link-load bound of their flows (routes of Router). The others, whatever algorithm runs:
// what leaves or enters a set of ranks (a GPU, a PCIe switch, a node, the hosts of a leaf) takes its links. A ring
// carries each byte over the edge of each set once a direction, so its bus bandwidth is at most the least edge
// (nccl-tests, doc/PERFORMANCE.md). Trees that reduce or copy inside the set first get by with less (nccl-tests#196):
// all-gather and reduce-scatter with max(h, n-h)/(n-1) of that for a set of h of n ranks; all-reduce with n/(2(n-1)) at
// one edge (a sum leaves, the result comes in), and over all k sets of a partition, of whatever sizes, with 2(k-1)
// buffers in all. All-reduce in the switches (NVLS, SHARP) is bound by the edges alone. Gather and scatter are not held
// against anything: which edges they take depends on the root, which is not kept. Ignored: latency,
// protocol overhead, chunks; PCIe of GPUs that NVLink joins to all their peers.
#pragma once

#include <string>

#include "topology/doctor/measured_place.hpp"

namespace topomoe {

struct BusbwCeiling {
  double usual_GBps = 0;      // direct sends, rings over the NICs nearest to the GPUs
  double any_GBps = 0;        // no algorithm of sends and receives beats it
  double in_switch_GBps = 0;  // nor one that reduces in switches; as any_GBps where that does not help
  std::string bottleneck;     // "host0.nic3->leaf3", "all 8 NICs of host0"
  std::string klass;          // of LinkInfo::klass, or of the edge: "nic_out" "nvlink" "pcie" "leaf_up"
  std::string formula;        // where a closed form holds: "2/1 x 15/16 x 50 GB/s of NIC a GPU"
  bool assumed = false;       // the rate of the bottleneck is assumed
  bool unknown = false;       // it is not known, or the description says nothing of the NVLinks that would carry this
};

// InvalidInput where a pair has no path. Operations as MeasuredCollective names them.
BusbwCeiling busbw_ceiling(const RunPlace&, const std::string& operation);

// Of the operations that are no sums of flows.
BusbwCeiling ceiling_of_edges(const RunPlace&, const std::string& operation);

// All-to-all over the first 1, 2, 4, 8 nodes of the run's topology, and over as many as it had: "1: 450, 2: 93.8, ...";
// empty where hosts differ or the run was not on the first of them.
std::string all_to_all_by_nodes(const RunPlace&);

}  // namespace topomoe
