#include "planner/rates/machine_figures.hpp"

#include <algorithm>
#include <cmath>

#include "planner/rates/gpu_facts.hpp"

namespace topomoe {

namespace {

// NVLink or xGMI of one GPU, and whether it goes to a switch.
double scale_up_GBps(const HostTemplate& host, int gpu, bool& over_switch) {
  double sum = 0;
  for (const Link& link : host.links) {
    if (link.src != gpu && !(link.both_ways && link.dst == gpu)) continue;
    if (link.kind != LinkKind::nvlink && link.kind != LinkKind::xgmi) continue;
    const int other = link.src == gpu ? link.dst : link.src;
    sum += link.GBps_per_direction;
    over_switch = over_switch || host.devices[static_cast<std::size_t>(other)].kind == DeviceKind::nvswitch;
  }
  return sum;
}

void keep_least(double& least, double figure) {
  if (figure > 0 && (least == 0 || figure < least)) least = figure;
}

}  // namespace

CalibrationMachine machine_figures(const Topology& topology) {
  CalibrationMachine m;
  if (topology.gpu_count() == 0) return m;
  const HostTemplate& first = topology.host_template(topology.host_of(0));
  m.gpu = topology.gpu_spec(0);
  m.gpus_per_node = topology.gpus_per_node();
  const int gpu = first.gpus.front();
  for (const Link& link : first.links)
    if (link.kind == LinkKind::pcie && (link.src == gpu || (link.both_ways && link.dst == gpu)))
      m.pcie_GBps = std::max(m.pcie_GBps, link.GBps_per_direction);
  bool over_switch = false;
  for (const HostGroup& group : topology.groups) {
    const HostTemplate& host = topology.templates[static_cast<std::size_t>(group.template_index)];
    if (host.gpus.empty()) continue;
    for (const int each : host.gpus) keep_least(m.nvlink_GBps, scale_up_GBps(host, each, over_switch));
    double ports = 0;
    for (const Nic& nic : host.nics) ports += nic.port.GBps_per_direction;
    keep_least(m.nic_GBps, ports / static_cast<double>(host.gpus.size()));
  }
  if (m.nvlink_GBps > 0)
    m.interconnect = over_switch ? "nvswitch" : "nvlink";
  else if (first.nvlink == Presence::absent)
    m.interconnect = "pcie";
  return m;
}

MachineRatio ratio_between(const CalibrationMachine& from, const CalibrationMachine& to) {
  MachineRatio r;
  const GpuFacts a = gpu_facts(from.gpu.name), b = gpu_facts(to.gpu.name);
  if (from.nvlink_GBps > 0 && to.nvlink_GBps > 0)
    r.bandwidth = to.nvlink_GBps * b.nvlink_fraction / (from.nvlink_GBps * a.nvlink_fraction);
  if (a.clock_GHz > 0 && b.clock_GHz > 0) r.latency = a.clock_GHz / b.clock_GHz;
  r.distance = std::abs(std::log(r.bandwidth)) + std::abs(std::log(r.latency));
  // H100 and H200 share every ratio, and yet are two machines.
  const bool same = a.sm != 0 || b.sm != 0 ? a.model == b.model : from.gpu.name == to.gpu.name;
  if (!same) r.distance += a.sm == b.sm && a.sm != 0 ? 0.01 : 0.05;
  return r;
}

}  // namespace topomoe
