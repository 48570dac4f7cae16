// Measured points into one monotone size curve of few knots.
#pragma once

#include <vector>

#include "topomoe/calibration.hpp"

namespace topomoe {

inline constexpr std::size_t kMostKnots = 40;

struct FittedKnots {
  std::vector<CalibrationKnot> knots;
  double spread = 0;  // 90th percentile of |measured / curve - 1|
};

// Points in any order, sizes may repeat. Repeated sizes: the geometric mean. Times that fall with size are pooled with
// their neighbours (isotonic regression in log time). Beyond kMostKnots those go first that a line between their
// neighbours misses least. Points must be positive and finite, and at least one: InvalidInput otherwise.
FittedKnots fit_knots(std::vector<CalibrationKnot> points);

}  // namespace topomoe
