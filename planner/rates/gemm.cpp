#include "planner/rates/gemm.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "planner/rates/fit.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// Output tiles that dense GEMM libraries use on Ampere and Hopper.
constexpr std::array<std::array<double, 2>, 4> kTiles{{{256, 128}, {128, 256}, {128, 128}, {64, 64}}};
constexpr double kDroopFrom_us = 100;

}  // namespace

GemmTime gemm_time(const GemmFigures& f, const GpuRates& gpu, double m, double n, double k) {
  const GroupedGemm one{m, n, k};
  return grouped_gemm_time(f, gpu, {&one, 1});
}

GemmTime grouped_gemm_time(const GemmFigures& f, const GpuRates& gpu, std::span<const GroupedGemm> all) {
  double flops = 0, bytes = 0;
  std::array<double, kTiles.size()> tiles{}, work{};  // by tile
  for (const auto& [m, n, k, count, result_bytes] : all) {
    if (!(m > 0) || !(n > 0) || !(k > 0) || !(count > 0)) continue;
    flops += 2 * count * m * n * k;
    bytes += count * (gpu.element_bytes * m * k + gpu.weight_bytes * n * k +
                      (result_bytes > 0 ? result_bytes : gpu.element_bytes) * m * n);
    for (std::size_t i = 0; i < kTiles.size(); ++i) {
      const double here = count * std::ceil(m / kTiles[i][0]) * std::ceil(n / kTiles[i][1]);
      tiles[i] += here, work[i] += here * kTiles[i][0] * kTiles[i][1] * (k + f.ramp_k);
    }
  }
  if (flops <= 0) return {};
  double least = 0;
  for (std::size_t i = 0; i < kTiles.size(); ++i) {
    const double filled = work[i] * std::max(1.0, gpu.sms / tiles[i]);
    least = i == 0 ? filled : std::min(least, filled);
  }
  const double decades = std::max(0.0, std::log10(flops / gpu.flop_per_us / kDroopFrom_us));
  GemmTime t;
  t.launch_us = f.launch_us;
  t.compute_us = 2 * least / (gpu.flop_per_us * f.peak_fraction) * (1 + f.droop * decades);
  t.memory_us = bytes / (gpu.hbm_bytes_per_us * f.hbm_fraction);
  // Power 4 fits H100 as well as a free one does (4.7).
  t.total_us = t.launch_us + smooth_max4(t.compute_us, t.memory_us);
  return t;
}

double gemm_bound_us(const GpuRates& gpu, double m, double n, double k) {
  const double bytes = gpu.element_bytes * (m * n + m * k) + gpu.weight_bytes * n * k;
  return std::max(2 * m * n * k / gpu.flop_per_us, (bytes - kCacheBytes) / gpu.hbm_bytes_per_us);
}

GemmFit fit_gemm(std::span<const GemmPoint> points, const GpuRates& gpu) {
  const GemmFigures start;
  const std::array<FitFigure, 5> figures{{{start.launch_us, 0, 20},
                                          {start.hbm_fraction, 0.3, 1},
                                          {start.peak_fraction, 0.3, 1},
                                          {start.ramp_k, 0, 2000},
                                          {start.droop, 0, 0.4}}};
  if (points.size() < figures.size())
    throw InvalidInput("GEMM measurements", std::to_string(points.size()), "at least one a figure: 5");
  const auto of = [](std::span<const double> p) { return GemmFigures{p[0], p[1], p[2], p[3], p[4]}; };
  const auto residuals = [&](std::span<const double> p, std::span<double> out) {
    const GemmFigures f = of(p);
    for (std::size_t i = 0; i < points.size(); ++i)
      out[i] = std::log(gemm_time(f, gpu, points[i].m, points[i].n, points[i].k).total_us / points[i].time_us);
  };
  const LogFit fit = fit_logs(figures, points.size(), 0.05, residuals);
  return {of(fit.figures), fit.spread};
}

}  // namespace topomoe
