#include "topomoe/discover.hpp"

#include <fmt/format.h>

#include "topology/discover/discover.hpp"
#include "topology/discover/nvml.hpp"
#include "topology/discover/sysfs_ports.hpp"
#include "topology/read/hwloc_host.hpp"
#include "topology/warnings.hpp"

namespace topomoe {
namespace {

Topology finished(Topology topology, const std::string& name, const std::vector<std::string>& warnings) {
  topology.name = name;
  if (topology.host_count() == 1)
    topology.host_names = {name};
  else
    add_warning(topology, fmt::format("{} hosts in NCCL_TOPO_DUMP_FILE: which of them is {} is not known",
                                      topology.host_count(), name));
  for (const std::string& line : warnings) add_warning(topology, line);
  require_valid(topology, "this machine");
  for (const std::string& line : warnings_from_sources(topology)) add_warning(topology, line);
  return topology;
}

}  // namespace

Topology discover_live(const std::string& name) {
  std::vector<std::string> warnings;
  if (std::optional<Topology> given = given_nccl_dump()) return finished(std::move(*given), name, warnings);
  const HwlocMachine machine = ask_hwloc();
  NvmlReport nvml;
  NcclAnswer nccl;
  if (machine.is_this_machine) {
    nvml = discover_with_nvml([](const std::string& bus_id) { return pci_class_in_sysfs("", bus_id); });
    nccl = discover_with_nccl(name);
    warnings = nvml.warnings;
    if (!nvml.has_library && !nccl.has_driver) {
      warnings.push_back("no NVIDIA driver on this machine: GPUs are looked for on the PCI bus only");
    } else {
      if (!nvml.has_library)
        warnings.push_back("no NVML (libnvidia-ml.so.1): whether all NVLinks and PCIe lanes are up is not known");
      if (!nccl.topology)
        warnings.push_back(nccl.why + (nvml.gpus.empty() ? ": NVLink stays unknown" : ": NVLinks are those of NVML"));
    }
  } else {
    warnings.push_back("hwloc tells of another machine (HWLOC_XMLFILE, HWLOC_FSROOT): no driver is asked");
  }
  if (nccl.topology) {
    Topology topology = std::move(*nccl.topology);
    add_nvml(topology.templates.at(0), nvml, warnings);
    return finished(std::move(topology), name, warnings);
  }
  Topology topology;
  topology.source = "hwloc on this machine";
  topology.templates.push_back(host_of(machine, name, warnings));
  add_nvml(topology.templates[0], nvml, warnings);
  warn_of_idle_nvswitch(topology.templates[0], warnings);
  topology.groups.push_back({0, 1});
  return finished(std::move(topology), name, warnings);
}

Topology discover_live() { return discover_live("this-host"); }

}  // namespace topomoe
