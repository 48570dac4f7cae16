// One host's own faults. Internal to topology/.
#pragma once

#include <string>
#include <vector>

#include "topomoe/doctor.hpp"

namespace topomoe {

// `where` begins the name of each element: "node7."; empty for the only host.
void diagnose_host(const HostTemplate& host, const std::string& where, std::vector<Finding>& findings);

// All that an all-to-all inside this host can move, GB/s a GPU and direction; 0: there is no way, or one GPU.
double all_to_all_GBps(const HostTemplate& host);

}  // namespace topomoe
