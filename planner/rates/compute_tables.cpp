#include "planner/rates/compute_tables.hpp"

#include <charconv>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include "planner/rates/csv_table.hpp"
#include "planner/rates/expert_rows.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr int kDraws = 8;  // more change no median by 0.1 points

ExpertLoad mean_load(const SpreadRequest& spread, double alpha) {
  ExpertLoad mean;
  for (int draw = 0; draw < kDraws; ++draw) {
    const ExpertLoad one = expert_load(power_law_rows(spread, alpha, static_cast<std::uint64_t>(draw)));
    mean.rows += one.rows / kDraws;
    mean.active += one.active / kDraws;
    for (std::size_t t = 0; t < kTileRows.size(); ++t) mean.tiles[t] += one.tiles[t] / kDraws;
  }
  return mean;
}

double figure(const Calibration& c, const std::string& name) {
  const auto found = c.figures.find(name);
  if (found == c.figures.end())
    throw InvalidInput("calibration " + c.name + ": figures", "no " + name,
                       "it stands beside the other figures of its model");
  return found->second;
}

// One place for names and order of both directions.
auto names(GemmFigures& f) {
  return std::vector<std::pair<const char*, double*>>{{"gemm.launch_us", &f.launch_us},
                                                      {"gemm.hbm_fraction", &f.hbm_fraction},
                                                      {"gemm.peak_fraction", &f.peak_fraction},
                                                      {"gemm.ramp_k", &f.ramp_k},
                                                      {"gemm.droop", &f.droop}};
}
auto names(MoeFfnFigures& f) {
  return std::vector<std::pair<const char*, double*>>{{"moe_ffn.launch_us", &f.launch_us},
                                                      {"moe_ffn.foreign_us", &f.foreign_us},
                                                      {"moe_ffn.per_1024_k_us", &f.per_1024_k_us},
                                                      {"moe_ffn.weight_hbm_fraction", &f.weight_hbm_fraction},
                                                      {"moe_ffn.stream_hbm_fraction", &f.stream_hbm_fraction},
                                                      {"moe_ffn.peak_fraction", &f.peak_fraction},
                                                      {"moe_ffn.l2_GBps", &f.l2_GBps},
                                                      {"moe_ffn.ramp_k", &f.ramp_k}};
}
template <class Fit>
void put(Calibration& c, Fit fit, const std::string& spread) {
  for (const auto& [name, value] : names(fit.figures)) c.figures[name] = *value;
  c.figures[spread] = fit.spread;
}
template <class Fit>
Fit get(const Calibration& c, const std::string& spread) {
  Fit fit;
  for (const auto& [name, value] : names(fit.figures)) *value = figure(c, name);
  fit.spread = figure(c, spread);
  return fit;
}

}  // namespace

std::vector<GemmRow> read_gemm_table(std::string_view csv, const std::string& where) {
  CsvTable table(csv, where, {"system", "m", "n", "k", "latency_us"});
  std::vector<GemmRow> rows;
  table.each([&] {
    rows.push_back({table.text("system"),
                    {table.positive("m"), table.positive("n"), table.positive("k"), table.positive("latency_us")}});
  });
  return rows;
}

std::vector<MoeKernelRow> read_moe_kernel_table(std::string_view csv, const std::string& where) {
  CsvTable table(csv, where,
                 {"system", "num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size",
                  "moe_ep_size", "distribution", "latency_us"});
  std::map<std::tuple<int, int, int, int, double>, ExpertLoad> loads;  // many rows share one
  std::vector<MoeKernelRow> rows;
  table.each([&] {
    MoeKernelRow r{table.text("system"),       table.text("distribution"),
                   table.whole("num_tokens"),  table.whole("hidden_size"),
                   table.whole("inter_size"),  table.whole("topk"),
                   table.whole("num_experts"), table.whole("moe_tp_size"),
                   table.whole("moe_ep_size"), {}};
    double alpha = 0;
    if (r.distribution != "balanced") {
      constexpr std::string_view kPower = "power_law_";
      const char* end = r.distribution.data() + r.distribution.size();
      if (!r.distribution.starts_with(kPower) ||
          std::from_chars(r.distribution.data() + kPower.size(), end, alpha).ptr != end)
        throw InvalidInput(table.field("distribution"), r.distribution, "balanced, or power_law_ and the exponent");
    }
    const SpreadRequest spread{r.tokens, r.experts, r.top_k, r.ep};
    const auto [load, fresh] = loads.try_emplace({r.tokens, r.experts, r.top_k, r.ep, alpha});
    if (fresh) load->second = alpha == 0 ? expert_load(balanced_rows(spread)) : mean_load(spread, alpha);
    r.point.load = load->second;
    r.point.shape.hidden = r.hidden;
    r.point.shape.ffn = static_cast<double>(r.inter) / r.tp;
    // Where experts are all local, the same choices come out but for rounding of the draws.
    if (r.ep > 1) r.point.shape.foreign_rows = std::max(0.0, 1.0 * r.tokens * r.top_k - load->second.rows);
    r.point.shape.summed_tokens = r.tokens;
    r.point.time_us = table.positive("latency_us");
    rows.push_back(std::move(r));
  });
  return rows;
}

GpuRates bf16_rates(const GpuSpec& gpu) {
  const auto need = [&](double value, const char* name) {
    if (!(value > 0)) throw InvalidInput("gpu " + gpu.name + ": " + name, "unknown", "configs/clusters has usual GPUs");
    return value;
  };
  return {need(gpu.bf16_TFLOPps, "bf16_TFLOPps") * 1e6, need(gpu.hbm_GBps, "hbm_GBps") * 1e3,
          static_cast<double>(need(gpu.sms, "sms")), 2};
}

void put_figures(Calibration& c, const GemmFit& fit) { put(c, fit, "gemm.spread"); }
void put_figures(Calibration& c, const MoeFfnFit& fit) { put(c, fit, "moe_ffn.spread"); }
bool has_gemm(const Calibration& c) { return c.figures.contains("gemm.peak_fraction"); }
bool has_moe_ffn(const Calibration& c) { return c.figures.contains("moe_ffn.peak_fraction"); }
GemmFit gemm_of(const Calibration& c) { return get<GemmFit>(c, "gemm.spread"); }
MoeFfnFit moe_ffn_of(const Calibration& c) { return get<MoeFfnFit>(c, "moe_ffn.spread"); }

}  // namespace topomoe
