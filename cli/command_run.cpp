// topomoe run plan.json: the plan's MoE layer on ranks, verified, predicted against measured.
//
// inproc: ranks are threads of this process. mpi: this process is one rank of mpirun's. nccl: a GPU a rank, as
// threads on one host, or as mpirun's processes on several.

#include <limits>
#include <memory>

#include "cli/commands.hpp"
#include "cli/last_words.hpp"
#include "cli/numbers.hpp"
#include "cli/run_execute.hpp"
#include "topomoe/error.hpp"
#include "topomoe/plan.hpp"

namespace topomoe::cli {
namespace {

// What MPI itself says is what counts for mpi: there a launcher's variables are for last words only.
LauncherRank launched_as(const RunOptions& o) {
  if (o.backend == "inproc") return {};
  try {
    return read_launcher_env(process_environment());
  } catch (const InvalidInput&) {
    if (o.backend == "nccl") throw;
    return {};
  }
}

}  // namespace

void add_run_command(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("run", "Execute a plan's MoE layer on ranks, and compare");
  auto o = std::make_shared<RunOptions>();
  command->add_option("plan", o->plan, "A plan.json of `topomoe plan`")->required()->option_text("PLAN");
  command->add_option("--backend", o->backend, "Ranks are threads (default), mpirun's processes, or GPUs")
      ->check(CLI::IsMember({"inproc", "mpi", "nccl"}))
      ->option_text("inproc|mpi|nccl");
  command->add_option("--cluster", o->cluster, "Insist that the plan was made for this cluster")->option_text("FILE");
  command
      ->add_option("--calibration", o->calibrations,
                   "Predict at the size that is run, by this topomoe.calibration/1 of --cluster, and judge the drift")
      ->option_text("FILE")
      ->needs("--cluster");
  command->add_option("--profile-out", o->profile, "Write what the steps took as a topomoe.calibration/1 of --cluster")
      ->option_text("FILE")
      ->needs("--cluster");
  command->add_option("--shrink", o->shrink, "Scale tensors down (default auto: until they fit)")
      ->option_text("auto|none|hidden=N,ffn=N,tokens=N");
  command->add_flag("--verify", o->verify, "Check outputs and gradients against double precision");
  command->add_option("--trace", o->trace, "Write a trace for ui.perfetto.dev")->option_text("FILE");
  command->add_option("--repeat", o->repeat, "Run it so often, default 1, with --calibration 5")
      ->check(whole_number("--repeat", 1, 1000))
      ->option_text("N");
  command->add_option("--kind", o->kind, "Which kind of MoE layer, where they differ; default 0")
      ->check(whole_number("--kind", 0, kMaxMoeKinds - 1))
      ->option_text("K");
  command->add_option("--seed", o->seed, "Of weights and tokens, default 1")
      ->check(whole_number("--seed", 0, std::numeric_limits<std::int64_t>::max()))
      ->option_text("N");
  add_threads_option(*command, o->threads);
  command->add_flag("--remap", o->remap, "Re-order mpirun's ranks so that they are where the plan has them");
  command->add_option("--host", o->host, "What this rank's host is called, default its host name")->option_text("NAME");
  command->add_option("--deadline", o->deadline_s, "Give up on another rank after so long, default 120")
      ->check(whole_number("--deadline", 1, 86400))
      ->option_text("SECONDS");
  add_format_option(*command, context);
  command->callback([o, &context] {
    if (o->threads != 1 && o->backend == "nccl")
      throw InvalidInput("--threads", std::to_string(o->threads), "kernels run on GPUs there");
    // Read before MPI starts, which sets variables of its own.
    const LauncherRank launched = launched_as(*o);
    std::unique_ptr<MpiSession> session;
    if (o->backend == "mpi" || launched.size > 1) {
      prepare_last_words(launched.rank, launched.size, mpi_options(*o).barrier_deadline);
      session = std::make_unique<MpiSession>(mpi_options(*o));
      arm_last_words();
    }
    run_plan(*o, context, launched);
  });
}

}  // namespace topomoe::cli
