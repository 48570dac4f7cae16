// Figures that an edit sets for the whole cluster.
#pragma once

#include <string>

#include "topomoe/topology.hpp"

namespace topomoe {

// `key` as Edit::target of a set. InvalidInput lists the keys, and says what a figure may be.
void set_figure(Topology&, const std::string& key, double value);

}  // namespace topomoe
