// hwloc's XML as one host, of a file or of this machine.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

// port_Gbps: the speed of a network or RDMA device of that name, 0 where it is not known; hwloc does not say.
HostTemplate read_hwloc_host(std::string_view xml, const std::string& where, const std::string& host_name,
                             const std::function<double(const std::string&)>& port_Gbps,
                             std::vector<std::string>& warnings);

}  // namespace topomoe
