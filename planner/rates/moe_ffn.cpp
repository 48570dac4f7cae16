#include "planner/rates/moe_ffn.hpp"

#include <algorithm>
#include <vector>

#include "planner/rates/fit.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr double kBlock = 64;  // columns and k of a tile: narrower shards are padded to it

double padded(double width) { return std::ceil(width / kBlock) * kBlock; }

struct Gemm {
  double n, k;
};
std::array<Gemm, 2> gemms(const MoeFfnShape& s) {
  return {{{padded((s.matrices - 1) * s.ffn), s.hidden}, {s.hidden, padded(s.ffn)}}};
}

}  // namespace

ExpertLoad expert_load(std::span<const double> rows_per_expert) {
  ExpertLoad load;
  for (const double rows : rows_per_expert) {
    if (!(rows > 0)) continue;
    load.rows += rows;
    load.active += std::min(rows, 1.0);
    for (std::size_t t = 0; t < kTileRows.size(); ++t)
      load.tiles[t] += rows < 1 ? rows : std::ceil(rows / kTileRows[t]);
  }
  return load;
}

MoeFfnTime moe_ffn_time(const MoeFfnFigures& f, const GpuRates& gpu, const ExpertLoad& load, const MoeFfnShape& s) {
  const double b = gpu.element_bytes, w = gpu.weight_bytes, stream = gpu.hbm_bytes_per_us * f.stream_hbm_fraction;
  MoeFfnTime t;
  t.launch_us = s.launches > 0 ? s.launches * s.launch_each_us : f.launch_us;
  if (s.foreign_rows > 0) t.launch_us += f.foreign_us;
  if (load.rows > 0) t.launch_us += f.per_1024_k_us * (s.hidden + s.ffn) / 1024;
  t.total_us = t.launch_us;
  for (const auto& [n, k] : gemms(s)) {
    const double weights = load.active * n * k * w / (gpu.hbm_bytes_per_us * f.weight_hbm_fraction);
    const double rows = load.rows * (n + k) * b / stream;
    double best = 0;
    for (std::size_t i = 0; i < kTileRows.size(); ++i) {
      const double compute =
          2 * load.tiles[i] * kTileRows[i] * n * (k + f.ramp_k) / (gpu.flop_per_us * f.peak_fraction);
      const double l2 = load.tiles[i] * n * k * w / (f.l2_GBps * 1e3);
      const double time = smooth_max4(compute, l2);
      best = i == 0 ? time : std::min(best, time);
    }
    t.compute_us += best;
    t.weights_us += weights;
    t.streams_us += rows;
    t.total_us += smooth_max3(weights + rows, best);  // a free power fitted 2.8
  }
  // Activation: reads one or two widths of ffn, writes one. Zeroed rows are walked through both GEMMs and it.
  const double wide = s.matrices - 1, all = load.rows + s.foreign_rows;
  double elements = all * (wide + 1) * s.ffn + s.foreign_rows * (wide * s.ffn + s.hidden);
  if (s.summed_tokens > 0) elements += (all + s.summed_tokens) * s.hidden;
  t.streams_us += elements * b / stream;
  t.total_us += elements * b / stream;
  return t;
}

double moe_ffn_bound_us(const GpuRates& gpu, const ExpertLoad& load, const MoeFfnShape& s) {
  const double parameters = s.matrices * s.hidden * s.ffn;
  const double bytes = gpu.weight_bytes * load.active * parameters + gpu.element_bytes * 2 * load.rows * s.hidden;
  return std::max(2 * load.rows * parameters / gpu.flop_per_us, (bytes - kCacheBytes) / gpu.hbm_bytes_per_us);
}

MoeFfnFit fit_moe_ffn(std::span<const MoeFfnPoint> points, const GpuRates& gpu) {
  const MoeFfnFigures start;
  const std::array<FitFigure, 8> figures{{{start.launch_us, 0, 80},
                                          {start.foreign_us, 0, 20},
                                          {start.per_1024_k_us, 0, 15},
                                          {start.weight_hbm_fraction, 0.3, 1},
                                          {start.stream_hbm_fraction, 0.3, 1},
                                          {start.peak_fraction, 0.2, 1},
                                          {start.l2_GBps, 500, 30000},
                                          {start.ramp_k, 0, 2000}}};
  if (points.size() < figures.size())
    throw InvalidInput("MoE FFN measurements", std::to_string(points.size()), "at least one a figure: 8");
  const auto of = [](std::span<const double> p) {
    return MoeFfnFigures{p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]};
  };
  const auto residuals = [&](std::span<const double> p, std::span<double> out) {
    const MoeFfnFigures f = of(p);
    for (std::size_t i = 0; i < points.size(); ++i)
      out[i] = std::log(moe_ffn_time(f, gpu, points[i].load, points[i].shape).total_us / points[i].time_us);
  };
  const LogFit fit = fit_logs(figures, points.size(), 0.1, residuals);
  return {of(fit.figures), fit.spread};
}

}  // namespace topomoe
