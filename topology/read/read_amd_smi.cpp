// `rocm-smi --showtopo`, `amd-smi topology` -> the smallest host whose GPUs are joined as they say.
//
// Model: XGMI of one hop is a link of its own, of the bandwidth that the driver gives; of several hops it is the way
// over another GPU and no link. Each GPU hangs on the CPU of its NUMA node.
// Ignored: weights (they order paths and are no rates), and bridges below one CPU, of which the tables say nothing.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "topology/known_rates.hpp"
#include "topology/names.hpp"
#include "topology/read/amd_smi.hpp"
#include "topology/read/readers.hpp"
#include "topology/warnings.hpp"

namespace topomoe {
namespace {

const Rate kPcie{32, 0.5, Source::assumed, "PCIe Gen4 x16, of MI100 and later; the tables have no PCIe rates"};

void join(HostTemplate& host, int src, int dst, LinkKind kind, const Rate& rate, int count = 0) {
  host.links.push_back(
      {src, dst, kind, rate.GBps_per_direction, rate.latency_us, rate.source, rate.source_note, true, count});
}

// Devices: the CPUs in the order of their numbers, then the GPUs.
void add_devices(const AmdSmi& tables, HostTemplate& host) {
  std::map<int, int> cpus;  // number of the node -> its place
  for (const int node : tables.numa) cpus.emplace(node, 0);
  int count = 0;
  for (auto& [node, place] : cpus) {
    place = count++;
    host.devices.push_back({DeviceKind::numa, fmt::format("numa{}", place), "", place, {}});
    if (node >= 0) host.devices.back().attributes = {{"numaid", std::to_string(node)}};
  }
  for (int a = 0; a < count; ++a)
    for (int b = a + 1; b < count; ++b) join(host, a, b, LinkKind::cpu_interconnect, cpu_interconnect_rate(XmlCpu{}));
  for (std::size_t i = 0; i < tables.gpus.size(); ++i) {
    const int cpu = cpus.at(tables.numa[i]), gpu = static_cast<int>(host.devices.size());
    const bool is_bus_id = tables.gpus[i].find(':') != std::string::npos;
    host.devices.push_back({DeviceKind::gpu, fmt::format("gpu{}", i), is_bus_id ? tables.gpus[i] : "", cpu, {}});
    host.gpus.push_back(gpu);
    join(host, gpu, cpu, LinkKind::pcie, kPcie);
  }
}

Rate rate_of(double MBps) {
  if (MBps == 0) return xgmi_rate("");
  return {MBps / 1000, xgmi_rate("").latency_us, Source::assumed,
          "bandwidth between the two by the driver's table, taken as of one direction"};
}

void add_links(const AmdSmi& tables, HostTemplate& host, std::vector<std::string>& warnings) {
  bool all_known = true, any = false, over_others = false;
  for (std::size_t a = 0; a < tables.gpus.size(); ++a)
    for (std::size_t b = a + 1; b < tables.gpus.size(); ++b) {
      const std::size_t at = tables.at(a, b);
      all_known = all_known && tables.links[at] != AmdLink::unknown;
      if (tables.links[at] != AmdLink::xgmi) continue;
      any = true;
      if (tables.hops[at] > 1)
        over_others = true;
      else
        join(host, host.gpus[a], host.gpus[b], LinkKind::xgmi, rate_of(tables.MBps[at]));
    }
  host.nvlink = any ? Presence::present : all_known && tables.gpus.size() > 1 ? Presence::absent : Presence::unknown;
  if (over_others) warnings.push_back(host.name + ": XGMI of several hops is taken as the way over other GPUs");
}

}  // namespace

Topology read_amd_smi(std::string_view text, const std::string& where) {
  const AmdSmi tables = parse_amd_smi(text, where);
  Topology topology;
  topology.name = stem_of_file(where);
  topology.source = where;
  HostTemplate host;
  host.name = topology.name;
  host.gpu.name = "AMD GPU, type not in the tables";
  host.gpu.source_note = "rocm-smi and amd-smi do not name the GPU there; give \"gpu\" in a cluster JSON";
  add_devices(tables, host);
  std::vector<std::string> warnings;
  add_links(tables, host, warnings);
  if (std::find(tables.numa.begin(), tables.numa.end(), -1) != tables.numa.end())
    warnings.push_back(host.name + ": the NUMA node of some GPUs is not said: those are taken to be on one CPU");
  warnings.push_back(host.name + ": NICs are not in such a table");
  topology.templates.push_back(std::move(host));
  topology.groups.push_back({0, 1});
  for (const std::string& line : warnings) add_warning(topology, line);
  require_valid(topology, where);
  for (const std::string& line : warnings_from_sources(topology)) add_warning(topology, line);
  return topology;
}

}  // namespace topomoe
