// A collective inside one scale-up domain whose GPUs all reach each other at the same rate (an NVSwitch plane):
// its time by size, from what was measured nearest to it.
//
// Model: time = floor + excess. The floor (what a small operation takes) grows with the hops of the algorithm and
// shrinks with the GPU's clock; the excess grows with the work (collective_work.hpp) and shrinks with the NVLink
// rate. A curve measured at this very shape is taken as it is. Ignored: how many GPUs of the plane are idle, where
// NCCL changes algorithm or protocol at other sizes on another machine, and what else runs on the links.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "planner/curve.hpp"
#include "planner/rates/collective_work.hpp"
#include "topomoe/calibration.hpp"

namespace topomoe {

struct NodeCurve {
  SizeCurve curve;      // seconds by whole buffer bytes
  double floor_us = 0;  // of a small operation
  double error = 0;     // relative, see planner/rates/estimate.hpp
  std::string source;   // "measured: h100-sxm, 8 GPUs", "scaled: ...", "datasheet: ..."
};

// Errors by class of source, the 90th percentiles that planner_accuracy prints: the same machine at another number of
// GPUs, and another machine by datasheet ratios. A measured curve has its own spread, at least kMeasuredError: runs
// of one machine differ by that.
inline constexpr double kMeasuredError = 0.05, kOtherCountError = 0.17, kOtherMachineError = 0.27;
// A datasheet alone: a factor of two. Assumed.
inline constexpr double kDatasheetError = 1.0;

// False for the curve of a further operation of several in a row (runtime/profile.hpp).
bool is_alone(const CalibrationCurve&);
// One measured curve as it is.
NodeCurve node_curve_of(const CalibrationCurve&, const std::string& calibration_name);
// From measured curves (`nodes` 1, `interconnect` the same), nothing where there are none. gpus >= 2.
std::optional<NodeCurve> measured_node_curve(std::span<const Calibration>, const CalibrationMachine&, Collective,
                                             int gpus);
// From the raw rate of the machine. gpus >= 2; nvlink_GBps > 0.
NodeCurve datasheet_node_curve(const CalibrationMachine&, Collective, int gpus);

}  // namespace topomoe
