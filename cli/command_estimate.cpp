// topomoe estimate: how long one operation takes on a cluster, how sure, and whether a measured time is normal.

#include <fmt/format.h>

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/commands.hpp"
#include "cli/files.hpp"
#include "cli/numbers.hpp"
#include "planner/machine.hpp"
#include "planner/rates/builtin.hpp"
#include "planner/rates/collective.hpp"
#include "planner/rates/compute.hpp"
#include "planner/rates/deepep.hpp"
#include "planner/rates/expert_rows.hpp"
#include "planner/rates/machine_figures.hpp"
#include "planner/rates/verdict.hpp"
#include "topology/read_file.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {
namespace {

constexpr const char* kOperations =
    "alltoall|all_gather|reduce_scatter|all_reduce|send_recv|gemm|moe_ffn|dispatch|combine";

struct Options {
  std::string operation, cluster, bytes, dtype;
  std::vector<std::string> calibrations;
  bool no_builtin = false, low_latency = false;
  int gpus = 0;
  double m = 0, n = 0, k = 0, tokens = 0, measured_us = 0;
  bool has_measured = false, has_experts = false;
  std::string phase = "prefill";
  int hidden = 7168, top_k = 8, experts = 256, sms = 20, ffn = 2048, ep = 1, tp = 1, nodes_per_token = -1;
};

// What was asked, in words, and the answer.
struct Answer {
  std::string question;
  Estimate estimate;
  double notify_us = 0;
  // moe_ffn: what a plan of that phase says of the experts, by which kernel.
  double experts_us = 0, in_step_us = 0;
  std::string kernel;
};

std::string of_nodes(int nodes) { return nodes == 1 ? "on one node" : fmt::format("on {} nodes", nodes); }

double positive(double value, const char* flag) {
  if (!std::isfinite(value) || value <= 0 || value > 1e12)
    throw InvalidInput(flag, value == 0 ? "missing" : fmt::format("{:g}", value), "a number above 0, at most 1e12");
  return value;
}

Answer collective(const Options& o, Collective op, const Topology& topology, const CollectiveGroup& group,
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

Answer deepep(const Options& o, const Topology& topology, const CollectiveGroup& group,
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

DType compute_dtype(const Options& o) {
  if (o.dtype.empty() || o.dtype == "bf16") return DType::bf16;
  if (o.dtype == "f32") return DType::f32;
  throw InvalidInput("--dtype", o.dtype, "bf16 or f32");
}

Answer gemm(const Options& o, const Topology& topology, std::span<const Calibration> calibrations) {
  const double m = positive(o.m, "--m"), n = positive(o.n, "--n"), k = positive(o.k, "--k");
  return {fmt::format("GEMM ({:.0f} x {:.0f}) x ({:.0f} x {:.0f}) on one {}", m, k, k, n, topology.gpu_spec(0).name),
          ComputeModel(topology.gpu_spec(0), compute_dtype(o), calibrations).gemm(m, n, k), 0};
}

Answer moe_ffn(const Options& o, const Topology& topology, std::span<const Calibration> calibrations) {
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

std::string show_text(const Answer& a, const std::optional<Verdict>& verdict, double measured_us) {
  const Estimate& e = a.estimate;
  std::string text = fmt::format(
      "{}\n  time        {:.2f} us, nine of ten in {:.2f} to {:.2f}\n  bound       {:.2f} us\n  bottleneck  {}\n"
      "  source      {}\n",
      a.question, e.time_us, e.low_us, e.high_us, e.bound_us, e.bottleneck, e.source);
  if (a.notify_us > 0) text += fmt::format("  before it   the notify kernel, about {:.1f} us\n", a.notify_us);
  if (a.in_step_us > 0)
    text += fmt::format("  in a plan   the experts alone, {}: {:.2f} us, {:.2f} us in a step\n", a.kernel, a.experts_us,
                        a.in_step_us);
  if (verdict) text += fmt::format("  measured    {:.2f} us: {}\n", measured_us, verdict->text);
  return text;
}

std::string show_json(const Answer& a, const std::optional<Verdict>& verdict, double measured_us) {
  const Estimate& e = a.estimate;
  nlohmann::ordered_json json = {{"time_us", e.time_us},   {"low_us", e.low_us}, {"high_us", e.high_us},
                                 {"bound_us", e.bound_us}, {"source", e.source}, {"bottleneck", e.bottleneck}};
  json["question"] = a.question;
  if (a.notify_us > 0) json["notify_us"] = a.notify_us;
  if (a.in_step_us > 0) {
    json["kernel"] = a.kernel;
    json["experts_us"] = a.experts_us;
    json["in_step_us"] = a.in_step_us;
  }
  if (verdict) {
    json["measured_us"] = measured_us;
    json["verdict"] = verdict->word;
    json["advice"] = verdict->text;
  }
  return json.dump(2) + "\n";
}

void estimate(const Options& o, const Context& context) {
  if (o.operation.empty() || ("|" + std::string(kOperations) + "|").find("|" + o.operation + "|") == std::string::npos)
    throw InvalidInput("operation", o.operation, "must be one of " + std::string(kOperations));
  Topology topology = read_topology_file(o.cluster);
  if (o.gpus < 0) throw InvalidInput("--gpus", std::to_string(o.gpus), "a positive number of GPUs");
  if (topology.gpu_count() == 0) throw InvalidInput(o.cluster + ": gpus", "0", "a cluster with GPUs");
  std::string note;
  if (o.gpus > topology.gpu_count()) topology = resize_hosts(topology, o.gpus, &note);
  if (!note.empty()) say("note: " + note);
  std::vector<Calibration> calibrations;
  if (!o.no_builtin) calibrations = builtin_calibrations();
  for (const std::string& file : o.calibrations) calibrations.push_back(read_calibration(read_text_file(file), file));
  if (o.has_measured) positive(o.measured_us, "--measured");

  const auto group = [&] { return first_gpus(topology, o.gpus > 0 ? o.gpus : topology.gpu_count()); };
  Answer answer;
  if (o.operation == "gemm")
    answer = gemm(o, topology, calibrations);
  else if (o.operation == "moe_ffn")
    answer = moe_ffn(o, topology, calibrations);
  else if (o.operation == "dispatch" || o.operation == "combine")
    answer = deepep(o, topology, group(), calibrations);
  else
    answer = collective(o, collective_from(o.operation, "operation"), topology, group(), calibrations);
  std::optional<Verdict> verdict;
  if (o.has_measured) verdict = judge(answer.estimate, o.measured_us);
  print(context.format == Format::json ? show_json(answer, verdict, o.measured_us)
                                       : show_text(answer, verdict, o.measured_us));
}

}  // namespace

void add_estimate_command(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("estimate", "How long one operation takes on a cluster, and how sure that is");
  auto o = std::make_shared<Options>();
  command->add_option("operation", o->operation, kOperations)->required()->option_text("OP");
  command->add_option("--cluster", o->cluster, "topomoe.cluster/1 JSON, or an NCCL topology XML")
      ->required()
      ->option_text("FILE");
  command->add_option("--gpus", o->gpus, "GPUs that take part, nodes filled in order; default all")
      ->check(whole_number("--gpus"))
      ->option_text("N");
  command->add_option("--bytes", o->bytes, "Collectives: one rank's send buffer, K M G of 1024")->option_text("B");
  command->add_option("--m", o->m, "GEMM (m x k) x (k x n)")->option_text("N");
  command->add_option("--n", o->n)->option_text("N");
  command->add_option("--k", o->k)->option_text("N");
  command->add_option("--tokens", o->tokens, "dispatch, combine: of one rank; moe_ffn: that enter the layer")
      ->option_text("N");
  command->add_option("--hidden", o->hidden, "Default 7168")->check(whole_number("--hidden"))->option_text("N");
  command->add_option("--topk", o->top_k, "Default 8")->check(whole_number("--topk"))->option_text("N");
  CLI::Option* experts =
      command->add_option("--experts", o->experts, "Default 256; dispatch, combine: the next multiple of the GPUs")
          ->check(whole_number("--experts"))
          ->option_text("N");
  command
      ->add_option("--phase", o->phase,
                   "moe_ffn: train runs grouped GEMMs, prefill (default) and decode one fused kernel")
      ->option_text("train|prefill|decode");
  command->add_option("--ffn", o->ffn, "moe_ffn: width of an expert, default 2048")
      ->check(whole_number("--ffn"))
      ->option_text("N");
  command->add_option("--ep", o->ep, "moe_ffn: the GPU holds experts / ep, default 1")
      ->check(whole_number("--ep"))
      ->option_text("N");
  command->add_option("--tp", o->tp, "moe_ffn: each ffn / tp wide, default 1")
      ->check(whole_number("--tp"))
      ->option_text("N");
  command->add_option("--sms", o->sms, "dispatch, combine: SMs that the kernel gets, default 20")
      ->check(whole_number("--sms"))
      ->option_text("N");
  command->add_flag("--low-latency", o->low_latency, "dispatch, combine: DeepEP's low-latency kernels");
  command
      ->add_option(
          "--nodes-per-token", o->nodes_per_token,
          "dispatch, combine: nodes that a token's experts lie on at most, 0 no limit; default 4 for top-8 of 256")
      ->check(whole_number("--nodes-per-token", 0))
      ->option_text("N");
  command->add_option("--dtype", o->dtype, "dispatch fp8, combine, gemm and moe_ffn bf16 unless given")
      ->option_text("bf16|fp8|f32");
  command->add_option("--calibration", o->calibrations, "topomoe.calibration/1, beside the built-in ones (repeatable)")
      ->allow_extra_args(false)
      ->option_text("FILE");
  command->add_flag("--no-builtin-calibration", o->no_builtin, "Leave the built-in ones out");
  CLI::Option* measured =
      command->add_option("--measured", o->measured_us, "A measured time in us: is it normal?")->option_text("US");
  add_format_option(*command, context);
  command->callback([o, measured, experts, &context] {
    o->has_experts = experts->count() > 0;
    o->has_measured = measured->count() > 0;
    estimate(*o, context);
  });
}

}  // namespace topomoe::cli
