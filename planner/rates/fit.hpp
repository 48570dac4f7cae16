// Robust least squares with bounds, for models of few figures: Levenberg-Marquardt on numeric derivatives.
//
// Minimises the sum of s^2 (sqrt(1 + (r/s)^2) - 1) over residuals r, quadratic for |r| < s and linear beyond, so
// that a few odd measurements do not bend the rest. Figures stay in [low, high]. It finds the local minimum
// that the start leads to; no random restarts, hence the same figures from the same points.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

namespace topomoe {

struct FitFigure {
  double start = 0, low = 0, high = 0;  // low < high
};

// Fills residuals from figures; called often.
using Residuals = std::function<void(std::span<const double> figures, std::span<double> residuals)>;

std::vector<double> fit_figures(std::span<const FitFigure> figures, std::size_t residual_count, double robust_scale,
                                const Residuals& residuals);

// The q-quantile of |exp(r) - 1|: what a fit in logarithms leaves, as a relative error.
double relative_quantile(std::span<const double> log_residuals, double q);

// Both of residuals in logarithms: the figures, and the 90th percentile of what they leave.
struct LogFit {
  std::vector<double> figures;
  double spread = 0;
};
LogFit fit_logs(std::span<const FitFigure> figures, std::size_t residual_count, double robust_scale,
                const Residuals& residuals);

}  // namespace topomoe
