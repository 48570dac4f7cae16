// The figures of a cluster's machines in the words of a calibration, so that the two can be compared.
#pragma once

#include "topomoe/calibration.hpp"

namespace topomoe {

// Of the first host, but links of the slowest: a collective over all hosts goes at its pace. Raw rates per GPU and
// direction; a figure that the topology does not know is 0.
CalibrationMachine machine_figures(const Topology&);

// From `from` to `to`: how much longer small operations take, how much faster large ones go.
struct MachineRatio {
  double latency = 1;    // time of `to` over time of `from`
  double bandwidth = 1;  // rate of `to` over rate of `from`
  double distance = 0;   // 0: the same machine; |ln| of both ratios, and a little for another name
};
MachineRatio ratio_between(const CalibrationMachine& from, const CalibrationMachine& to);

}  // namespace topomoe
