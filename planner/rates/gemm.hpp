// Time of one dense GEMM, (m x k) times (k x n), on one GPU.
//
//   launch + smooth max(compute, memory)
//   compute  2 k x (m and n padded to the tile that wastes least, at least one tile a SM)
//            / (peak x peak_fraction), x (1 + ramp_k / k) for filling and draining the k loop,
//            x (1 + droop per decade of time beyond 100 us): clocks fall under sustained load
//   memory   each operand and the result once / (HBM x hbm_fraction)
// A grouped kernel runs several as one launch: tiles, flops and bytes of all add up, and together they fill the SMs.
// DeepGEMM publishes for H800 that it reaches what one GEMM of these n and k does (FP8, 4096 x 7168: 1,288 TFLOP/s
// for 8 groups of 4,096 rows, 1,304 for one of 4,096).
// Ignored: wave quantisation (fitted on H100 it is nothing: the library splits k), transposes, alignment
// below a tile, operands that are already in cache.
#pragma once

#include <span>

#include "planner/rates/gpu_rates.hpp"

namespace topomoe {

// Defaults: a round-off of cuBLAS BF16 on H100 SXM (225 GEMMs, aiconfigurator); what a datasheet alone is given.
struct GemmFigures {
  double launch_us = 3.1;
  double hbm_fraction = 0.89;
  double peak_fraction = 0.90;
  double ramp_k = 220;
  double droop = 0.12;
};

struct GemmPoint {
  double m = 0, n = 0, k = 0, time_us = 0;
};

struct GemmTime {
  double total_us = 0, compute_us = 0, memory_us = 0, launch_us = 0;
};

GemmTime gemm_time(const GemmFigures&, const GpuRates&, double m, double n, double k);
struct GroupedGemm {
  double m = 0, n = 0, k = 0;
  double count = 1;         // so many of this shape; a mean below one is that part of one
  double result_bytes = 0;  // an element of the result, read and written; 0: an element of the operands
};
GemmTime grouped_gemm_time(const GemmFigures&, const GpuRates&, std::span<const GroupedGemm>);
// What no GEMM can beat: flops at peak, or bytes beyond the caches at HBM's rate.
double gemm_bound_us(const GpuRates&, double m, double n, double k);

// The figures that fit the points best, in logarithms of time. spread: 90th percentile of what they leave.
struct GemmFit {
  GemmFigures figures;
  double spread = 0;
};
GemmFit fit_gemm(std::span<const GemmPoint> points, const GpuRates&);

}  // namespace topomoe
