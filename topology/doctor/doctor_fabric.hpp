// What joins the hosts: leaves, uplinks, cables. Internal to topology/.
#pragma once

#include <string>
#include <vector>

#include "topomoe/doctor.hpp"

namespace topomoe {

// `where` begins the name of each element. Nothing where there is no fabric or no GPU.
void diagnose_fabric(const Topology&, const std::string& where, std::vector<Finding>&);

// "all-to-all over 16 hosts: at most 45 of 50 GB/s a GPU"; empty where repairs change nothing, or where it would take
// long to say.
std::string fabric_cost(const Topology& now, const Topology& repaired);

}  // namespace topomoe
