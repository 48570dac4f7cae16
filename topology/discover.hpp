// What this machine can be asked. hwloc is linked; CUDA and NCCL are only looked for at run time.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

// NUMA nodes, PCIe switches, GPUs and NICs as hwloc sees them. NVLink stays unknown.
HostTemplate discover_with_hwloc(std::vector<std::string>& warnings);

// The file that NCCL writes of this host, from NCCL_TOPO_DUMP_FILE where that file exists, else by starting a
// communicator over the visible GPUs. None, with the reason in warnings, where there is no GPU, CUDA or NCCL.
std::optional<Topology> discover_with_nccl(std::vector<std::string>& warnings);

}  // namespace topomoe
