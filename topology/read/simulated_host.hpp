// A host as network simulators know one: GPUs that something joins, and for each GPU its own ports to the network.
//
// Model: no PCIe tree and no CPUs; a port hangs on its GPU by a link as fast as the port (assumed), so that nothing
// inside the host limits it. Simulators name no GPU figures: the GPUs are of unknown kind.
#pragma once

#include <string>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

struct SimulatedHost {
  enum class Inside { alone, plane, mesh, ring };  // of one GPU; one switch; each to each; each to the next
  struct Port {
    int gpu = 0, rail = 0;
    Rate rate;
  };
  std::string name, gpu_name, source_note;
  int gpus = 0;  // 0: nothing is known of what is in it but its ports
  Inside inside = Inside::alone;
  Rate link;           // plane: of one GPU, all its links together; mesh, ring: of one link
  int link_count = 0;  // plane: of how many it is the sum; 0: not known
  std::vector<Port> ports;
};

HostTemplate build_simulated_host(const SimulatedHost&);

}  // namespace topomoe
