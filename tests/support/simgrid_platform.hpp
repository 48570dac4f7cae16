// A second opinion for tests: our links as a SimGrid platform, and SimGrid's own fluid simulation of flows over them.
//
// Model: each directed link of a Router is one shared SimGrid link of the same rate, without latency; a host a GPU; the
// route of a pair is the links of Router::route. SimGrid runs its model CM02 without TCP effects: plain max-min
// sharing. Ignored: latencies, and all that happens at the ends. A flow takes whole bytes; its size is rounded.
//
// SimGrid allows one Engine a process and keeps global state: simulate() works in a forked child, so that one test may
// call it as often as it likes. Nothing of SimGrid is visible here: link topomoe_simgrid (where it exists), no more.
#pragma once

#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe::test {

struct SimgridFlow {
  int src_gpu = 0;
  int dst_gpu = 0;
  double bytes = 0;
  double start_s = 0;      // of a flow that waits for none
  std::vector<int> after;  // indices of flows that must be over before this one starts
};

struct SimgridResult {
  std::vector<double> finish_s;       // by flow
  std::vector<double> bytes_on_link;  // by directed link of the Router
};

// Throws std::runtime_error where SimGrid fails, and for a flow to itself or without a path.
SimgridResult simulate(const Router&, const std::vector<SimgridFlow>&);

}  // namespace topomoe::test
