// topomoe plan: from a cluster and a model to plan.json, and why.

#include <memory>

#include "cli/commands.hpp"
#include "cli/edit_options.hpp"
#include "cli/files.hpp"
#include "cli/plan_request.hpp"

namespace topomoe::cli {
namespace {

struct Options : PlanOptions {
  std::string cluster, output;
  EditOptions edits;
};

// What a user types next. Ranks beyond what threads carry go to mpirun.
std::string next_commands(const Plan& plan, const std::string& program, const std::string& path) {
  std::string text = "\nnext\n  " + program + " explain " + path + "\n  " + program + " explain --glossary\n";
  const std::string run = program + " run " + path;
  if (plan.layout.world <= kMostThreads) text += "  " + run + " --verify --trace trace.json\n";
  // More ranks than this no single machine carries.
  constexpr int kMostProcesses = 128;
  if (plan.layout.world > kMostProcesses) return text;
  return text + "  mpirun --oversubscribe -n " + std::to_string(plan.layout.world) + " " + run +
         " --backend mpi --verify\n";
}

void plan(const Options& o, const Context& context) {
  std::vector<NamedFile> inputs = inputs_of(o);
  inputs.push_back({"--cluster", o.cluster});
  OutputFiles files({{"-o", o.output}}, inputs);
  PlanRequest request = plan_request(o);
  request.topology = planned_topology(o, o.cluster, &request.topology_note);
  if (const std::string what = words(o.edits); !what.empty()) {
    request.topology = edited(request.topology, o.edits);
    request.topology_note += (request.topology_note.empty() ? "" : "; ") + ("edited: " + what);
  }
  compare_calibrations(o, request, request.topology);
  if (!request.topology_note.empty()) say("note: " + request.topology_note);

  const auto found = make_plan(request);
  if (!found) throw Failure("infeasible: " + found.error().message());
  const std::string json = write_plan(*found);
  files.write("-o", json);
  std::string text = context.format == Format::json ? json : explain_text(*found);
  if (!o.output.empty() && context.format == Format::text) text += next_commands(*found, context.program, o.output);
  files.commit();
  print(text);
}

}  // namespace

void add_plan_command(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("plan", "Choose layout and algorithm for a cluster and a model");
  auto o = std::make_shared<Options>();
  command->add_option("--cluster", o->cluster, "topomoe.cluster/1 JSON, or an NCCL topology XML")
      ->required()
      ->option_text("FILE");
  add_plan_options(*command, *o);
  add_edit_options(*command, o->edits);
  command->add_option("-o,--output", o->output, "Where plan.json goes")->option_text("FILE");
  add_format_option(*command, context);
  command->callback([o, &context] { plan(*o, context); });
}

}  // namespace topomoe::cli
