// The calibrations that a command prices with.
#pragma once

#include <string>
#include <vector>

#include "topomoe/calibration.hpp"
#include "topomoe/topology.hpp"

namespace topomoe::cli {

// The built-in ones, then these files. Says of a file that was measured on another machine than `here` how that
// differs, unless silent.
std::vector<Calibration> calibrations_for(const std::vector<std::string>& files, const Topology& here,
                                          bool silent = false);
// Only says it.
void compare_machines(const Calibration& calibration, const std::string& file, const Topology& here);

}  // namespace topomoe::cli
