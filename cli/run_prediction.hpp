// What the planner says of a plan's schedule at the size that is run, on the cluster that is run on.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "cli/calibrations.hpp"
#include "planner/price.hpp"
#include "runtime/rehearsal.hpp"
#include "topomoe/calibration.hpp"
#include "topomoe/topology.hpp"

namespace topomoe::cli {

// What a pricer looks at of a layer that is executed.
LayerWidths priced_widths(const LayerShape& shape, const Layout& layout);

struct RunPrediction {
  PredictedPass forward, backward;          // backward empty where the plan does not train
  std::array<bool, kLaneCount> carried{};   // lanes with a collective that was not measured on this cluster's like
  std::array<double, kLaneCount> spread{};  // of the curves that a lane's time comes from, relative, by their shares
};

// Experts equally popular: a rehearsal's router decides, whatever profile the plan was made for. Ranks on hosts move
// host memory: where the cluster has GPUs, only curves of host memory are measured on their like.
RunPrediction predict_run(const Plan& plan, const RehearsalSize& size, const Topology& topology,
                          const std::vector<Calibration>& calibrations, RanksOn ranks);

}  // namespace topomoe::cli
