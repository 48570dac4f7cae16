#include "cli/run_execute.hpp"

#include <algorithm>
#include <memory>
#include <optional>

#include "cli/calibrations.hpp"
#include "cli/last_words.hpp"
#include "cli/placement.hpp"
#include "cli/run_load.hpp"
#include "cli/run_size.hpp"
#include "planner/rates/machine_figures.hpp"
#include "planner/rates/same_machine.hpp"
#include "runtime/drift.hpp"
#include "runtime/trace.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/communicator_nccl.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/device_cuda.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {
namespace {

// Repetitions where lanes are to be judged: the first opens connections and touches pages, four tell a median and how
// far they lie apart.
constexpr int kRepeatToJudge = 5;

RehearsalRequest request_for(const Plan& plan, const RunOptions& o, Budget budget) {
  SizeRequest size = size_request_from(o.shrink, "--shrink");
  return {.size = choose_size(plan, size, budget),
          .seed = o.seed,
          .repeat = o.repeat > 0             ? o.repeat
                    : o.calibrations.empty() ? 1
                                             : kRepeatToJudge,
          .verify = o.verify,
          .deadline = o.deadline()};
}

void announce(const RunInfo& info) {
  if (info.rehearsal) say("note: no --cluster: this is a rehearsal on this machine, not on the plan's cluster");
  for (const std::string& what : info.skipped) say("note: not executed in this run: " + what);
}

Calibration online_profile(const Plan& plan, const RunOptions& o, const RunInfo& info, const RehearsalReport& report) {
  const RankGroups groups(plan.layout, info.cluster->gpus_per_node());
  const bool host = ranks_of(o) == RanksOn::host;
  if (host && computes_on_gpus(info.cluster->gpu_spec(0)))
    say("note: " + o.profile + " is of host memory: no plan for " + info.cluster->gpu_spec(0).name +
        " takes it unasked");
  return {.name = info.cluster->name.empty() ? o.cluster : info.cluster->name,
          .source = "topomoe run --backend " + o.backend + " --profile-out: steps of " + plan.schedule.name,
          .machine = machine_figures(*info.cluster),
          .software = {{"backend", o.backend}},
          .curves = curves_of(plan.schedule, groups, report.ranks)};
}

void deliver(const Plan& plan, const RunOptions& o, const Context& context, RunInfo info,
             const RehearsalRequest& request, const RehearsalReport& report) {
  OutputFiles files = outputs_of(o);
  if (info.cluster && !o.calibrations.empty())
    info.here = predict_run(plan, request.size, *info.cluster,
                            calibrations_for(o.calibrations, *info.cluster, ranks_of(o)), ranks_of(o));
  if (files.wants("--profile-out"))
    files.write("--profile-out", write_calibration(online_profile(plan, o, info, report)));
  if (files.wants("--trace")) files.write("--trace", write_trace(plan, report));
  const std::string text = context.format == Format::json ? report_json(plan, info, request, report)
                                                          : report_text(plan, info, request, report);
  files.commit();
  print(text);
  if (!report.bytes_agree())
    throw Failure("bytes: predicted and measured differ: see the table; please report it with the plan");
  if (!report.values_agree()) throw Failure("values: beyond the bound: see the table; please report it with the plan");
}

void run_threads(const RunOptions& o, const LauncherRank& launched, const Context& context) {
  (void)outputs_of(o);
  LoadedRun loaded = load_run(o, launched);
  const Plan& plan = loaded.plan;
  const int world = plan.layout.world;
  if (world > kMostThreads)
    throw InvalidInput("ranks", std::to_string(world),
                       "inproc runs at most " + std::to_string(kMostThreads) + "; plan with --gpus " +
                           std::to_string(kMostThreads) + " or fewer, or use --backend mpi");
  const RehearsalRequest request = request_for(plan, o, budget_for(free_bytes_here()));
  loaded.info.device = make_cpu_device()->name();
  announce(loaded.info);
  std::optional<RehearsalReport> report;
  run_inproc(world, [&](Communicator& c) {
    const auto device = make_cpu_device({}, {.threads = o.threads});
    if (auto mine = rehearse(plan, request, c, *device)) report = std::move(mine);
  });
  deliver(plan, o, context, loaded.info, request, *report);
}

void run_gpu_threads(const RunOptions& o, const LauncherRank& launched, const Context& context) {
  (void)outputs_of(o);
  LoadedRun loaded = load_run(o, launched);
  const Plan& plan = loaded.plan;
  const RehearsalRequest request = request_for(plan, o, budget_for(free_bytes_here()));
  loaded.info.device = make_cuda_device(plan.layout.world - 1)->name();  // throws unless every rank has a GPU
  announce(loaded.info);
  std::optional<RehearsalReport> report;
  run_inproc(plan.layout.world, [&](Communicator& rendezvous) {
    const auto device = make_cuda_device(rendezvous.rank());
    const auto nccl = make_nccl_communicator(*device, rendezvous.rank(), rendezvous.size(), broadcast_over(rendezvous));
    if (auto mine = rehearse(plan, request, *nccl, *device)) report = std::move(mine);
  });
  deliver(plan, o, context, loaded.info, request, *report);
}

// The rest of a run once this process is a rank of `job`; `c` is what the layer runs on.
void run_as_rank(const Plan& plan, const RunOptions& o, const Context& context, RunInfo info, Communicator& job,
                 Communicator& c, Device& device) {
  std::optional<RehearsalReport> report;
  RehearsalRequest request;
  try {
    request = request_for(plan, o, budget_for(least_free_bytes(c, o.deadline().value_or(std::chrono::minutes(10)))));
    info.device = device.name();
    if (c.rank() == 0) announce(info);
    report = rehearse(plan, request, c, device);
  } catch (const InvalidInput&) {
    throw;  // alike on all ranks
  } catch (const std::exception& e) {
    give_up(job, e);
  }
  if (report) deliver(plan, o, context, info, request, *report);
}

void run_gpu_rank(const LoadedRun& loaded, const RunOptions& o, const Context& context, const LauncherRank& launched,
                  Communicator& mpi) {
  try {
    const auto device = make_cuda_device(std::max(0, launched.local_rank));
    const auto nccl = make_nccl_communicator(*device, mpi.rank(), mpi.size(), broadcast_over(mpi));
    run_as_rank(loaded.plan, o, context, loaded.info, mpi, *nccl, *device);
  } catch (const MissingEnvironment& e) {
    give_up(mpi, e);  // the others may have what we lack
  }
}

void run_processes(const RunOptions& o, Context& context, const LauncherRank& launched) {
  auto mpi = make_mpi_communicator(nullptr, mpi_options(o));
  context.silent = mpi->rank() != 0;
  try {
    LoadedRun loaded = load_run_together(o, launched, context, *mpi);
    const PlacementOptions where{
        .bus_id = loaded.bus_id, .host = o.host, .remap = o.remap, .rehearsal = loaded.info.rehearsal};
    loaded.info.placement = place_ranks(loaded.plan, where, mpi_options(o), mpi, context);
    if (o.backend == "mpi")
      run_as_rank(loaded.plan, o, context, loaded.info, *mpi, *mpi, *make_cpu_device({}, {.threads = o.threads}));
    else
      run_gpu_rank(loaded, o, context, launched, *mpi);
  } catch (const TransportError& e) {
    if (mpi) give_up(*mpi, e);
    throw;
  }
}

}  // namespace

MpiOptions mpi_options(const RunOptions& o) {
  MpiOptions options{.black_box = &black_box()};
  if (const auto deadline = o.deadline()) options.barrier_deadline = *deadline;
  return options;
}

void run_plan(const RunOptions& o, Context& context, const LauncherRank& launched) {
  if (o.backend == "mpi" || launched.size > 1) return run_processes(o, context, launched);
  require_one_process(o.host, o.remap, o.backend);
  if (o.backend == "inproc") return run_threads(o, launched, context);
  run_gpu_threads(o, launched, context);
}

}  // namespace topomoe::cli
