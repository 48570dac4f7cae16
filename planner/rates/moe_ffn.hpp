// Time of the experts' feed-forward on one GPU by the rows that each of its experts is given.
//
//   launches + per k + two grouped GEMMs + streams
//   a GEMM   smooth max(weights of the active experts + rows in and out / HBM,
//                       rows padded to a tile a expert: flops / peak, and weights once a tile / L2)
//            for the tile height (16 to 128 rows) that is fastest
//   per k    the k loop of a tile, as long as k, not hidden when tiles are few
//   streams  activation, and where the kernel does it rows zeroed for other ranks and the weighted sum / HBM
// Fitted on Triton's fused MoE kernel, forward. Backward is priced by the same figures from its own GEMMs
// (dgrad: two with the weights transposed; wgrad: two that write weight gradients): not measured.
// Ignored: order of experts, tiles that share weights in L2 across experts, routing and alignment of rows
// beyond a constant.
#pragma once

#include <array>
#include <span>

#include "planner/rates/gpu_rates.hpp"

namespace topomoe {

// Defaults: a round-off of Triton's fused kernel, BF16 on H100 SXM (2,619 layers, aiconfigurator).
struct MoeFfnFigures {
  double launch_us = 24;       // gating, sorting of rows, two GEMMs, activation, sum: as the table times them
  double foreign_us = 5.4;     // more, when rows of other ranks must be told apart
  double per_1024_k_us = 1.9;  // of both GEMMs' k together
  double weight_hbm_fraction = 0.89;
  double stream_hbm_fraction = 0.69;
  double peak_fraction = 0.69;
  double l2_GBps = 7300;
  double ramp_k = 236;
};

// What the time depends on, of the rows of each expert: sums over experts.
constexpr std::array<double, 4> kTileRows{16, 32, 64, 128};
struct ExpertLoad {
  double rows = 0;
  double active = 0;                             // experts with rows; a mean below one row counts as that part of one
  std::array<double, kTileRows.size()> tiles{};  // by tile height
};
ExpertLoad expert_load(std::span<const double> rows_per_expert);

struct MoeFfnShape {
  double hidden = 0, ffn = 0;  // ffn: width of the shard on this GPU
  int matrices = 3;            // 3: gated, 2: not
  double foreign_rows = 0;     // rows that the kernel walks and zeroes because their expert is elsewhere
  double summed_tokens = 0;    // tokens whose rows it sums at the end; 0: it does not
  int launches = 0;            // > 0: so many bare kernels at launch_each_us instead of the measured constant
  double launch_each_us = 0;
};

struct MoeFfnTime {
  double total_us = 0, launch_us = 0, compute_us = 0, weights_us = 0, streams_us = 0;
};

MoeFfnTime moe_ffn_time(const MoeFfnFigures&, const GpuRates&, const ExpertLoad&, const MoeFfnShape&);
double moe_ffn_bound_us(const GpuRates&, const ExpertLoad&, const MoeFfnShape&);

struct MoeFfnPoint {
  ExpertLoad load;
  MoeFfnShape shape;
  double time_us = 0;
};
struct MoeFfnFit {
  MoeFfnFigures figures;
  double spread = 0;
};
MoeFfnFit fit_moe_ffn(std::span<const MoeFfnPoint> points, const GpuRates&);

}  // namespace topomoe
