// The options that ask for a plan, shared by every command that makes plans.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "cli/files.hpp"
#include "topomoe/planner.hpp"

namespace topomoe::cli {

// Values of enumerations stay text until the library reads them: its messages list the known names.
struct PlanOptions {
  std::string model;
  int gpus = 0;
  Job job;
  std::string phase{to_string(job.phase)}, dtype{to_string(job.dtype)}, dispatch_dtype{to_string(job.dispatch_dtype)},
      recompute = "auto", micro_batch = "auto";
  std::string sequence_parallel{to_string(job.sequence_parallel)}, routing = "uniform";
  std::vector<std::string> calibrations;  // files
  bool no_builtin_calibration = false, host_curves = false;
  PlanRequest request;  // what goes into it as it is
};

// Adds them to a command, --gpus and --model included; not --cluster, which may be one or several.
void add_plan_options(CLI::App& command, PlanOptions& options);
// All of the request but its topology. Reads files; throws InvalidInput.
PlanRequest plan_request(const PlanOptions& options);
// The cluster of a file with --gpus of it; what that did goes to *note.
Topology planned_topology(const PlanOptions& options, const std::string& file, std::string* note);
// The files that they name.
std::vector<NamedFile> inputs_of(const PlanOptions& options);
// Refuses calibrations of host memory for GPUs, and says what else differs between where they were measured and `here`.
void compare_calibrations(const PlanOptions& options, const PlanRequest& request, const Topology& here);
bool is_routing_file(const std::string& text);
// "uniform", "zipf:1.2", or a file of expert counts.
RoutingProfile routing_from(const std::string& text);

}  // namespace topomoe::cli
