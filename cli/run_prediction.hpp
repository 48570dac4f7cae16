// What the planner says of a plan's schedule at the size that is run, on the cluster that is run on.
#pragma once

#include <string>
#include <vector>

#include "runtime/rehearsal.hpp"
#include "topomoe/calibration.hpp"
#include "topomoe/topology.hpp"

namespace topomoe::cli {

struct RunPrediction {
  PredictedPass forward, backward;  // backward empty where the plan does not train
};

// Experts equally popular: a rehearsal's router decides, whatever profile the plan was made for.
RunPrediction predict_run(const Plan& plan, const RehearsalSize& size, const Topology& topology,
                          const std::vector<Calibration>& calibrations);

}  // namespace topomoe::cli
