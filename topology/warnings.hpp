// What a topology's own sources already tell: which figures are assumed or unknown. Such lines follow from the values,
// so a reader adds them and a writer leaves them out.
#pragma once

#include <string>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

std::vector<std::string> warnings_from_sources(const Topology&);
// How a line begins that is of the hosts of a description of the network alone: what such hosts lack, or are taken for.
// Composing drops it, because hosts that are described take their place.
inline constexpr const char* kOfHosts = "hosts: ";
void add_warning(Topology&, const std::string& line);  // once
void add_warnings(Topology&, const std::vector<std::string>& lines);

}  // namespace topomoe
