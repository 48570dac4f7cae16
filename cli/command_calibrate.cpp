// topomoe calibrate: measurements of others into one topomoe.calibration/1.

#include <memory>

#include "cli/commands.hpp"
#include "cli/files.hpp"
#include "cli/numbers.hpp"
#include "planner/rates/import.hpp"
#include "planner/rates/machine_figures.hpp"
#include "topology/read/read_file.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {
namespace {

struct Options {
  std::vector<std::string> from;
  std::string cluster, output;
  ImportRequest request;
};

std::string summary(const Calibration& c) {
  std::string text = c.name + ": " + c.machine.gpu.name + ", " + std::to_string(c.curves.size()) + " curves, " +
                     std::to_string(c.figures.size()) + " figures\n";
  for (const CalibrationCurve& curve : c.curves) {
    text += "  " + curve.operation + ", " + std::to_string(curve.gpus) + " GPUs on " + std::to_string(curve.nodes) +
            (curve.nodes == 1 ? " node" : " nodes");
    for (const auto& [name, value] : curve.parameters)
      if (name == "sms") text += ", " + std::to_string(static_cast<int>(value)) + " SMs";
    text += ": " + std::to_string(curve.knots.size()) + " knots\n";
  }
  return text;
}

void calibrate(Options o, const Context& context) {
  std::vector<NamedFile> inputs = named("--from", o.from);
  inputs.push_back({"--cluster", o.cluster});
  OutputFiles files({{"-o", o.output}}, inputs);
  if (!o.cluster.empty()) o.request.machine = machine_figures(read_topology_file(o.cluster));
  Calibration all;
  for (std::size_t i = 0; i < o.from.size(); ++i) {
    const Calibration one = import_measurements(read_text_file(o.from[i]), o.from[i], o.request);
    if (i == 0) {
      all = one;
      continue;
    }
    if (one.machine.gpu.name != all.machine.gpu.name)
      throw InvalidInput("--from " + o.from[i], one.machine.gpu.name,
                         "a calibration is of one machine, the files before are of " + all.machine.gpu.name);
    merge_into(all, one);
  }
  if (all.curves.empty() && all.figures.empty())
    throw InvalidInput("--from", "no row of the files was asked for",
                       "see --system, --gpus and --op: the files have others");
  const std::string json = write_calibration(all);
  files.write("-o", json);
  files.commit();
  print(context.format == Format::json || o.output.empty() ? json : summary(all));
}

}  // namespace

void add_calibrate_command(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("calibrate", "Import measured times as topomoe.calibration/1");
  auto o = std::make_shared<Options>();
  command
      ->add_option("--from", o->from,
                   "nccl-tests text or JSON, nvbandwidth JSON, a table of measurements (repeatable: one machine)")
      ->required()
      ->allow_extra_args(false)
      ->option_text("FILE");
  command->add_option("--gpus", o->request.gpus, "Only these numbers of GPUs")
      ->check(whole_number("--gpus"))
      ->option_text("N ...");
  command->add_option("--system", o->request.system, "Which machine of a table that has several")->option_text("NAME");
  command->add_option("--op", o->request.operation, "What nccl-tests ran, where its output does not say")
      ->check(CLI::IsMember({"alltoall", "all_gather", "reduce_scatter", "all_reduce", "send_recv"}))
      ->option_text("OP");
  command->add_option("--cluster", o->cluster, "The machine that was measured, where the files do not say")
      ->option_text("FILE");
  command->add_option("--name", o->request.name, "Of the calibration")->option_text("NAME");
  command->add_option("--source", o->request.source, "Who measured it")->option_text("TEXT");
  command->add_option("-o,--output", o->output, "Where it goes; default stdout")->option_text("FILE");
  add_format_option(*command, context);
  command->callback([o, &context] { calibrate(*o, context); });
}

}  // namespace topomoe::cli
