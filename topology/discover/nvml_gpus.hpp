// Which GPU of a host is which of NVML's, by bus id; shared by what edits the host and what judges it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "topology/discover/nvml.hpp"

namespace topomoe {

constexpr int kFabricDone = 3;  // NvmlFabric::state

using NvmlGpus = std::map<int, const NvmlGpu*>;  // by device of the host
NvmlGpus gpus_of(const HostTemplate& host, const NvmlReport& report);
int gpu_at(const HostTemplate& host, const std::string& bus_id);  // -1: none

// What is wrong by NVML, or where it and the host as it was described differ, before anything is added.
void check_nvml(const HostTemplate& host, const NvmlReport& report, std::vector<std::string>& warnings);

}  // namespace topomoe
