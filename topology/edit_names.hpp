// What people call hosts and switches, in the words of edits. Internal to topology/.
#pragma once

#include <string>

#include "topomoe/topology.hpp"

namespace topomoe {

// "n17.gpu3" as "host16.gpu3", "leaf-a->top" as "leaf0->spine"; what is no such name stays as it is.
// InvalidInput{field} for a name that is also the number of another: "host5" where the hosts are called host1 to host8.
std::string with_numbers(const Topology&, const std::string& target, const char* field);

}  // namespace topomoe
