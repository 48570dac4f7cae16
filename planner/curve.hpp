// A size curve: the time of one operation as a function of its size (DESIGN 6).
//
// Piecewise linear between knots in (log size, log time), monotone. One (alpha, beta) line is wrong by 3-5x
// at one end of what GPUs show; a curve is not. Below the first knot the time is the first knot's (latency),
// above the last it grows in proportion to size (bandwidth).
#pragma once

#include <string>
#include <vector>

#include "topomoe/units.hpp"

namespace topomoe {

class SizeCurve {
 public:
  struct Knot {
    double size, seconds;
  };
  // Knots in growing size; seconds are made monotone by a running maximum. Throws InvalidInput unless all
  // are positive and finite.
  explicit SizeCurve(std::vector<Knot> knots, std::string source);
  // From a datasheet: latency + size / rate, a knot each power of two from 256 B to 16 GiB. The chord of a
  // convex function lies above it, so the curve never beats the rate.
  static SizeCurve from_rate(Seconds latency, BytesPerSecond rate, std::string source);

  Seconds operator()(double size) const;
  const std::string& source() const { return source_; }

 private:
  std::vector<Knot> knots_;
  std::string source_;
};

}  // namespace topomoe
