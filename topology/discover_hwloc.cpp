#include <hwloc.h>

#include <fstream>
#include <memory>

#include "topology/discover.hpp"
#include "topology/hwloc_host.hpp"
#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Hwloc = std::unique_ptr<hwloc_topology, void (*)(hwloc_topology_t)>;

Hwloc load() {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) throw MissingEnvironment("hwloc: cannot be started on this machine");
  Hwloc topology(raw, hwloc_topology_destroy);
  hwloc_topology_set_io_types_filter(raw, HWLOC_TYPE_FILTER_KEEP_ALL);
  if (hwloc_topology_load(raw) != 0) throw MissingEnvironment("hwloc: cannot read this machine's topology");
  return topology;
}

double first_number_in(const std::string& file) {
  std::ifstream in(file);
  double value = 0;
  return in >> value ? value : 0;
}

// Gb/s of a network or InfiniBand device, from sysfs; 0 where it does not say.
double port_Gbps(const std::string& os_name) {
  if (const double Mbps = first_number_in("/sys/class/net/" + os_name + "/speed"); Mbps > 0) return Mbps / 1000;
  return first_number_in("/sys/class/infiniband/" + os_name + "/ports/1/rate");
}

}  // namespace

HostTemplate discover_with_hwloc(std::vector<std::string>& warnings) {
  const Hwloc topology = load();
  char* text = nullptr;
  int length = 0;  // with the 0 at its end
  if (hwloc_topology_export_xmlbuffer(topology.get(), &text, &length, 0) != 0 || length < 1)
    throw MissingEnvironment("hwloc: cannot describe this machine");
  const std::string xml(text, static_cast<std::size_t>(length) - 1);
  hwloc_free_xmlbuffer(topology.get(), text);
  return read_hwloc_host(xml, "hwloc on this machine", "this-host", port_Gbps, warnings);
}

Topology discover_live() {
  std::vector<std::string> warnings;
  if (std::optional<Topology> found = discover_with_nccl(warnings)) {
    for (const std::string& line : warnings) add_warning(*found, line);
    return std::move(*found);
  }
  Topology topology;
  topology.name = "this-host";
  topology.source = "hwloc on this machine";
  topology.templates.push_back(discover_with_hwloc(warnings));
  topology.groups.push_back({0, 1});
  for (const std::string& line : warnings) add_warning(topology, line);
  require_valid(topology, "this machine");
  for (const std::string& line : warnings_from_sources(topology)) add_warning(topology, line);
  return topology;
}

}  // namespace topomoe
