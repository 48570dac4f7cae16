// What differs between two hosts or clusters, element by element. Internal to topology/; `topo diff` prints it.
#pragma once

#include <string>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

struct Difference {
  std::string element;            // "numa1 and what hangs on it: 2 gpu, 1 nic"; "gpu3 (0000:1b:00.0)"
  std::string before, after;      // "there" and "missing", or two values
  std::vector<DeviceKind> kinds;  // of what is there on one side only
};

// Devices are the same where kind and bus id are, or kind and name where there is no bus id.
std::vector<Difference> differences(const HostTemplate& before, const HostTemplate& after);
std::vector<Difference> differences(const Fabric& before, const Fabric& after);
// Hosts are the same where their names are, in order where not all have names.
std::vector<Difference> differences(const Topology& before, const Topology& after);

// A line each, or "no difference"; {element, before, after} each.
std::string differences_text(const std::vector<Difference>&);
std::string differences_json(const std::vector<Difference>&);

}  // namespace topomoe
