// MoEShard's encoder layer: experts in parallel with padded buffers (DeepSpeed) against experts sharded over all
// GPUs. Layer times from the compute model of A100, scaled from H100, and NCCL's curves of 4 A100; one overhead
// for each expert that a GPU holds, fitted on 8 and 16 experts.
//
// DeepSpeed: two exchanges of E x capacity rows, GEMM pairs of the local experts over all padded rows.
// Sharded: all-gather and reduce-scatter of all tokens, every expert's rows on a slice of the FFN.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "planner/curve.hpp"
#include "planner/rates/compute.hpp"
#include "planner/rates/fit.hpp"
#include "tests/planner/accuracy/machines.hpp"
#include "tests/planner/accuracy/measurements.hpp"
#include "tests/planner/accuracy/tables.hpp"

namespace topomoe::accuracy {
namespace {

// measurements/README.md and DATASHEETS.md.
constexpr double kGpus = 4, kHidden = 768, kFfn = 3072, kSequence = 120, kElement = 4;
constexpr double kTf32_TFLOPps = 156;  // NVIDIA's A100 datasheet, dense

struct Cell {
  std::string system;
  int experts = 0;
  double batch = 0, skew = 0, capacity_factor = 0, measured_ms = 0;
  bool sharded() const { return system != "deepspeed"; }
  double tokens() const { return batch * kSequence; }  // of a GPU
  std::string name() const { return fmt::format("{:3} experts, batch {:3.0f}", experts, batch); }
};

struct Model {
  ComputeModel compute;
  std::map<std::string, SizeCurve> collectives;  // seconds by the whole buffer of a rank

  double collective_us(const std::string& name, double bytes) const { return collectives.at(name)(bytes).value * 1e6; }
  double gemm_pair_us(double rows, double ffn) const {
    return compute.gemm(rows, ffn, kHidden).time_us + compute.memory_bound(2 * rows * ffn * kElement).time_us +
           compute.gemm(rows, kHidden, ffn).time_us;
  }
  // Without the overhead by expert.
  double layer_us(const Cell& c) const {
    const double row = kHidden * kElement, tokens = c.tokens();
    if (!c.sharded()) {
      const double local = c.experts / kGpus, capacity = std::ceil(tokens / c.experts * c.capacity_factor);
      const double buffer = c.experts * capacity * row;
      return 2 * (collective_us("alltoall", buffer) + compute.memory_bound(tokens * row + buffer).time_us) +
             local * gemm_pair_us(kGpus * capacity, kFfn);
    }
    // A tenth of the experts is hot: their weight is raised by the skew, then all are normalised.
    const double hot = std::max(1.0, std::round(c.experts / 10.0)), all = kGpus * tokens;
    std::vector<double> rows;
    for (int e = 0; e < c.experts; ++e)
      rows.push_back(all * (1.0 / c.experts + (e < hot ? c.skew : 0)) / (1 + hot * c.skew));
    // Rows are put in order of experts before they are sent, after they have come, and both on the way back.
    double us = collective_us("all_gather", all * row) + collective_us("reduce_scatter", all * row) +
                2 * (compute.copy(2 * tokens * row).time_us + compute.copy(all * row).time_us);
    if (c.system == "sharded_fused") {
      us += 2 * compute.copy(all * row).time_us +
            compute.expert_ffn(rows, kHidden, kFfn / kGpus, 2, FfnKernel::fused).time_us;
    } else {
      for (const double r : rows) us += gemm_pair_us(r, kFfn / kGpus);
    }
    return us;
  }
};

double held(const Cell& c) { return c.sharded() ? c.experts : c.experts / kGpus; }

}  // namespace

void moeshard(Report& report) {
  const std::array<Calibration, 1> h100{h100_compute()};
  std::vector<Cell> cells;
  for (const Row& r : read_table("moeshard_encoder.csv"))
    cells.push_back({r.at("system"), whole(r, "experts"), number(r, "batch_per_gpu"), number(r, "skew"),
                     r.at("capacity_factor").empty() ? 0 : number(r, "capacity_factor"), number(r, "moe_layer_ms")});
  std::map<std::string, std::vector<SizeCurve::Knot>> knots;
  for (const Row& r : read_table("nccl_single_node.csv"))
    if (r.at("system") == "a100_sxm" && whole(r, "num_gpus") == kGpus)
      knots[r.at("op")].push_back({number(r, "bytes_per_rank"), 1e-6 * number(r, "latency_us")});
  if (cells.empty() || knots.empty())
    return report.skipped("MoEShard", "no moeshard_encoder.csv or nccl_single_node.csv");

  GpuSpec gpu = a100_sxm();
  const ComputeModel plain(gpu, DType::f32, h100);
  gpu.fp32_TFLOPps = kTf32_TFLOPps;
  Model model{ComputeModel(gpu, DType::f32, h100), {}};
  for (auto& [op, k] : knots) {
    std::sort(k.begin(), k.end(), [](const auto& a, const auto& b) { return a.size < b.size; });
    model.collectives.emplace(op, SizeCurve(std::move(k), "NCCL on 4 A100"));
  }
  report.note(fmt::format("\nMoEShard's layer, 4 A100, fp32\n  compute: {}", model.compute.gemm(1, 1, 1).source));
  const double rows = kGpus * 30000, by_tf32 = 2e-3 * model.gemm_pair_us(rows, kFfn);
  const double by_fp32 = 2e-3 * (plain.gemm(rows, kFfn, kHidden).time_us + plain.gemm(rows, kHidden, kFfn).time_us);
  report.note(fmt::format(
      "  TF32 is on: DeepSpeed's GEMMs with 8 experts, batch 250, would take {:.0f} ms at the fp32 rate, {:.0f} "
      "at TF32's; the whole layer was measured at 28.95 ms",
      by_fp32, by_tf32));

  std::vector<const Cell*> small;
  for (const Cell& c : cells)
    if (c.experts <= 16) small.push_back(&c);
  const std::array<FitFigure, 1> start{{{100, 0, 5000}}};
  const double overhead_us =
      fit_figures(start, small.size(), 0.1, [&](std::span<const double> p, std::span<double> out) {
        for (std::size_t i = 0; i < small.size(); ++i)
          out[i] = std::log((model.layer_us(*small[i]) + held(*small[i]) * p[0]) / (small[i]->measured_ms * 1e3));
      })[0];
  report.note(
      fmt::format("  overhead for each expert that a GPU holds, fitted on the {} cells of 8 and 16 experts: {:.0f} us",
                  small.size(), overhead_us));
  const auto predicted_ms = [&](const Cell& c) { return 1e-3 * (model.layer_us(c) + held(c) * overhead_us); };

  std::vector<Pair> pairs;
  for (const Cell& c : cells) {
    const std::string what =
        c.capacity_factor > 0 ? fmt::format("{}, capacity {:.0f}", c.name(), c.capacity_factor) : c.name();
    pairs.push_back({c.system + (c.experts <= 16 ? ", fitted" : ", not fitted"), what, predicted_ms(c) * 1e3,
                     c.measured_ms * 1e3, 0, 0});
  }
  report.table("MoEShard's layer, predicted against measured", 0, pairs);

  int right = 0, compared = 0;
  for (const Cell& ds : cells)
    for (const Cell& c : cells) {
      if (ds.sharded() || !c.sharded() || c.experts != ds.experts || c.batch != ds.batch) continue;
      const bool as_measured = (predicted_ms(c) < predicted_ms(ds)) == (c.measured_ms < ds.measured_ms);
      const bool counts = c.batch >= 100;
      compared += counts, right += counts && as_measured;
      report.note(fmt::format(
          "  {}  deepspeed (capacity {:2.0f}) {:6.1f} ms ({:6.1f} measured)   {:18} {:6.1f} ms ({:6.1f})   {}{}",
          ds.name(), ds.capacity_factor, predicted_ms(ds), ds.measured_ms, c.system, predicted_ms(c), c.measured_ms,
          as_measured ? "right" : "WRONG", counts ? "" : ", batch below 100: not promised"));
    }
  report.require(right == compared, fmt::format("batch >= 100: ranked right in {} of {}", right, compared));
}

}  // namespace topomoe::accuracy
