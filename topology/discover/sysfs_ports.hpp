// What Linux says of network devices under /sys: port speeds, states and kinds, which hwloc does not read.
//
// No GUIDs or addresses: they are of one machine, and equal hosts stay equal. ibnetdiscover names a host's ports by
// host and device ("n17 mlx5_0"), so that is what such output is matched by.
#pragma once

#include <string>
#include <vector>

#include "topology/read/hwloc_host.hpp"

namespace topomoe {

// root: "" for this machine, or where a copy of its /sys lies (HWLOC_FSROOT). A port per RDMA port ("mlx5_0", of
// several "mlx5_0:1"), else per network device; attributes "link_layer" (InfiniBand, Ethernet: with an RDMA name that
// is RoCE) and "netdev". None where nothing is there to read.
NicPorts ports_in_sysfs(const std::string& root, const std::string& bus_id, const std::vector<std::string>& rdma_names,
                        const std::vector<std::string>& net_names);

// "0x068000"; empty: no such device.
std::string pci_class_in_sysfs(const std::string& root, const std::string& bus_id);

}  // namespace topomoe
