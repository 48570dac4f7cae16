#include "planner/curve.hpp"

#include <algorithm>
#include <cmath>

#include "topomoe/error.hpp"

namespace topomoe {

SizeCurve::SizeCurve(std::vector<Knot> knots, std::string source)
    : knots_(std::move(knots)), source_(std::move(source)) {
  if (knots_.empty()) throw InvalidInput("size curve " + source_, "no knots", "at least one (size, seconds)");
  for (std::size_t i = 0; i < knots_.size(); ++i) {
    Knot& k = knots_[i];
    if (!std::isfinite(k.size) || !std::isfinite(k.seconds) || k.size <= 0 || k.seconds <= 0 ||
        (i > 0 && k.size <= knots_[i - 1].size))
      throw InvalidInput("size curve " + source_, "knot " + std::to_string(i),
                         "sizes grow, all values are positive and finite");
    if (i > 0) k.seconds = std::max(k.seconds, knots_[i - 1].seconds);
  }
}

SizeCurve SizeCurve::from_rate(Seconds latency, BytesPerSecond rate, std::string source) {
  std::vector<Knot> knots;
  for (double size = 256; size <= 17179869184.0; size *= 2)
    knots.push_back({size, (latency + bytes(size) / rate).value});
  return SizeCurve(std::move(knots), std::move(source));
}

Seconds SizeCurve::operator()(double size) const {
  if (size <= 0) return {0};
  if (size <= knots_.front().size) return {knots_.front().seconds};
  if (size >= knots_.back().size) return {knots_.back().seconds * size / knots_.back().size};
  const auto above =
      std::lower_bound(knots_.begin(), knots_.end(), size, [](const Knot& k, double s) { return k.size < s; });
  const Knot &a = *(above - 1), &b = *above;
  const double f = std::log(size / a.size) / std::log(b.size / a.size);
  return {a.seconds * std::pow(b.seconds / a.seconds, f)};
}

}  // namespace topomoe
