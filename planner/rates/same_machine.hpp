// Why a calibration's curves are not those of a cluster, in words: said aloud, since scaled, left out or of host
// memory they look like any other source.
#pragma once

#include <string>

#include "topomoe/calibration.hpp"

namespace topomoe {

// "NIC 0.05 GB/s a GPU, here 0.025"; empty where all figures that curves depend on are equal.
std::string difference(const CalibrationMachine& measured, const CalibrationMachine& here);

// Whether ranks of this machine compute on GPUs, as far as a spec tells: SMs, or the name of a known one. Where they
// do, curves of host memory are of other links and other copies than theirs.
bool computes_on_gpus(const GpuSpec& spec);
// Whether ranks on CPUs measured it: over one of this runtime's host backends, named as software["backend"].
bool of_host_memory(const Calibration& calibration);
// As sources name it: "h100-sxm"; "mine (host memory)".
std::string source_name(const Calibration& calibration);

}  // namespace topomoe
