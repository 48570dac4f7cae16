// How a run's steps compare with what was predicted for them, and whether a plan still stands on its curves.
//
// On a rank a step begins when it is issued and its predecessor on the lane is over. A transfer takes from when the
// last rank of its group begins to when the last one ends, so that nobody's waiting for a late one counts; a step is
// the median over groups, or over ranks. Clocks agree as far as ranks left their barrier together. Lanes are judged by
// the sum over their steps, the lanes of communication only: what a host does between them is seldom what the plan's
// GPUs would do. Ignored: why.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/rehearsal.hpp"
#include "topomoe/calibration.hpp"

namespace topomoe {

struct StepDrift {
  std::string name;
  StepKind kind = StepKind::copy;
  Lane lane = Lane::compute;
  bool backward = false;
  double predicted_us = 0, measured_us = 0;
};

struct LaneDrift {
  Lane lane = Lane::compute;
  double predicted_us = 0, measured_us = 0;
  bool judged = true;  // false: whoever predicted knows that the two do not compare
  // Measured over predicted, minus 1; 0 where nothing was predicted.
  double relative() const { return predicted_us > 0 ? measured_us / predicted_us - 1 : 0; }
};

struct Drift {
  std::vector<StepDrift> steps;  // forward, then backward
  std::vector<LaneDrift> lanes;  // that carry steps, in the order of Lane
};

// What `forward` and `backward` say of the schedule's steps, at the size that was run.
Drift drift_of(const Schedule& schedule, const RankGroups& groups, const PredictedPass& forward,
               const PredictedPass& backward, const std::vector<RankTrace>& ranks);

// A sentence of the lanes that compare: "the inter-node lane is 31% slower than its curve: re-plan". Within kNoDrift a
// lane is as predicted.
inline constexpr double kNoDrift = 0.15;  // predictions of measured clusters come out within 8% in the median
std::string verdict(const Drift& drift);

// Curves from the layer's own steps: collectives by what ranks sent, alone or in a row as they were. What a profile
// measures in peace, here beside whatever else the layer does. One knot for sizes within a tenth of each other.
std::vector<CalibrationCurve> curves_of(const Schedule& schedule, const RankGroups& groups,
                                        const std::vector<RankTrace>& ranks);

}  // namespace topomoe
