#include "cli/plan_request.hpp"

#include <charconv>

#include "cli/calibrations.hpp"
#include "cli/numbers.hpp"
#include "planner/hf_config.hpp"
#include "planner/rates/builtin.hpp"
#include "topology/read/read_file.hpp"

namespace topomoe::cli {
namespace {

int positive_from(const char* flag, const std::string& text) {
  int value = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || rest != text.data() + text.size() || value < 1)
    throw InvalidInput(flag, text, "a positive integer, or auto");
  return value;
}

}  // namespace

bool is_routing_file(const std::string& text) { return text != "uniform" && !text.starts_with("zipf:"); }

RoutingProfile routing_from(const std::string& text) {
  if (text == "uniform") return {};
  if (is_routing_file(text)) return read_histogram(read_text_file(text), text);
  std::size_t used = 0;
  double s = 0;
  try {
    s = std::stod(text.substr(5), &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used == 0 || used + 5 != text.size())
    throw InvalidInput("--routing", text, "zipf:S with a number, as zipf:1.2; or uniform; or a file of expert counts");
  RoutingProfile profile = zipf_routing(s);
  profile.name = text;
  check(profile, "--routing");
  return profile;
}

PlanRequest plan_request(const PlanOptions& o) {
  PlanRequest request = o.request;
  request.job = o.job;
  request.job.micro_batch = o.micro_batch == "auto" ? 0 : positive_from("--micro-batch", o.micro_batch);
  request.job.phase = phase_from(o.phase, "--phase");
  request.job.dtype = dtype_from(o.dtype, "--dtype");
  request.job.dispatch_dtype = dispatch_dtype_from(o.dispatch_dtype, "--dispatch-dtype");
  request.job.recompute = recompute_from(o.recompute, "--recompute");
  request.job.sequence_parallel = sequence_parallel_from(o.sequence_parallel, "--sequence-parallel");
  request.model = read_hf_config(read_text_file(o.model), o.model);
  request.routing = routing_from(o.routing);
  if (!o.no_builtin_calibration) request.calibrations = builtin_calibrations();
  for (const std::string& file : o.calibrations)
    request.calibrations.push_back(read_calibration(read_text_file(file), file));
  return request;
}

std::vector<NamedFile> inputs_of(const PlanOptions& o) {
  std::vector<NamedFile> out = named("--calibration", o.calibrations);
  out.push_back({"--model", o.model});
  if (is_routing_file(o.routing)) out.push_back({"--routing", o.routing});
  return out;
}

void compare_calibrations(const PlanOptions& o, const PlanRequest& request, const Topology& here) {
  const std::size_t built_in = request.calibrations.size() - o.calibrations.size();
  for (std::size_t i = 0; i < o.calibrations.size(); ++i) {
    const Calibration& calibration = request.calibrations[built_in + i];
    require_device_curves(calibration, o.calibrations[i], here, o.host_curves);
    compare_machines(calibration, o.calibrations[i], here);
  }
}

Topology planned_topology(const PlanOptions& o, const std::string& file, std::string* note) {
  const Topology whole = read_topology_file(file);
  return o.gpus > 0 ? resize_hosts(whole, o.gpus, note) : whole;
}

void add_plan_options(CLI::App& command, PlanOptions& o) {
  command.add_option("--model", o.model, "config.json of Hugging Face, or topomoe.model/1")
      ->required()
      ->option_text("FILE");
  command.add_option("--gpus", o.gpus, "Fewer: whole hosts in order; more: hosts and fabric grow")
      ->check(whole_number("--gpus"))
      ->option_text("N");

  const auto list = [&](const char* name, std::vector<std::string>& into, const char* help) {
    command.add_option(name, into, help)->allow_extra_args(false)->delimiter(',')->option_text("DIM=N[,DIM=N]");
  };
  list("--fix", o.request.fix, "Fix a dimension: tp, ep, etp, pp, vpp, cp, dp, edp, mbs, zero (repeatable)");
  list("--max", o.request.max, "Bound a dimension (repeatable)");
  command.add_option("--target", o.request.target, "Only what this stack can run, default any")
      ->option_text("any|megatron|deepspeed");
  command.add_option("--split", o.request.split, "Only this token split")->option_text("sliced|replicated");
  command.add_option("--transport", o.request.transport, "Only this transport")->option_text("NAME");
  command.add_option("--chunks", o.request.chunks, "Only this number of chunks, 0 for any")
      ->check(whole_number("--chunks", 0, 64))
      ->option_text("N");
  command.add_option("--memory-GiB", o.request.memory_GiB, "Of one GPU; default: what the cluster says")
      ->check(positive_number("--memory-GiB", 1e6))
      ->option_text("GIB");

  command.add_option("--phase", o.phase, "Default train")->option_text("train|prefill|decode");
  command.add_option("--sequence", o.job.sequence, "Tokens of a sequence, default 4096")
      ->check(whole_number("--sequence"))
      ->option_text("N");
  command.add_option("--micro-batch", o.micro_batch, "Sequences per data-parallel rank, default auto: chosen")
      ->option_text("auto|N");
  command.add_option("--global-batch", o.job.global_batch, "Sequences of a step, default 256")
      ->check(whole_number("--global-batch"))
      ->option_text("N");
  command.add_option("--dtype", o.dtype, "Of weights and activations, default bf16")->option_text("bf16|f32");
  command
      .add_option("--dispatch-dtype", o.dispatch_dtype,
                  "How tokens travel to experts in a forward, default as_job: in --dtype; fp8 rounds what experts see")
      ->option_text("as_job|fp8");
  command.add_option("--recompute", o.recompute, "Default auto: chosen")->option_text("auto|none|selective|full");
  command.add_option("--sequence-parallel", o.sequence_parallel, "Default auto: on where TP > 1 in training")
      ->option_text("auto|off|on");
  command.add_option("--routing", o.routing, "How often experts are chosen, default uniform")
      ->option_text("uniform|zipf:S|FILE");
  command.add_option("--calibration", o.calibrations, "topomoe.calibration/1, beside the built-in ones (repeatable)")
      ->allow_extra_args(false)
      ->option_text("FILE");
  command.add_flag("--no-builtin-calibration", o.no_builtin_calibration, "Leave the built-in ones out");
  add_host_curves_option(command, o.host_curves);
}

}  // namespace topomoe::cli
