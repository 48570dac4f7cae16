// Raw rates of one GPU in one dtype, as the compute models take them, and how two GPUs compare.
#pragma once

#include <cmath>

namespace topomoe {

struct GpuRates {
  double flop_per_us = 0;       // dense, of the dtype that is computed in
  double hbm_bytes_per_us = 0;  // 1 GB/s is 1,000 bytes a us
  double sms = 0;
  double element_bytes = 2;
  double weight_bytes = element_bytes;  // less where weights stay quantised and kernels convert them as they read
};

// Traffic that may stay in the GPU's caches (B200: 126 MB of L2, H100: 50 MB), so that no bound counts it.
constexpr double kCacheBytes = 128e6;

// max(a, b) with a round corner, (a^p + b^p)^(1/p): two parts that overlap, though not perfectly where they take
// equally long. Powers by hand: these are priced millions of times.
inline double smooth_max3(double a, double b) { return std::cbrt(a * a * a + b * b * b); }
inline double smooth_max4(double a, double b) { return std::sqrt(std::sqrt(a * a * a * a + b * b * b * b)); }

}  // namespace topomoe
