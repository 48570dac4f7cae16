// How long one compute operation takes on one GPU, how sure, and where that is from.
//
// In falling order of trust: a curve measured on this GPU for this n and k; figures fitted on this GPU; those of
// another, its compute part scaled by peak rates, its memory part by HBM, its caches and tiles by SMs; the datasheet
// times stated efficiencies. Expert rows decide the grouped FFN; where this very device was measured at its experts'
// steps ("expert_forward", ...), that is the model's time times what the curve of the nearest shape says beyond the
// model, at the rows an expert gets. Attention and elementwise are rooflines with stated efficiencies, attention's
// falling with short sequences as published. GEMMs in fp32 run at the datasheet's fp32 rate
// with BF16's efficiencies: give the TF32 rate there where TF32 is on. Ignored: clocks and power of the moment, kernels
// that run side by side (the timeline shares resources).
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "planner/curve.hpp"
#include "planner/rates/estimate.hpp"
#include "planner/rates/gemm.hpp"
#include "planner/rates/moe_ffn.hpp"
#include "topomoe/calibration.hpp"
#include "topomoe/device.hpp"

namespace topomoe {

// dgrad and wgrad: the GEMMs of backward with forward's efficiencies, not measured.
enum class FfnPass : std::uint8_t { forward, dgrad, wgrad };

// Training stacks run the experts as grouped GEMMs of the BLAS kind with an activation between them (Megatron-LM's
// --moe-grouped-gemm), serving stacks as one fused Triton kernel (vLLM, SGLang). On H100 the first reach what dense
// GEMMs do, 0.7 to 0.8 of peak, the second 0.4 to 0.65 where it was measured: Mixtral-8x22B's published 465 TFLOP/s a
// GPU of whole training steps cannot be had from experts at the fused kernel's rate.
enum class FfnKernel : std::uint8_t { grouped_gemm, fused };
std::string_view to_string(FfnKernel);

struct AttentionShape {
  double sequences = 1, queries = 0, keys = 0;  // tokens a sequence; in decoding queries are few, keys many
  double heads = 0, kv_heads = 0, head_dim = 0;
  bool causal = true, backward = false;
};

// Immutable; all estimates are const and thread-safe. Sizes <= 0 take no time. Costs: a few hundred ns, expert_ffn
// a pass over rows_per_expert.
class ComputeModel {
 public:
  // Throws InvalidInput where the GPU's rate for dtype, its HBM rate or SM count is unknown.
  ComputeModel(const GpuSpec& gpu, DType dtype, std::span<const Calibration> calibrations);

  // The same with weights (n x k of a GEMM) of so many bytes: quantised ones that kernels convert as they read them.
  // Products stay in dtype: rates of FP8 and FP4 tensor cores are not counted.
  ComputeModel with_weight_bytes(double bytes) const;

  Estimate gemm(double m, double n, double k) const;
  // rows_per_expert: of the experts on this GPU; means are fine. ffn: width of its shard. matrices: 3 gated, 2 not.
  // Without routing, sorting and summing of rows. What plans and `estimate moe_ffn` say of experts.
  Estimate expert_ffn(std::span<const double> rows_per_expert, double hidden, double ffn, int matrices, FfnKernel,
                      FfnPass pass = FfnPass::forward) const;
  // A whole kernel as the public tables time it: gating, sorting and summing of rows included.
  Estimate moe_kernel(const ExpertLoad&, const MoeFfnShape&) const;
  Estimate attention(const AttentionShape&) const;
  Estimate memory_bound(double bytes) const;  // one kernel that reads and writes bytes in all
  Estimate copy(double bytes) const { return memory_bound(2 * bytes); }  // inside the GPU: read once, written once

  const GpuRates& rates() const { return rates_; }
  bool experts_measured() const { return !expert_curves_.empty(); }

 private:
  struct Origin {
    std::string source;
    double error = 0;  // of a band, see Estimate
  };
  struct GemmCurve {  // of one n and k, by m
    double n = 0, k = 0;
    std::vector<CalibrationKnot> knots;  // m, us
    Origin origin;
  };
  struct ExpertCurve {  // of the runtime's own kernels
    struct Knot {
      double rows = 0, log_over_model = 0;  // rows of one expert
    };
    FfnPass pass = FfnPass::forward;
    double hidden = 0, ffn = 0;
    std::vector<Knot> knots;
    Origin origin;
  };
  double along(const GemmCurve&, double m) const;
  void add_expert_curve(const CalibrationCurve&, const Calibration&, DType);
  static double over_model(const ExpertCurve&, double rows);
  const ExpertCurve* nearest(FfnPass, double hidden, double ffn) const;
  Estimate grouped_gemms(std::span<const double> rows, double hidden, double ffn, int matrices, FfnPass) const;
  Origin origin_of(const GpuSpec&, DType, const Calibration*, double spread) const;

  GpuRates rates_;
  std::vector<GemmCurve> gemm_curves_;
  std::vector<ExpertCurve> expert_curves_;
  GemmFigures gemm_;
  MoeFfnFigures ffn_;
  Origin gemm_origin_, ffn_origin_, roofline_origin_;
};

}  // namespace topomoe
