// Which rank of how many this process is, as whoever launched it says in the environment: our own
// variables, torchrun, an MPI launcher, a Slurm step, or nobody (then it is the only one).
//
// Launchers nest, and the variables of the outer one are inherited: mpirun inside a Slurm job starts its
// daemons by srun, torchrun is started by srun or mpirun. So the inner one is asked first, and a Slurm
// step after the MPI launchers; under `srun --mpi=...` both say the same. A batch script is no step.
// With MPI the ranks are MPI's; this is for processes that have nothing else (NCCL, several hosts).
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace topomoe {

struct LauncherRank {
  int rank = 0, size = 1;
  int local_rank = 0;  // among those on this host; -1 where the launcher does not say
  std::string source = "single process";
};

// The value of a variable, or nothing. An empty value counts as nothing.
using EnvironmentLookup = std::function<std::optional<std::string>(const std::string& name)>;
EnvironmentLookup process_environment();

// Throws InvalidInput named after the variable that is missing or makes no sense (RANK=abc, RANK >= WORLD_SIZE).
LauncherRank read_launcher_env(const EnvironmentLookup& lookup);

}  // namespace topomoe
