// topomoe estimate: how long one operation takes on a cluster, how sure, and whether a measured time is normal.

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/calibrations.hpp"
#include "cli/commands.hpp"
#include "cli/estimate_answer.hpp"
#include "cli/files.hpp"
#include "cli/numbers.hpp"
#include "planner/rates/builtin.hpp"
#include "planner/rates/verdict.hpp"
#include "topology/read/read_file.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {
namespace {

constexpr const char* kOperations =
    "alltoall|all_gather|reduce_scatter|all_reduce|send_recv|gemm|moe_ffn|dispatch|combine";

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

// What only some operations ask for, by the operations.
constexpr std::pair<const char*, const char*> kOfSome[] = {
    {"--bytes", "alltoall|all_gather|reduce_scatter|all_reduce|send_recv"},
    {"--gpus", "alltoall|all_gather|reduce_scatter|all_reduce|send_recv|dispatch|combine"},
    {"--m", "gemm"},
    {"--n", "gemm"},
    {"--k", "gemm"},
    {"--tokens", "dispatch|combine|moe_ffn"},
    {"--hidden", "dispatch|combine|moe_ffn"},
    {"--topk", "dispatch|combine|moe_ffn"},
    {"--experts", "dispatch|combine|moe_ffn"},
    {"--phase", "moe_ffn"},
    {"--ffn", "moe_ffn"},
    {"--ep", "moe_ffn"},
    {"--tp", "moe_ffn"},
    {"--sms", "dispatch|combine"},
    {"--low-latency", "dispatch|combine"},
    {"--nodes-per-token", "dispatch|combine"},
    {"--dtype", "gemm|moe_ffn|dispatch|combine"},
};

bool is_one_of(const std::string& word, const std::string& words) {
  return !word.empty() && ("|" + words + "|").find("|" + word + "|") != std::string::npos;
}

void require_say(const CLI::App& command, const std::string& operation) {
  for (const auto& [flag, operations] : kOfSome)
    if (command.get_option(flag)->count() > 0 && !is_one_of(operation, operations))
      throw InvalidInput(flag, "no part of " + operation, "it is of " + std::string(operations));
}

void estimate(const EstimateOptions& o, const Context& context) {
  if (!is_one_of(o.operation, kOperations))
    throw InvalidInput("operation", o.operation, "must be one of " + std::string(kOperations));
  Topology topology = read_topology_file(o.cluster);
  if (o.gpus < 0) throw InvalidInput("--gpus", std::to_string(o.gpus), "a positive number of GPUs");
  if (topology.gpu_count() == 0) throw InvalidInput(o.cluster + ": gpus", "0", "a cluster with GPUs");
  std::string note;
  if (o.gpus > topology.gpu_count()) topology = resize_hosts(topology, o.gpus, &note);
  if (!note.empty()) say("note: " + note);
  std::vector<Calibration> calibrations;
  if (!o.no_builtin) calibrations = builtin_calibrations();
  for (const std::string& file : o.calibrations) {
    calibrations.push_back(read_calibration(read_text_file(file), file));
    require_device_curves(calibrations.back(), file, topology, o.host_curves);
    compare_machines(calibrations.back(), file, topology);
  }
  if (o.has_measured) positive(o.measured_us, "--measured");

  const Answer answer = answer_of(o, topology, calibrations);
  std::optional<Verdict> verdict;
  if (o.has_measured) verdict = judge(answer.estimate, o.measured_us);
  print(context.format == Format::json ? show_json(answer, verdict, o.measured_us)
                                       : show_text(answer, verdict, o.measured_us));
}

}  // namespace

void add_estimate_command(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("estimate", "How long one operation takes on a cluster, and how sure that is");
  auto o = std::make_shared<EstimateOptions>();
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
  add_host_curves_option(*command, o->host_curves);
  CLI::Option* measured =
      command->add_option("--measured", o->measured_us, "A measured time in us: is it normal?")->option_text("US");
  add_format_option(*command, context);
  command->callback([o, command, measured, experts, &context] {
    if (is_one_of(o->operation, kOperations)) require_say(*command, o->operation);
    o->has_experts = experts->count() > 0;
    o->has_measured = measured->count() > 0;
    estimate(*o, context);
  });
}

}  // namespace topomoe::cli
