// The JSON of a topology, for write_cluster_json and for show_json.
#pragma once

#include <nlohmann/json.hpp>

#include "topomoe/topology.hpp"

namespace topomoe {

nlohmann::ordered_json cluster_json(const Topology&);

}  // namespace topomoe
