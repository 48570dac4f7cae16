// What NCCL makes of the network between nodes, in figures that no table at hand measures directly.
#pragma once

namespace topomoe {

struct NetworkFigures {
  // Payload over raw NIC rate: DeepEP on H200 + ConnectX-7, 2 nodes, 24 SMs, reaches 44 of 50 GB/s.
  double nic_share = 0.88;
  // Over a collective inside a node: waking the proxy, and one round over the fabric. Assumed (2 nodes of H100 are
  // usually seen at 15-25 us, 7-8 of which one node takes).
  double base_us = 13;
  double posting_us = 0.5;  // one more message by the proxy. Assumed.
  // One hop between nodes, of a ring and of a tree: NCCL's cost model has 2.7-4 us and 5-8.5 us for small protocols.
  double ring_hop_us = 4, tree_hop_us = 6;
  double error = 0.35;  // no NCCL table of several nodes is at hand. Assumed.
};

}  // namespace topomoe
