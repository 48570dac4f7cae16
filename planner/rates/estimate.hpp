// What the planner says of one operation on one machine: a time, a band, a bound, and where the figure is from.
//
// [low_us, high_us] is where nine measurements in ten are expected, judged by how far predictions of the same
// source class were off on data that they were not fitted to (planner_accuracy prints those errors): narrow for
// a curve measured at this shape, wider where GPUs, nodes or the machine differ, widest for a datasheet alone.
// bound_us is what raw rates allow: bound_us <= low_us <= time_us <= high_us.
#pragma once

#include <algorithm>
#include <string>

namespace topomoe {

struct Estimate {
  double time_us = 0, low_us = 0, high_us = 0, bound_us = 0;
  std::string source;  // "measured: h100-sxm, alltoall, 8 GPUs (aiconfigurator ...)", "scaled: ...", "datasheet: ..."
  std::string bottleneck;  // the resource that sets the time: "latency", a link's name, "SMs", "tensor cores", "HBM"
};

// A time with a relative error either way: e.g. error 0.25 gives [t / 1.25, t * 1.25], never below the bound.
inline Estimate estimate_of(double time_us, double error, double bound_us, std::string source, std::string bottleneck) {
  const double time = std::max(time_us, bound_us);
  return {time,
          std::max(time / (1 + error), bound_us),
          time * (1 + error),
          bound_us,
          std::move(source),
          std::move(bottleneck)};
}

}  // namespace topomoe
