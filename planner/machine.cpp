#include "planner/machine.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "fmt/format.h"
#include "planner/rates/machine_figures.hpp"
#include "planner/rates/node_collective.hpp"
#include "planner/rates/same_machine.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr double kLarge = 268435456;  // bytes: every curve is bandwidth there

double error_of(const Estimate& e) { return e.time_us > 0 ? e.high_us / e.time_us - 1 : 0; }

// What the collective model says of links inside nodes and between them.
void add_collectives(Machine& m, const Topology& t) {
  const int g = t.gpus_per_node();
  if (g > 1) {
    const auto e = m.collectives->estimate(Collective::alltoall, kLarge, regular_group(g, 1));
    m.efficiency.node_error = error_of(e);
    m.efficiency.nvlink = std::clamp(e.bound_us / e.time_us, 0.05, 0.98);
    m.sources.push_back({"links inside nodes", e.source, m.efficiency.node_error});
  }
  if (t.node_count() > 1) {
    const auto e = m.collectives->estimate(Collective::send_recv, kLarge, regular_group(1, 2));
    m.efficiency.between_error = error_of(e);
    m.efficiency.network = std::clamp(e.bound_us / e.time_us, 0.05, 0.98);
    m.sources.push_back({"links between nodes", e.source, m.efficiency.between_error});
  }
}

}  // namespace

Machine machine_of(const Topology& topology, DType dtype, std::span<const Calibration> calibrations) {
  const GpuSpec& gpu = topology.gpu_spec(0);
  const auto need = [&](double figure, const char* field) {
    if (!(figure > 1e-6))
      throw InvalidInput(topology.name + ": gpu." + field, figure > 0 ? fmt::format("{}", figure) : "unknown",
                         "give it in the cluster JSON (configs/clusters has the figures of usual GPUs)");
    return figure;
  };
  Machine m;
  m.gpu = gpu.name;
  m.flops =
      TFLOPps(dtype == DType::bf16 ? need(gpu.bf16_TFLOPps, "bf16_TFLOPps") : need(gpu.fp32_TFLOPps, "fp32_TFLOPps"));
  m.hbm = GBps(need(gpu.hbm_GBps, "hbm_GBps"));
  m.memory_GiB = gpu.memory_GiB;
  m.sms = gpu.sms > 0 ? gpu.sms : 100;
  GpuSpec known = gpu;
  known.sms = m.sms;
  m.compute = std::make_shared<const ComputeModel>(known, dtype, calibrations);
  m.collectives = std::make_shared<const CollectiveModel>(topology, calibrations);
  std::optional<RateSource> copies;
  for (const Calibration& c : calibrations)  // the last given wins
    for (const CalibrationCurve& curve : c.curves) {
      if (curve.operation != "copy" || curve.size_unit != "bytes" || c.machine.gpu.name != gpu.name) continue;
      std::vector<SizeCurve::Knot> knots;
      for (const CalibrationKnot& k : curve.knots) knots.push_back({k.size, k.time_us * 1e-6});
      m.copies = std::make_shared<const SizeCurve>(std::move(knots), c.name);
      copies = {"copies", "measured: " + source_name(c), std::max(kMeasuredError, curve.spread)};
    }
  m.plane = machine_figures(topology).interconnect == "nvswitch";
  const Estimate gemm = m.compute->gemm(4096, 4096, 4096);
  m.efficiency.compute_error = error_of(gemm);
  m.sources.push_back({Machine::kCompute, gemm.source, m.efficiency.compute_error});
  if (m.compute->experts_measured()) {
    const double rows = 1024;
    const Estimate experts = m.compute->expert_ffn({&rows, 1}, 1024, 1024, 3, m.expert_kernel);
    m.sources.push_back({"experts' products", experts.source, error_of(experts)});
  }
  if (copies) m.sources.push_back(*copies);
  add_collectives(m, topology);
  return m;
}

FfnKernel expert_kernel_of(Phase phase) { return phase == Phase::train ? FfnKernel::grouped_gemm : FfnKernel::fused; }

double in_step_of(Phase phase) {
  return phase == Phase::train ? Efficiency::kTrainingStep : Efficiency::kInferenceStep;
}

void set_phase(Machine& m, Phase phase, double quantized_weight_bytes) {
  const bool train = phase == Phase::train;
  Efficiency& e = m.efficiency;
  e.in_step = in_step_of(phase);
  m.expert_kernel = expert_kernel_of(phase);
  // Whole training steps were checked; what serving makes of the experts' kernel was not.
  if (!train) {
    const double rows = 4096;
    e.compute_error =
        std::max(e.compute_error, error_of(m.compute->expert_ffn({&rows, 1}, 4096, 4096, 3, m.expert_kernel)));
  }
  e.compute_error =
      std::hypot(e.compute_error, train ? Efficiency::kTrainingStepError : Efficiency::kInferenceStepError);
  std::string weights;
  if (!train && quantized_weight_bytes > 0) {
    m.weight_bytes = quantized_weight_bytes;
    m.compute = std::make_shared<const ComputeModel>(m.compute->with_weight_bytes(quantized_weight_bytes));
    weights =
        fmt::format("; weights of {} bytes as in the checkpoint, computed in the job's dtype", quantized_weight_bytes);
  }
  for (RateSource& source : m.sources) {
    if (source.what != Machine::kCompute) continue;
    source.error = e.compute_error;
    source.source += fmt::format("; {} of that rate in a step{}; experts as {}{}", e.in_step,
                                 train ? "" : " (training's figure, assumed)", to_string(m.expert_kernel), weights);
  }
}

CollectiveGroup group_on_nodes(std::span<const int> ranks, int gpus_per_node) {
  CollectiveGroup group{.ranks = static_cast<int>(ranks.size()), .nodes = 0, .most = 0, .fewest = 0};
  for (std::size_t begin = 0; begin < ranks.size();) {
    std::size_t end = begin;
    while (end < ranks.size() && ranks[end] / gpus_per_node == ranks[begin] / gpus_per_node) ++end;
    const int here = static_cast<int>(end - begin);
    if (here > group.most)
      group.most = here,
      group.gpus.assign(ranks.begin() + static_cast<long>(begin), ranks.begin() + static_cast<long>(end));
    group.fewest = group.nodes == 0 ? here : std::min(group.fewest, here);
    ++group.nodes;
    begin = end;
  }
  return group;
}

const CollectiveCurve& Machine::curve(Collective op, const CollectiveGroup& of) const {
  CollectiveGroup group = of;
  int first = 0;
  const bool first_ones = std::all_of(group.gpus.begin(), group.gpus.end(), [&](int rank) { return rank == first++; });
  if (plane || first_ones) group.gpus.clear();
  auto at = curves_.find({op, group});
  if (at == curves_.end()) at = curves_.emplace(std::pair{op, group}, collectives->curve(op, group)).first;
  return at->second;
}

double Machine::collective_s(Collective op, double send_bytes, const CollectiveGroup& group) const {
  return group.ranks < 2 || send_bytes <= 0 ? 0 : curve(op, group).time_us(send_bytes) * 1e-6;
}

double efficiency_of(const Efficiency& e, const std::string& link_class) {
  if (link_class == "nvlink" || link_class == "xgmi" || link_class == "c2c") return e.nvlink;
  if (link_class == "cpu_root") return e.cpu_root;
  if (link_class == "pcie" || link_class == "cpu_interconnect") return e.pcie;
  return e.network;
}

}  // namespace topomoe
