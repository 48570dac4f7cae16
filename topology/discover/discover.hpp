// What this machine can be asked. hwloc is linked; CUDA, NCCL and NVML are only looked for at run time, in a child
// process that is killed at a deadline.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

// NCCL over eight GPUs starts in some seconds, a driver without persistence mode in some more. Assumed.
constexpr std::chrono::seconds kDriverDeadline{60};

// What hwloc sees: of this machine, or of the one that HWLOC_XMLFILE or HWLOC_FSROOT tell of.
struct HwlocMachine {
  std::string xml;
  bool is_this_machine = true;
  std::optional<std::string> sys_root;  // before "/sys"; none: of that machine there is no such tree
};
HwlocMachine ask_hwloc();
// NUMA nodes, PCIe switches, GPUs and NICs. NVLink stays unknown where hwloc was not built to ask for it.
HostTemplate host_of(const HwlocMachine& machine, const std::string& name, std::vector<std::string>& warnings);

// NCCL_TOPO_DUMP_FILE, where that names a file that is there.
std::optional<Topology> given_nccl_dump();
// What NCCL writes of this host when it starts a communicator over the visible GPUs; or why not. `name`: of its
// template.
struct NcclAnswer {
  bool has_driver = false;
  std::optional<Topology> topology;
  std::string why;
};
NcclAnswer discover_with_nccl(const std::string& name);

}  // namespace topomoe
