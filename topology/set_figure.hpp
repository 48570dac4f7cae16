// Figures that an edit sets for the whole cluster.
#pragma once

#include <string>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

// `key` as Edit::target of a set. InvalidInput lists the keys, and says what a figure may be.
void set_figure(Topology&, const std::string& key, double value);
std::vector<std::string> figure_keys();

}  // namespace topomoe
