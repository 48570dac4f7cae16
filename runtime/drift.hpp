// How a run's steps compare with what was predicted for them, and whether a plan still stands on its curves.
//
// On a rank a step begins when it is issued and its predecessor on the lane is over. A transfer takes from when the
// last rank of its group begins to when the last one ends, so that nobody's waiting for a late one counts; a step is
// the median over groups, or over ranks. Clocks agree as far as ranks left their barrier together. Lanes are judged by
// the sum over their steps, the lanes of communication only: what a host does between them is seldom what the plan's
// GPUs would do; and against how far their curves and the repetitions of the run spread themselves. Ignored: why.
#pragma once

#include <algorithm>
#include <cmath>
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

// A lane is as predicted within so much: predictions of measured clusters come out within 8% in the median.
inline constexpr double kNoDrift = 0.15;

struct LaneDrift {
  Lane lane = Lane::compute;
  double predicted_us = 0, measured_us = 0;
  double noise = 0;         // of repetitions: two median deviations from their median, relative
  double curve_spread = 0;  // of what was predicted from, likewise relative, as far as its owner knows
  bool judged = true;       // false: whoever predicted knows that the two do not compare
  // Measured over predicted, minus 1; 0 where nothing was predicted.
  double relative() const { return predicted_us > 0 ? measured_us / predicted_us - 1 : 0; }
  // Off by a factor of 1 + this, either way: 1 where it takes twice or half the time. What spreads by as much is no
  // news.
  double off() const {
    return predicted_us > 0 && measured_us > 0 ? std::max(measured_us / predicted_us, predicted_us / measured_us) - 1
                                               : 0;
  }
  bool drifted() const { return std::abs(relative()) > kNoDrift && off() > std::hypot(curve_spread, noise); }
};

struct Drift {
  std::vector<StepDrift> steps;  // forward, then backward; medians of repetitions
  std::vector<LaneDrift> lanes;  // that carry steps, in the order of Lane; medians of repetitions of their sums
  std::size_t repetitions = 0;
};

// What `forward` and `backward` say of the schedule's steps, at the size that was run. runs: of each repetition its
// ranks; not empty.
Drift drift_of(const Schedule& schedule, const RankGroups& groups, const PredictedPass& forward,
               const PredictedPass& backward, const std::vector<std::vector<RankTrace>>& runs);

// Whether it is a lane whose drift says anything of a plan.
bool between_ranks(Lane lane);

// Fewer repetitions have no noise that could be known.
inline constexpr std::size_t kRunsToJudge = 3;
// A sentence of the lanes that compare: "the inter-node lane is 31% slower than its curve: re-plan". No plan is given
// up for what curve or repetitions spread by themselves, nor for fewer than kRunsToJudge repetitions.
std::string verdict(const Drift& drift);

// Curves from the layer's own steps: collectives by what ranks sent, alone or in a row as they were. What a profile
// measures in peace, here beside whatever else the layer does. One knot for sizes within a tenth of each other.
std::vector<CalibrationCurve> curves_of(const Schedule& schedule, const RankGroups& groups,
                                        const std::vector<RankTrace>& ranks);

}  // namespace topomoe
