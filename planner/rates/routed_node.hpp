// A collective among GPUs of one host that share links: PCIe boxes, and NVLink that is not a switched plane.
//
// Model: every flow goes the way that Router finds, bytes add up on each directed link, and what passes a CPU also
// adds up on that CPU's root complex. Links reach a share of their raw rate. An all-to-all sends S/n to each peer;
// the rings send from each GPU to the next one in order. The slowest resource sets the time.
// Ignored: GPUs of other groups at work on the same links, and copies that go through host memory by name.
#pragma once

#include <string>
#include <vector>

#include "planner/rates/collective_work.hpp"
#include "topomoe/topology.hpp"

namespace topomoe {

struct RoutedNode {
  double us_per_byte = 0;        // of the whole buffer S, at the rates that links reach
  double bound_us_per_byte = 0;  // at raw rates, and without the root complex
  double floor_us = 0;           // of a small operation
  double crossing = 0;           // share of the flows that pass a CPU
  std::string bottleneck;        // a link's name, or "root complex of host0.numa0"
  std::string source;
};

// `gpus`: two or more GPUs of one host. Throws InvalidInput where two of them cannot reach each other.
RoutedNode routed_node(const Router&, Collective, const std::vector<int>& gpus);

}  // namespace topomoe
