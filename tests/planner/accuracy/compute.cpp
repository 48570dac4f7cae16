// GEMM and MoE kernel on one GPU: figures fitted on the rest, judged on the part that was left out.
#include "planner/rates/compute_tables.hpp"

#include <fmt/format.h>

#include <functional>
#include <set>

#include "planner/rates/compute.hpp"
#include "planner/rates/import.hpp"
#include "tests/planner/accuracy/machines.hpp"
#include "tests/planner/accuracy/measurements.hpp"
#include "tests/planner/accuracy/tables.hpp"

namespace topomoe::accuracy {
namespace {

Pair pair_of(const Estimate& e, double measured_us, std::string group, std::string what) {
  return {std::move(group), std::move(what), e.time_us, measured_us, e.low_us, e.high_us};
}

template <class Fit>
ComputeModel model_of(const Fit& fit) {
  Calibration c;
  c.name = "h100-sxm", c.machine.gpu = h100_sxm();
  put_figures(c, fit);
  return ComputeModel(h100_sxm(), DType::bf16, std::span(&c, 1));
}

// Predicts each part by a fit on all others.
template <class Row, class Part, class Fit, class Predict>
std::vector<Pair> leaving_out(const std::vector<Row>& rows, Part part, Fit fit, Predict predict) {
  std::set<std::string> parts;
  for (const Row& row : rows) parts.insert(part(row));
  std::vector<Pair> pairs;
  for (const std::string& out : parts) {
    std::vector<decltype(Row::point)> rest;
    for (const Row& row : rows)
      if (part(row) != out) rest.push_back(row.point);
    const ComputeModel model = model_of(fit(rest));
    for (const Row& row : rows)
      if (part(row) == out) pairs.push_back(predict(model, row, out));
  }
  return pairs;
}

// Each m but the outermost, from the curves of the others. The table's m are 4 to 16 times apart, so that what is left
// out stands 16 times and more from one side to the other: harder than any m between two that were measured.
std::vector<Pair> along_curves(const std::string& text, const std::vector<GemmRow>& rows) {
  const Calibration all = import_table(text, "gemm_h100_bf16.csv", {});
  std::vector<Pair> pairs;
  for (const double out : {16, 64, 256, 1024, 4096, 8192, 16384}) {
    Calibration rest = all;
    for (CalibrationCurve& c : rest.curves)
      std::erase_if(c.knots, [&](const CalibrationKnot& knot) { return knot.size == out; });
    const ComputeModel model(h100_sxm(), DType::bf16, std::span(&rest, 1));
    for (const GemmRow& row : rows) {
      const auto& [m, n, k, time_us] = row.point;
      if (m == out)
        pairs.push_back(
            pair_of(model.gemm(m, n, k), time_us, fmt::format("m {:5}", m), fmt::format("n {} k {}", n, k)));
    }
  }
  return pairs;
}

// A bound that a measurement beats is no bound.
void check_bounds(Report& report, const std::string& title, const std::vector<std::pair<double, double>>& bounds) {
  int beaten = 0;
  for (const auto& [bound, measured] : bounds) beaten += bound > measured;
  report.note(fmt::format("  {}: bound above the measured time in {} of {}", title, beaten, bounds.size()));
}

template <class Row>
std::vector<decltype(Row::point)> points_of(const std::vector<Row>& rows) {
  std::vector<decltype(Row::point)> points;
  for (const Row& row : rows) points.push_back(row.point);
  return points;
}

}  // namespace

Calibration h100_compute() {
  Calibration c;
  c.name = "h100-sxm", c.source = "aiconfigurator, Apache-2.0, commit 095f58a51", c.machine.gpu = h100_sxm();
  const GpuRates rates = bf16_rates(h100_sxm());
  const std::string gemms = text_of("gemm_h100_bf16.csv"), kernels = text_of("moe_kernel_h100_bf16.csv");
  if (!gemms.empty()) put_figures(c, fit_gemm(points_of(read_gemm_table(gemms, "gemm")), rates));
  if (!kernels.empty()) put_figures(c, fit_moe_ffn(points_of(read_moe_kernel_table(kernels, "moe")), rates));
  return c;
}

void gemm(Report& report) {
  const std::string text = text_of("gemm_h100_bf16.csv");
  if (text.empty()) return report.skipped("GEMM", "no gemm_h100_bf16.csv");
  const auto rows = read_gemm_table(text, "gemm_h100_bf16.csv");
  const GpuRates rates = bf16_rates(h100_sxm());
  const auto fit = [&](const std::vector<GemmPoint>& points) { return fit_gemm(points, rates); };
  const auto predict = [](const ComputeModel& model, const GemmRow& row, const std::string& part) {
    const auto& [m, n, k, time_us] = row.point;
    return pair_of(model.gemm(m, n, k), time_us, part, fmt::format("m {} n {} k {}", m, n, k));
  };
  const auto shape = [](const GemmRow& r) { return fmt::format("n {:5} k {:5}", r.point.n, r.point.k); };
  const auto range = [](const GemmRow& r) { return fmt::format("m {:5}", r.point.m); };
  report.table("GEMM, H100 BF16, leaving out one (n, k)", 0.10, leaving_out(rows, shape, fit, predict));
  report.table("GEMM, H100 BF16, leaving out one m", 0.10, leaving_out(rows, range, fit, predict));
  report.table("GEMM, H100 BF16, leaving out one m of a measured curve (figures of all m)", 0.10,
               along_curves(text, rows));

  std::vector<std::pair<double, double>> bounds;
  for (const GemmRow& r : rows)
    bounds.emplace_back(gemm_bound_us(rates, r.point.m, r.point.n, r.point.k), r.point.time_us);
  const GemmFit all = fit(points_of(rows));
  report.note(fmt::format(
      "  fitted on all: launch {:.2f} us, HBM {:.3f}, peak {:.3f}, ramp k {:.0f}, droop {:.3f}; p90 {:.1f}%",
      all.figures.launch_us, all.figures.hbm_fraction, all.figures.peak_fraction, all.figures.ramp_k, all.figures.droop,
      100 * all.spread));
  check_bounds(report, "GEMM", bounds);
  // What the datasheet alone is given: nothing fitted but the defaults.
  const ComputeModel bare(h100_sxm(), DType::bf16, {});
  std::vector<Pair> pairs;
  for (const GemmRow& r : rows) pairs.push_back(predict(bare, r, "defaults"));
  report.table("GEMM, H100 BF16, datasheet times default efficiencies (a round-off of this fit)", 0, pairs);
}

void moe_kernel(Report& report) {
  const std::string text = text_of("moe_kernel_h100_bf16.csv");
  if (text.empty()) return report.skipped("MoE kernel", "no moe_kernel_h100_bf16.csv");
  const auto rows = read_moe_kernel_table(text, "moe_kernel_h100_bf16.csv");
  const GpuRates rates = bf16_rates(h100_sxm());
  const auto fit = [&](const std::vector<MoeFfnPoint>& points) { return fit_moe_ffn(points, rates); };
  const auto predict = [](const ComputeModel& model, const MoeKernelRow& r, const std::string& group) {
    return pair_of(model.moe_kernel(r.point.load, r.point.shape), r.point.time_us, group,
                   fmt::format("T {} tp {} ep {} {}", r.tokens, r.tp, r.ep, r.distribution));
  };
  const auto shape = [](const MoeKernelRow& r) {
    return fmt::format("hidden {} inter {} top-{} of {}", r.hidden, r.inter, r.top_k, r.experts);
  };
  auto pairs = leaving_out(rows, shape, fit, predict);
  report.table("MoE kernel, H100 BF16 Triton, leaving out one model shape", 0.15, pairs);
  const auto regroup = [&](const std::string& title, auto key) {
    for (Pair& p : pairs) p.group = key(p);
    report.table(title, 0, pairs);
  };
  const auto word = [](const std::string& what, const std::string& name) {
    const auto at = what.find(name);
    return what.substr(at, what.find(' ', at + name.size() + 1) - at);
  };
  regroup("  the same by distribution", [&](const Pair& p) { return p.what.substr(p.what.rfind(' ') + 1); });
  regroup("  the same by expert parallelism", [&](const Pair& p) { return word(p.what, "ep"); });
  regroup("  the same by tensor parallelism", [&](const Pair& p) { return word(p.what, "tp"); });

  std::vector<std::pair<double, double>> bounds;
  for (const MoeKernelRow& r : rows)
    bounds.emplace_back(moe_ffn_bound_us(rates, r.point.load, r.point.shape), r.point.time_us);
  const auto [f, spread] = fit(points_of(rows));
  report.note(
      fmt::format("  fitted on all: launch {:.1f} us, foreign rows {:.1f} us, per 1024 k {:.2f} us, weights {:.3f} "
                  "and streams {:.3f} of HBM, peak {:.3f}, L2 {:.0f} GB/s, ramp k {:.0f}; p90 {:.1f}%",
                  f.launch_us, f.foreign_us, f.per_1024_k_us, f.weight_hbm_fraction, f.stream_hbm_fraction,
                  f.peak_fraction, f.l2_GBps, f.ramp_k, 100 * spread));
  check_bounds(report, "MoE kernel", bounds);
  // What training is priced at, another kernel than this table's: how far the two lie apart.
  const ComputeModel model(h100_sxm(), DType::bf16, std::vector<Calibration>{h100_compute()});
  std::vector<Pair> apart;
  for (const MoeKernelRow& r : rows)
    if (r.distribution == "balanced" && r.ep == 1 && r.tokens >= 4096) {
      const std::vector<double> even(static_cast<std::size_t>(r.experts), 1.0 * r.tokens * r.top_k / r.experts);
      apart.push_back(pair_of(model.expert_ffn(even, r.hidden, 1.0 * r.inter / r.tp, 3, FfnKernel::grouped_gemm),
                              r.point.time_us, shape(r), fmt::format("T {} tp {}", r.tokens, r.tp)));
    }
  report.table("Grouped GEMMs, as training is priced, beside the fused kernel's times (EP 1, even, >= 4,096 tokens)", 0,
               apart);
}

}  // namespace topomoe::accuracy
