// hwloc's XML as one host, of a file or of this machine.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

// A port of a network device, as something other than hwloc knows it.
struct NicPort {
  std::string name;  // "mlx5_0", "eth0"
  double Gbps = 0;   // 0: not known
  bool is_down = false;
  std::vector<Attribute> attributes;
};
struct NicPorts {
  std::vector<NicPort> ports;
  bool is_virtual_function = false;  // of a physical one of this machine, whose ports it shares
};

// ports_of: of a device by bus id, with the names of its RDMA and its network devices; hwloc knows no speeds. Empty, or
// no ports from it: one port of unknown speed. Ports that are down become no Nic, as in NCCL.
using PortsOf = std::function<NicPorts(const std::string& bus_id, const std::vector<std::string>& rdma_names,
                                       const std::vector<std::string>& net_names)>;
HostTemplate read_hwloc_host(std::string_view xml, const std::string& where, const std::string& host_name,
                             const PortsOf& ports_of, std::vector<std::string>& warnings);

// A line where the host has NVSwitches and no link to them: once all that knows of links has been asked.
void warn_of_idle_nvswitch(const HostTemplate& host, std::vector<std::string>& warnings);

}  // namespace topomoe
