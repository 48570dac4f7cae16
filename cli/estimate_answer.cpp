#include "cli/estimate_answer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/numbers.hpp"
#include "planner/machine.hpp"
#include "planner/rates/collective.hpp"
#include "planner/rates/compute.hpp"
#include "planner/rates/deepep.hpp"
#include "planner/rates/expert_rows.hpp"
#include "planner/rates/machine_figures.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {

double positive(double value, const char* flag) {
  if (!std::isfinite(value) || value <= 0 || value > 1e12)
    throw InvalidInput(flag, value == 0 ? "missing" : fmt::format("{:g}", value), "a number above 0, at most 1e12");
  return value;
}

namespace {

std::string of_nodes(int nodes) { return nodes == 1 ? "on one node" : fmt::format("on {} nodes", nodes); }

Answer collective(const EstimateOptions& o, Collective op, const Topology& topology, const CollectiveGroup& group,
                  std::span<const Calibration> calibrations) {
  if (o.bytes.empty()) throw InvalidInput("--bytes", "missing", "one rank's send buffer, as 65536, 64K or 16M");
  const double bytes = bytes_from(o.bytes, "--bytes");
  if (group.most > 1 && topology.host_template(0).nvlink == Presence::unknown)
    throw InvalidInput(
        o.cluster + ": nvlink", "unknown",
        "the file does not say whether GPUs are joined by NVLink, and the answer depends on it: describe the "
        "host in a cluster JSON");
  const CollectiveModel model(topology, calibrations);
  return {fmt::format("{} of {:.0f} bytes a rank, {} GPUs {}", o.operation, bytes, group.ranks, of_nodes(group.nodes)),
          model.estimate(op, bytes, group), 0};
}

Answer deepep(const EstimateOptions& o, const Topology& topology, const CollectiveGroup& group,
              std::span<const Calibration> calibrations) {
  EpRequest r;
  r.operation = o.operation == "dispatch" ? EpOperation::dispatch : EpOperation::combine;
  r.low_latency = o.low_latency;
  r.tokens = positive(o.tokens, "--tokens");
  r.hidden = o.hidden, r.experts = o.experts, r.top_k = o.top_k, r.sms = o.sms;
  r.ranks = group.ranks, r.nodes = group.nodes;
  // As many on each rank: 72 of them hold 288, as DeepSeek serves its 256 experts with the busiest ones twice.
  if (!o.has_experts) r.experts = (o.experts + r.ranks - 1) / r.ranks * r.ranks;
  if (!o.dtype.empty() && o.dtype != "fp8" && o.dtype != "bf16")
    throw InvalidInput("--dtype", o.dtype, "fp8 or bf16; default: dispatch fp8, combine bf16");
  if (o.dtype == "bf16") r.token_bytes = 2.0 * r.hidden;
  if (o.dtype == "fp8") r.token_bytes = r.hidden + 4.0 * ((r.hidden + 127) / 128);
  // DeepSeek-V3 and R1 keep a token on 4 nodes, and DeepEP's own test measures it so.
  const bool as_deepseek = o.experts == 256 && r.top_k == 8 && !o.low_latency;
  r.most_nodes = o.nodes_per_token >= 0 ? o.nodes_per_token : as_deepseek ? 4 : 0;
  const EpEstimate e = DeepEpModel(machine_figures(topology), calibrations).estimate(r);
  std::string limit;
  if (r.most_nodes > 0 && r.most_nodes < r.nodes)
    limit = fmt::format(", a token on at most {} nodes (--nodes-per-token)", r.most_nodes);
  return {fmt::format("DeepEP {}{} of {:.0f} tokens a rank, hidden {}, top-{} of {} experts, {}{} GPUs {}{}",
                      o.operation, o.low_latency ? " (low latency)" : "", r.tokens, r.hidden, r.top_k, r.experts,
                      o.low_latency ? "" : fmt::format("{} SMs, ", r.sms), r.ranks, of_nodes(r.nodes), limit),
          e, e.notify_us};
}

DType compute_dtype(const EstimateOptions& o) {
  if (o.dtype.empty() || o.dtype == "bf16") return DType::bf16;
  if (o.dtype == "f32") return DType::f32;
  throw InvalidInput("--dtype", o.dtype, "bf16 or f32");
}

Answer gemm(const EstimateOptions& o, const Topology& topology, std::span<const Calibration> calibrations) {
  const double m = positive(o.m, "--m"), n = positive(o.n, "--n"), k = positive(o.k, "--k");
  return {fmt::format("GEMM ({:.0f} x {:.0f}) x ({:.0f} x {:.0f}) on one {}", m, k, k, n, topology.gpu_spec(0).name),
          ComputeModel(topology.gpu_spec(0), compute_dtype(o), calibrations).gemm(m, n, k), 0};
}

Answer moe_ffn(const EstimateOptions& o, const Topology& topology, std::span<const Calibration> calibrations) {
  if (positive(o.tokens, "--tokens") > 1 << 24 || o.tokens != std::floor(o.tokens))
    throw InvalidInput("--tokens", fmt::format("{:g}", o.tokens), "a whole number from 1 to 2^24");
  const auto tokens = static_cast<int>(o.tokens);
  const auto whole = [](int value, const char* flag) {
    if (value < 1 || value > 1 << 24) throw InvalidInput(flag, std::to_string(value), "1 to 2^24");
    return value;
  };
  whole(o.hidden, "--hidden"), whole(o.experts, "--experts"), whole(o.top_k, "--topk");
  if (o.top_k > o.experts) throw InvalidInput("--topk", std::to_string(o.top_k), fmt::format("1 to {}", o.experts));
  if (o.experts % whole(o.ep, "--ep") != 0)
    throw InvalidInput("--ep", std::to_string(o.ep), fmt::format("must divide --experts = {}", o.experts));
  if (whole(o.ffn, "--ffn") % whole(o.tp, "--tp") != 0)
    throw InvalidInput("--tp", std::to_string(o.tp), fmt::format("must divide --ffn = {}", o.ffn));
  const auto rows = balanced_rows({tokens, o.experts, o.top_k, o.ep});
  const double ffn = 1.0 * o.ffn / o.tp;
  const Phase phase = phase_from(o.phase, "--phase");
  const FfnKernel kernel = expert_kernel_of(phase);
  const ComputeModel compute(topology.gpu_spec(0), compute_dtype(o), calibrations);
  const Estimate experts = compute.expert_ffn(rows, o.hidden, ffn, 3, kernel);
  Answer a;
  a.experts_us = experts.time_us, a.in_step_us = experts.time_us / in_step_of(phase), a.kernel = to_string(kernel);
  std::string what = "MoE FFN";
  if (kernel == FfnKernel::fused) {  // with gating, sorting and summing of rows, as it is timed
    MoeFfnShape shape;
    shape.hidden = o.hidden, shape.ffn = ffn, shape.summed_tokens = tokens;
    const ExpertLoad load = expert_load(rows);
    if (o.ep > 1) shape.foreign_rows = std::max(0.0, 1.0 * tokens * o.top_k - load.rows);
    a.estimate = compute.moe_kernel(load, shape);
    a.estimate.source += "; one fused Triton kernel, routing, sorting and sum of rows with it";
  } else {
    a.estimate = experts, what = "experts' FFN, forward";
  }
  a.question = fmt::format(
      "{} of {} tokens, hidden {}, ffn {}, top-{} of {} experts, ep {}, tp {}, spread evenly, on one {}, {}", what,
      tokens, o.hidden, o.ffn, o.top_k, o.experts, o.ep, o.tp, topology.gpu_spec(0).name, o.phase);
  return a;
}

}  // namespace

Answer answer_of(const EstimateOptions& o, const Topology& topology, std::span<const Calibration> calibrations) {
  const auto group = [&] { return first_gpus(topology, o.gpus > 0 ? o.gpus : topology.gpu_count()); };
  if (o.operation == "gemm") return gemm(o, topology, calibrations);
  if (o.operation == "moe_ffn") return moe_ffn(o, topology, calibrations);
  if (o.operation == "dispatch" || o.operation == "combine") return deepep(o, topology, group(), calibrations);
  return collective(o, collective_from(o.operation, "operation"), topology, group(), calibrations);
}

}  // namespace topomoe::cli
