#include "planner/rates/compute.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "planner/rates/compute_tables.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// FlashAttention-3's paper (arXiv 2407.08608, figures 5 and 6: H100, BF16, 16 heads of 128, 16,384 tokens), of peak:
//   sequence              512    1K    2K    4K    8K   16K
//   forward             0.472 0.571 0.632 0.645 0.653 0.655
//   forward, causal     0.295 0.428 0.527 0.585 0.609 0.623
//   backward            0.320 0.429 0.507 0.548 0.565 0.567
// A tile's start and end are paid once for all keys that a query sees (backward: queries that see a key), on average s,
// or s/2 where causal. What best / (1 + (half / seen)^steep) makes of it lies within 5% forward and 1% backward;
// backward where causal is not in the paper.
struct AttentionFigures {
  double best, half, steep;
};
constexpr AttentionFigures kAttentionForward{0.63, 280, 1.5}, kAttentionBackward{0.58, 430, 1.2};
constexpr double kAttentionTile = 128;  // queries that one block of threads works on; backward: keys

double attention_efficiency(const AttentionFigures& f, double seen) {
  return f.best / (1 + std::pow(f.half / seen, f.steep));
}
// Streaming kernels; STREAM-like copies reach 0.85 to 0.92 of HBM's datasheet rate. Assumed.
constexpr double kStreaming = 0.85;
// Runs of one GPU differ by that, and between two measured m the model's shape is taken. planner_accuracy prints what
// leaving out one m leaves.
constexpr double kMeasuredGemmError = 0.05;
// Grouped GEMMs over single ones: DeepGEMM's published pairs lie within 7%; balanced rows. Assumed.
constexpr double kGroupedError = 0.10;
// A curve of the same kernels for experts of another shape, or for more or fewer rows than it has. Assumed.
constexpr double kOtherShapeError = 0.25;
// Converting weights inside the kernel is taken as free. Assumed.
constexpr double kConvertedError = 0.20;
// Bands where no measurement of this GPU stands behind them. Assumed, wide: the only check of scaled figures so far
// is MoEShard's GEMM-bound layers on A100 from H100, 14 to 19% too long (planner_accuracy).
constexpr double kScaledError = 0.30, kDatasheetError = 0.60;

double need(const GpuSpec& gpu, double value, const char* name) {
  if (!(value > 0) || !std::isfinite(value))
    throw InvalidInput("gpu " + gpu.name + ": " + name, "unknown",
                       "give it in the cluster JSON (configs/clusters has usual GPUs)");
  return value;
}

GpuRates rates_of(const GpuSpec& gpu, DType dtype) {
  const bool bf16 = dtype == DType::bf16;
  return {(bf16 ? need(gpu, gpu.bf16_TFLOPps, "bf16_TFLOPps") : need(gpu, gpu.fp32_TFLOPps, "fp32_TFLOPps")) * 1e6,
          need(gpu, gpu.hbm_GBps, "hbm_GBps") * 1e3, need(gpu, gpu.sms, "sms"), bf16 ? 2.0 : 4.0};
}

bool same_gpu(const GpuSpec& a, const GpuSpec& b) {
  return a.bf16_TFLOPps == b.bf16_TFLOPps && a.hbm_GBps == b.hbm_GBps && a.sms == b.sms;
}

// Experts' steps are measured where the cluster is, by its own name for its device; SMs may be unknown there.
bool same_device(const GpuSpec& a, const GpuSpec& b) {
  return a.name == b.name && a.bf16_TFLOPps == b.bf16_TFLOPps && a.fp32_TFLOPps == b.fp32_TFLOPps &&
         a.hbm_GBps == b.hbm_GBps;
}

constexpr std::pair<std::string_view, FfnPass> kExpertSteps[] = {
    {"expert_forward", FfnPass::forward}, {"expert_dgrad", FfnPass::dgrad}, {"expert_wgrad", FfnPass::wgrad}};

// How far apart two GPUs are: what a scaled figure has to bridge.
double distance(const GpuSpec& a, const GpuSpec& b) {
  const auto apart = [](double x, double y) { return x > 0 && y > 0 ? std::abs(std::log(x / y)) : 10.0; };
  return apart(a.bf16_TFLOPps, b.bf16_TFLOPps) + apart(a.hbm_GBps, b.hbm_GBps) + apart(a.sms, b.sms);
}

template <class Has>
const Calibration* closest(const GpuSpec& gpu, std::span<const Calibration> all, Has has) {
  const Calibration* best = nullptr;
  for (const Calibration& c : all)
    if (has(c) && (!best || distance(gpu, c.machine.gpu) < distance(gpu, best->machine.gpu))) best = &c;
  return best;
}

std::string_view limit(double compute, double memory, double launch) {
  return launch > std::max(compute, memory) ? "launch" : compute > memory ? "tensor cores" : "HBM";
}

}  // namespace

ComputeModel::Origin ComputeModel::origin_of(const GpuSpec& gpu, DType dtype, const Calibration* c,
                                             double spread) const {
  const std::string fp32 = dtype == DType::f32 ? ", BF16's efficiencies at the fp32 rate" : "";
  if (!c) return {fmt::format("datasheet: {}, efficiencies assumed{}", gpu.name, fp32), kDatasheetError};
  const GpuSpec& from = c->machine.gpu;
  if (same_gpu(gpu, from))
    return {fmt::format("measured: {} ({}){}", c->name, c->source, fp32), dtype == DType::bf16 ? spread : kScaledError};
  return {fmt::format("scaled from {} (measured): BF16 x{:.2f}, HBM x{:.2f}, SMs x{:.2f}{}", from.name,
                      gpu.bf16_TFLOPps / from.bf16_TFLOPps, gpu.hbm_GBps / from.hbm_GBps,
                      static_cast<double>(gpu.sms) / from.sms, fp32),
          std::max(spread, kScaledError)};
}

ComputeModel::ComputeModel(const GpuSpec& gpu, DType dtype, std::span<const Calibration> calibrations)
    : rates_(rates_of(gpu, dtype)) {
  const Calibration* gemms = closest(gpu, calibrations, has_gemm);
  const Calibration* ffns = closest(gpu, calibrations, has_moe_ffn);
  double gemm_spread = 0, ffn_spread = 0;
  if (gemms) {
    const GemmFit fit = gemm_of(*gemms);
    gemm_ = fit.figures, gemm_spread = fit.spread;
  }
  if (ffns) {
    const MoeFfnFit fit = moe_ffn_of(*ffns);
    ffn_ = fit.figures, ffn_spread = fit.spread;
    // A cache has a slice a group of SMs.
    if (ffns->machine.gpu.sms > 0) ffn_.l2_GBps *= rates_.sms / ffns->machine.gpu.sms;
  }
  for (const Calibration& c : calibrations) {
    if (!same_gpu(gpu, c.machine.gpu)) continue;
    for (const CalibrationCurve& curve : c.curves) {
      const auto n = curve.parameters.find("n"), k = curve.parameters.find("k");
      if (curve.operation != "gemm" || curve.dtype != (dtype == DType::bf16 ? "bf16" : "fp32") ||
          n == curve.parameters.end() || k == curve.parameters.end())
        continue;
      const std::string from = fmt::format("measured: {}, gemm n {} k {} ({})", c.name, n->second, k->second,
                                           curve.source.empty() ? c.source : curve.source);
      gemm_curves_.push_back({n->second, k->second, curve.knots, {from, std::max(kMeasuredGemmError, curve.spread)}});
    }
  }
  for (const Calibration& c : calibrations)
    if (same_device(gpu, c.machine.gpu))
      for (const CalibrationCurve& curve : c.curves) add_expert_curve(curve, c, dtype);
  gemm_origin_ = origin_of(gpu, dtype, gemms, gemm_spread);
  ffn_origin_ = origin_of(gpu, dtype, ffns, ffn_spread);
  roofline_origin_ = {fmt::format("datasheet: {}, roofline with stated efficiency", gpu.name), kDatasheetError};
}

ComputeModel ComputeModel::with_weight_bytes(double bytes) const {
  ComputeModel m = *this;
  if (bytes == rates_.weight_bytes) return m;
  m.rates_.weight_bytes = bytes;
  m.gemm_curves_.clear(), m.expert_curves_.clear();
  for (Origin* origin : {&m.gemm_origin_, &m.ffn_origin_}) {
    origin->source += fmt::format("; weights of {} bytes converted as they are read, not measured", bytes);
    origin->error = std::hypot(origin->error, kConvertedError);
  }
  return m;
}

// The measured times at the knots, the model's shape between them: a straight line from one m to four times that misses
// the corner where memory gives way to compute.
double ComputeModel::along(const GemmCurve& c, double m) const {
  const auto above = std::lower_bound(c.knots.begin(), c.knots.end(), m,
                                      [](const CalibrationKnot& knot, double size) { return knot.size < size; });
  if (above->size == m) return above->time_us;
  const CalibrationKnot &a = *(above - 1), &b = *above;
  const auto over_model = [&](const CalibrationKnot& knot) {
    return std::log(knot.time_us / gemm_time(gemm_, rates_, knot.size, c.n, c.k).total_us);
  };
  const double f = std::log(m / a.size) / std::log(b.size / a.size);
  const double ratio = std::exp(over_model(a) * (1 - f) + over_model(b) * f);
  return std::clamp(gemm_time(gemm_, rates_, m, c.n, c.k).total_us * ratio, std::min(a.time_us, b.time_us),
                    std::max(a.time_us, b.time_us));
}

Estimate ComputeModel::gemm(double m, double n, double k) const {
  const GemmTime t = gemm_time(gemm_, rates_, m, n, k);
  if (t.total_us <= 0) return {};
  const double bound = gemm_bound_us(rates_, m, n, k);
  for (const GemmCurve& c : gemm_curves_) {
    if (c.n != n || c.k != k || m < c.knots.front().size || m > c.knots.back().size) continue;
    const bool at_knot = std::any_of(c.knots.begin(), c.knots.end(), [&](const auto& knot) { return knot.size == m; });
    return estimate_of(along(c, m), at_knot ? c.origin.error : std::max(c.origin.error, gemm_origin_.error), bound,
                       c.origin.source, std::string(limit(t.compute_us, t.memory_us, t.launch_us)));
  }
  return estimate_of(t.total_us, gemm_origin_.error, bound, gemm_origin_.source,
                     std::string(limit(t.compute_us, t.memory_us, t.launch_us)));
}

Estimate ComputeModel::moe_kernel(const ExpertLoad& load, const MoeFfnShape& shape) const {
  const MoeFfnTime t = moe_ffn_time(ffn_, rates_, load, shape);
  return estimate_of(t.total_us, ffn_origin_.error, moe_ffn_bound_us(rates_, load, shape), ffn_origin_.source,
                     std::string(limit(t.compute_us, t.weights_us + t.streams_us, t.launch_us)));
}

std::string_view to_string(FfnKernel kernel) {
  return kernel == FfnKernel::fused ? "one fused kernel" : "grouped GEMMs";
}

// Forward: two grouped GEMMs and the activation between them. dgrad: the same backwards. wgrad: two that add to fp32
// gradients.
Estimate ComputeModel::grouped_gemms(std::span<const double> rows, double hidden, double ffn, int matrices,
                                     FfnPass pass) const {
  const double wide = matrices - 1;
  std::vector<GroupedGemm> up, down;
  double all = 0, last = -1;
  for (const double r : rows) {
    if (!(r > 0)) continue;
    all += r;
    // A mean below one row: the weights are read that often.
    const double m = std::max(1.0, r), count = std::min(1.0, r);
    if (r == last) {
      up.back().count += count, down.back().count += count;
      continue;
    }
    last = r;
    if (pass == FfnPass::wgrad)
      up.push_back({hidden, wide * ffn, m, count, 8}), down.push_back({ffn, hidden, m, count, 8});
    else
      up.push_back({m, wide * ffn, hidden, count}), down.push_back({m, hidden, ffn, count});
  }
  const GemmTime a = grouped_gemm_time(gemm_, rates_, up), b = grouped_gemm_time(gemm_, rates_, down);
  // Forward reads one or two widths and writes one; backward reads those and a gradient, and writes as many as there
  // are.
  const double widths = pass == FfnPass::forward ? wide + 1 : pass == FfnPass::dgrad ? 2 * wide + 1 : 0;
  const double stream = all * widths * ffn * rates_.element_bytes / (rates_.hbm_bytes_per_us * kStreaming);
  const double launch = (pass == FfnPass::wgrad ? 2 : 3) * gemm_.launch_us;
  const double time = a.total_us + b.total_us + stream + launch - a.launch_us - b.launch_us;
  ExpertLoad load;
  load.rows = all;
  for (const GroupedGemm& g : up) load.active += g.count;
  return estimate_of(
      time, std::hypot(gemm_origin_.error, kGroupedError), moe_ffn_bound_us(rates_, load, {hidden, ffn, matrices}),
      gemm_origin_.source + "; experts as grouped GEMMs at the rate of single ones, as training stacks run them",
      std::string(limit(a.compute_us + b.compute_us, a.memory_us + b.memory_us + stream, launch)));
}

void ComputeModel::add_expert_curve(const CalibrationCurve& curve, const Calibration& from, DType dtype) {
  const auto step = std::find_if(std::begin(kExpertSteps), std::end(kExpertSteps),
                                 [&](const auto& s) { return s.first == curve.operation; });
  const auto figure = [&](const char* key) {
    const auto found = curve.parameters.find(key);
    return found == curve.parameters.end() ? 0 : found->second;
  };
  const double experts = figure("experts"), hidden = figure("hidden"), ffn = figure("ffn");
  if (step == std::end(kExpertSteps) || curve.size_unit != "rows" ||
      curve.dtype != (dtype == DType::bf16 ? "bf16" : "fp32") || !(experts >= 1) || !(hidden > 0) || !(ffn > 0))
    return;
  const std::string source = fmt::format("measured: {}, {} of hidden {} ffn {} ({})", from.name, curve.operation,
                                         hidden, ffn, curve.source.empty() ? from.source : curve.source);
  ExpertCurve e{step->second, hidden, ffn, {}, {source, std::max(kMeasuredGemmError, curve.spread)}};
  for (const CalibrationKnot& knot : curve.knots) {
    const std::vector<double> each(static_cast<std::size_t>(experts), knot.size / experts);
    e.knots.push_back(
        {knot.size / experts, std::log(knot.time_us / grouped_gemms(each, hidden, ffn, 3, e.pass).time_us)});
  }
  expert_curves_.push_back(std::move(e));
}

// The last given of equals.
const ComputeModel::ExpertCurve* ComputeModel::nearest(FfnPass pass, double hidden, double ffn) const {
  const ExpertCurve* best = nullptr;
  const auto apart = [&](const ExpertCurve& c) {
    return std::abs(std::log(c.hidden / hidden)) + std::abs(std::log(c.ffn / ffn));
  };
  for (const ExpertCurve& c : expert_curves_)
    if (c.pass == pass && (!best || apart(c) <= apart(*best))) best = &c;
  return best;
}

// Between knots in the logarithms of rows, beyond them as at the last.
double ComputeModel::over_model(const ExpertCurve& c, double rows) {
  const auto above = std::lower_bound(c.knots.begin(), c.knots.end(), rows,
                                      [](const ExpertCurve::Knot& knot, double r) { return knot.rows < r; });
  if (above == c.knots.begin() || above == c.knots.end())
    return std::exp(above == c.knots.end() ? c.knots.back().log_over_model : c.knots.front().log_over_model);
  const ExpertCurve::Knot &a = *(above - 1), &b = *above;
  const double f = std::log(rows / a.rows) / std::log(b.rows / a.rows);
  return std::exp(a.log_over_model * (1 - f) + b.log_over_model * f);
}

Estimate ComputeModel::expert_ffn(std::span<const double> rows_per_expert, double hidden, double ffn, int matrices,
                                  FfnKernel kernel, FfnPass pass) const {
  const ExpertLoad load = expert_load(rows_per_expert);
  if (!(load.rows > 0) || !(hidden > 0) || !(ffn > 0)) return {};
  if (const ExpertCurve* measured = nearest(pass, hidden, ffn); measured && matrices == 3) {
    const Estimate model = grouped_gemms(rows_per_expert, hidden, ffn, matrices, pass);
    const double rows = std::max(1.0, load.rows / load.active);
    const bool here = measured->hidden == hidden && measured->ffn == ffn && rows >= measured->knots.front().rows &&
                      rows <= measured->knots.back().rows;
    return estimate_of(model.time_us * over_model(*measured, rows),
                       here ? measured->origin.error : std::max(kOtherShapeError, measured->origin.error),
                       model.bound_us, (here ? "" : "scaled from ") + measured->origin.source, model.bottleneck);
  }
  Estimate e;
  if (kernel == FfnKernel::grouped_gemm) {
    e = grouped_gemms(rows_per_expert, hidden, ffn, matrices, pass);
  } else {
    MoeFfnShape shape;
    shape.hidden = hidden, shape.ffn = ffn, shape.matrices = matrices;
    // Two grouped GEMMs and the activation between them; wgrad has none. The measured constant holds gating and
    // sorting too, which are steps of their own in a schedule.
    shape.launches = pass == FfnPass::wgrad ? 2 : 3;
    shape.launch_each_us = gemm_.launch_us;
    e = moe_kernel(load, shape);
    e.source += "; experts as one fused Triton kernel, as serving stacks run them";
  }
  if (pass != FfnPass::forward) e.source += "; backward by forward's efficiencies, not measured";
  return e;
}

Estimate ComputeModel::attention(const AttentionShape& s) const {
  if (!(s.sequences > 0) || !(s.queries > 0) || !(s.keys > 0) || !(s.heads > 0) || !(s.head_dim > 0)) return {};
  // Scores and values: 2 flops each a query, key and dimension. Causal: the queries are the last of the keys.
  const double seen = s.causal ? std::max(s.keys - s.queries / 2, s.keys / 2) : s.keys;
  const double forward = 4 * s.sequences * s.queries * seen * s.heads * s.head_dim;
  const double flops = s.backward ? 2.5 * forward : forward;  // five products of that size instead of two
  const double elements = s.sequences * s.head_dim * (2 * s.queries * s.heads + 2 * s.keys * s.kv_heads);
  const double bytes = rates_.element_bytes * elements * (s.backward ? 2 : 1);
  // Queries that see a key are fewer than those there are by as much as keys that a query sees.
  const double efficiency = s.backward ? attention_efficiency(kAttentionBackward, s.queries * seen / s.keys)
                                       : attention_efficiency(kAttentionForward, seen);
  // Blocks that leave SMs without work. Few queries are decoding, where kernels split the keys as well.
  const double blocks = s.sequences * s.heads * std::ceil((s.backward ? s.keys : s.queries) / kAttentionTile);
  const double idle = s.queries < kAttentionTile ? 1 : std::max(1.0, rates_.sms / blocks);
  const double compute = flops / (rates_.flop_per_us * efficiency) * idle;
  const double memory = bytes / (rates_.hbm_bytes_per_us * kStreaming);
  const double bound = std::max(flops / rates_.flop_per_us, (bytes - kCacheBytes) / rates_.hbm_bytes_per_us);
  return estimate_of(
      gemm_.launch_us + std::max(compute, memory), roofline_origin_.error, bound,
      fmt::format("{} {:.2f}", roofline_origin_.source, compute > memory ? efficiency / idle : kStreaming),
      std::string(limit(compute, memory, gemm_.launch_us)));
}

Estimate ComputeModel::memory_bound(double bytes) const {
  if (!(bytes > 0)) return {};
  const double memory = bytes / (rates_.hbm_bytes_per_us * kStreaming);
  return estimate_of(
      gemm_.launch_us + memory, roofline_origin_.error, std::max(0.0, (bytes - kCacheBytes) / rates_.hbm_bytes_per_us),
      fmt::format("{} {:.2f}", roofline_origin_.source, kStreaming), std::string(limit(0, memory, gemm_.launch_us)));
}

}  // namespace topomoe
