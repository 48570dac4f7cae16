// Measured compute tables of others (the columns of ../shared/measurements), and the calibration they lead to.
//
//   GEMM        system, m, n, k, latency_us
//   MoE kernel  system, num_tokens, hidden_size, inter_size, topk, num_experts, moe_tp_size, moe_ep_size,
//               distribution ("balanced", "power_law_<alpha>"), latency_us
// Columns are found by name; others are ignored. In the MoE table every token enters on each rank, and rows of
// other ranks' experts are walked and zeroed: that is how the figures come out, not what the runtime does.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "planner/rates/gemm.hpp"
#include "planner/rates/moe_ffn.hpp"
#include "topomoe/calibration.hpp"

namespace topomoe {

struct GemmRow {
  std::string system;
  GemmPoint point;
};
struct MoeKernelRow {
  std::string system, distribution;
  int tokens = 0, hidden = 0, inter = 0, top_k = 0, experts = 0, tp = 0, ep = 0;
  MoeFfnPoint point;  // load: mean over draws of the distribution
};

// Throw InvalidInput "<where>: line 7: m". where: the file's name.
std::vector<GemmRow> read_gemm_table(std::string_view csv, const std::string& where);
std::vector<MoeKernelRow> read_moe_kernel_table(std::string_view csv, const std::string& where);

// Figures in a calibration: "gemm.<figure>", "moe_ffn.<figure>", and each model's "spread".
GpuRates bf16_rates(const GpuSpec&);
void put_figures(Calibration&, const GemmFit&);
void put_figures(Calibration&, const MoeFfnFit&);
bool has_gemm(const Calibration&);
bool has_moe_ffn(const Calibration&);
GemmFit gemm_of(const Calibration&);  // throw InvalidInput where a figure is missing
MoeFfnFit moe_ffn_of(const Calibration&);

}  // namespace topomoe
