// A cluster after --set, --degrade and --remove, each as typed.
#pragma once

#include <string>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

// In this order. Throws InvalidInput for what the cluster does not have.
Topology edited(const Topology&, const std::vector<std::string>& set, const std::vector<std::string>& degrade,
                const std::vector<std::string>& remove);

}  // namespace topomoe
