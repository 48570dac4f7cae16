// Why a calibration's curves are not taken as they are on a cluster, in words: said aloud, since scaled or left out
// they look like any other source.
#pragma once

#include <string>

#include "topomoe/calibration.hpp"

namespace topomoe {

// "NIC 0.05 GB/s a GPU, here 0.025"; empty where all figures that curves depend on are equal.
std::string difference(const CalibrationMachine& measured, const CalibrationMachine& here);

}  // namespace topomoe
