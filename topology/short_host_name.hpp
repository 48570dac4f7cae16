// What people and programs leave of a host's name. Internal to topology/.
#pragma once

#include <algorithm>
#include <string>

namespace topomoe {

// "n1" of "n1.cluster.local"; an address (10.0.0.2) is no name and has nothing short.
inline std::string short_host_name(const std::string& name) {
  const std::size_t dot = name.find('.');
  return name.find_first_not_of("0123456789") >= std::min(dot, name.size()) ? name : name.substr(0, dot);
}

}  // namespace topomoe
