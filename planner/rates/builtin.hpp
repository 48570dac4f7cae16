// The calibrations that are built into the binary: configs/calibration, as committed.
#pragma once

#include <vector>

#include "topomoe/calibration.hpp"

namespace topomoe {

// In the order of their names. Read once, on first use; thread-safe.
const std::vector<Calibration>& builtin_calibrations();

}  // namespace topomoe
