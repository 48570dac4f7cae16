// This machine as a cluster of one host, under a name of its own: what `topomoe topo discover` writes on each node.
//
// Asked are hwloc, sysfs, NVML (libnvidia-ml.so.1) and, where there are GPUs, NCCL's dump; NCCL_TOPO_DUMP_FILE, where
// that file exists, takes NCCL's place. HWLOC_XMLFILE and HWLOC_FSROOT make it another machine, whose GPUs are not
// asked (unless HWLOC_THISSYSTEM=1). NVML and NCCL run in child processes with a deadline of 60 s each, so nothing
// hangs; a process that already uses CUDA gets no dump from such a child, and a warning says so.
#pragma once

#include <string>

#include "topomoe/topology.hpp"

namespace topomoe {

// `name`: of the topology, its host and its template.
Topology discover_live(const std::string& name);

}  // namespace topomoe
