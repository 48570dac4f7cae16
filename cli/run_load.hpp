// What a run needs before its first step: the plan, the cluster that it was made for, and that both are what is here.
#pragma once

#include <string>

#include "cli/calibrations.hpp"
#include "cli/commands.hpp"
#include "cli/files.hpp"
#include "cli/run_options.hpp"
#include "cli/run_report.hpp"
#include "topomoe/communicator.hpp"
#include "topomoe/launcher_env.hpp"
#include "topomoe/plan.hpp"

namespace topomoe::cli {

struct LoadedRun {
  Plan plan;  // as if all MoE layers were of --kind
  RunInfo info;
  std::string bus_id;  // of this rank's device, where it is one of several
};

// Reads files. Throws InvalidInput by file and field, Failure where the cluster is another one than the plan's,
// MissingEnvironment where ranks are to run on GPUs and there are none, or no build for them.
LoadedRun load_run(const RunOptions& options, const LauncherRank& launched);
// Collective: all ranks load, or all leave.
LoadedRun load_run_together(const RunOptions& options, const LauncherRank& launched, Context& context, Communicator& c);

RanksOn ranks_of(const RunOptions& options);

// Throws where one cannot be: to be asked before the run, too.
OutputFiles outputs_of(const RunOptions& options);

}  // namespace topomoe::cli
