#include <hwloc.h>
#include <stdlib.h>

#include <functional>
#include <memory>

#include "topology/discover/discover.hpp"
#include "topology/discover/sysfs_ports.hpp"
#include "topology/read/hwloc_host.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Hwloc = std::unique_ptr<hwloc_topology, void (*)(hwloc_topology_t)>;

Hwloc load() {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) throw MissingEnvironment("hwloc: cannot be started on this machine");
  Hwloc topology(raw, hwloc_topology_destroy);
  // Plugins that start drivers, or X, in this very process: NVML is asked elsewhere, where it may hang.
  for (const char* driver : {"nvml", "cuda", "opencl", "gl", "levelzero"})
    hwloc_topology_set_components(raw, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, driver);
  // The component that asks this CPU speaks up for another machine's /sys too.
  if (getenv("HWLOC_FSROOT") != nullptr)
    hwloc_topology_set_components(raw, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, "x86");
  hwloc_topology_set_io_types_filter(raw, HWLOC_TYPE_FILTER_KEEP_ALL);
  if (hwloc_topology_load(raw) != 0)
    throw MissingEnvironment(
        getenv("HWLOC_XMLFILE") != nullptr
            ? "hwloc: cannot read HWLOC_XMLFILE; `topo show FILE` reads files of other versions too"
            : "hwloc: cannot read this machine's topology");
  return topology;
}

}  // namespace

HwlocMachine ask_hwloc() {
  const Hwloc topology = load();
  char* text = nullptr;
  int length = 0;  // with the 0 at its end
  if (hwloc_topology_export_xmlbuffer(topology.get(), &text, &length, 0) != 0 || length < 1)
    throw MissingEnvironment("hwloc: cannot describe this machine");
  HwlocMachine out;
  out.xml.assign(text, static_cast<std::size_t>(length) - 1);
  hwloc_free_xmlbuffer(topology.get(), text);
  out.is_this_machine = hwloc_topology_is_thissystem(topology.get()) != 0;
  if (const char* root = getenv("HWLOC_FSROOT"))
    out.sys_root = root;
  else if (out.is_this_machine)
    out.sys_root = "";
  return out;
}

HostTemplate host_of(const HwlocMachine& machine, const std::string& name, std::vector<std::string>& warnings) {
  PortsOf ports_of;
  if (machine.sys_root) ports_of = std::bind_front(ports_in_sysfs, *machine.sys_root);
  return read_hwloc_host(machine.xml, "hwloc on this machine", name, ports_of, warnings);
}

}  // namespace topomoe
