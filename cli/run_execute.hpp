// A run's layer on its ranks, and what comes of it: threads of this process, processes of mpirun's, or GPUs.
#pragma once

#include "cli/commands.hpp"
#include "cli/run_options.hpp"
#include "topomoe/communicator_mpi.hpp"
#include "topomoe/launcher_env.hpp"

namespace topomoe::cli {

// Over MPI its session must have begun. The report goes to stdout, files to their places. Throws as its parts do, and
// Failure where bytes or values are not what they must be.
void run_plan(const RunOptions& options, Context& context, const LauncherRank& launched);

MpiOptions mpi_options(const RunOptions& options);

}  // namespace topomoe::cli
