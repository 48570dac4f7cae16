#include "topology/read/simulated_host.hpp"

#include <fmt/format.h>

namespace topomoe {

HostTemplate build_simulated_host(const SimulatedHost& own) {
  HostTemplate host;
  host.name = own.name;
  host.gpu.name = own.gpu_name;
  host.gpu.source_note = own.source_note;
  host.nvlink = own.inside == SimulatedHost::Inside::alone ? Presence::absent : Presence::present;
  for (int i = 0; i < own.gpus; ++i) {
    host.gpus.push_back(i);
    host.devices.push_back({DeviceKind::gpu, fmt::format("gpu{}", i), "", -1, {}});
  }
  const auto join = [&](int a, int b, LinkKind kind, const Rate& rate, int count) {
    host.links.push_back(
        {a, b, kind, rate.GBps_per_direction, rate.latency_us, rate.source, rate.source_note, true, count});
  };
  switch (own.inside) {
    case SimulatedHost::Inside::alone: break;
    case SimulatedHost::Inside::plane:
      host.devices.push_back({DeviceKind::nvswitch, "nvswitch", "", -1, {}});
      for (int i = 0; i < own.gpus; ++i) join(i, own.gpus, LinkKind::nvlink, own.link, own.link_count);
      break;
    case SimulatedHost::Inside::mesh:
      for (int i = 0; i < own.gpus; ++i)
        for (int j = i + 1; j < own.gpus; ++j) join(i, j, LinkKind::nvlink, own.link, 1);
      break;
    case SimulatedHost::Inside::ring:  // of two there is one link
      for (int i = 0; i < (own.gpus == 2 ? 1 : own.gpus); ++i)
        join(i, (i + 1) % own.gpus, LinkKind::nvlink, own.link, 1);
      break;
  }
  if (own.gpus == 0) host.devices.push_back({DeviceKind::numa, "numa0", "", -1, {}});
  for (const SimulatedHost::Port& port : own.ports) {
    const int device = static_cast<int>(host.devices.size());
    const std::string name = fmt::format("nic{}", host.nics.size());
    host.devices.push_back({DeviceKind::nic, name, "", -1, {}});
    host.nics.push_back({device, port.rail, name, port.rate, {}});
    if (own.gpus > 0)
      join(port.gpu, device, LinkKind::pcie,
           {port.rate.GBps_per_direction, 0, Source::assumed, "not in the file: as fast as the port"}, 0);
  }
  return host;
}

}  // namespace topomoe
