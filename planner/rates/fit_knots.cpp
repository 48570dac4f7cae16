#include "planner/rates/fit_knots.hpp"

#include <algorithm>
#include <cmath>

#include "planner/curve.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

struct Pool {
  double log_sum, weight;
  std::size_t sizes;
  double mean() const { return log_sum / weight; }
};

// How far knot i lies from the line between its neighbours, in log time.
double missed_without(const std::vector<CalibrationKnot>& knots, std::size_t i) {
  const auto &a = knots[i - 1], &b = knots[i], &c = knots[i + 1];
  const double f = std::log(b.size / a.size) / std::log(c.size / a.size);
  return std::abs(std::log(b.time_us / a.time_us) - f * std::log(c.time_us / a.time_us));
}

}  // namespace

FittedKnots fit_knots(std::vector<CalibrationKnot> points) {
  if (points.empty()) throw InvalidInput("curve", "no points", "at least one measured size");
  for (const CalibrationKnot& p : points)
    if (!std::isfinite(p.size) || !std::isfinite(p.time_us) || p.size <= 0 || p.time_us <= 0)
      throw InvalidInput("curve", std::to_string(p.size) + " bytes, " + std::to_string(p.time_us) + " us",
                         "sizes and times are positive and finite");
  std::sort(points.begin(), points.end(), [](const auto& a, const auto& b) { return a.size < b.size; });

  std::vector<double> sizes;
  std::vector<Pool> pools;
  for (std::size_t i = 0; i < points.size();) {
    Pool pool{0, 0, 1};
    const double size = points[i].size;
    for (; i < points.size() && points[i].size == size; ++i) pool.log_sum += std::log(points[i].time_us), ++pool.weight;
    sizes.push_back(size);
    pools.push_back(pool);
    while (pools.size() > 1 && pools[pools.size() - 2].mean() > pools.back().mean()) {
      const Pool last = pools.back();
      pools.pop_back();
      pools.back().log_sum += last.log_sum, pools.back().weight += last.weight, pools.back().sizes += last.sizes;
    }
  }
  FittedKnots fitted;
  for (const Pool& pool : pools)
    for (std::size_t i = 0; i < pool.sizes; ++i)
      fitted.knots.push_back({sizes[fitted.knots.size()], std::exp(pool.mean())});
  auto& knots = fitted.knots;
  while (knots.size() > kMostKnots) {
    std::size_t least = 1;
    for (std::size_t i = 2; i + 1 < knots.size(); ++i)
      if (missed_without(knots, i) < missed_without(knots, least)) least = i;
    knots.erase(knots.begin() + static_cast<std::ptrdiff_t>(least));
  }

  std::vector<SizeCurve::Knot> seconds;
  for (CalibrationKnot& k : knots) {
    k.time_us = std::round(k.time_us * 1e4) / 1e4;  // what is measured has no more digits
    if (k.time_us <= 0) k.time_us = 1e-4;
    seconds.push_back({k.size, k.time_us * 1e-6});
  }
  const SizeCurve curve(seconds, "fitted");
  std::vector<double> errors;
  for (const CalibrationKnot& p : points) errors.push_back(std::abs(p.time_us / in_us(curve(p.size)) - 1));
  const auto p90 = errors.begin() + static_cast<std::ptrdiff_t>(9 * (errors.size() - 1) / 10);
  std::nth_element(errors.begin(), p90, errors.end());
  fitted.spread = std::round(*p90 * 1e4) / 1e4;
  return fitted;
}

}  // namespace topomoe
