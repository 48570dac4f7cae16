// topomoe run plan.json: the plan's MoE layer on ranks, verified, predicted against measured.
//
// inproc: ranks are threads of this process. mpi: this process is one rank of mpirun's. nccl: a GPU a rank, as
// threads on one host, or as mpirun's processes on several.

#include <algorithm>
#include <memory>
#include <mutex>
#include <optional>

#include "cli/calibrations.hpp"
#include "cli/files.hpp"
#include "cli/last_words.hpp"
#include "cli/numbers.hpp"
#include "cli/run_report.hpp"
#include "cli/run_size.hpp"
#include "cli/together.hpp"
#include "planner/rates/machine_figures.hpp"
#include "runtime/drift.hpp"
#include "runtime/trace.hpp"
#include "topology/read_file.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/communicator_mpi.hpp"
#include "topomoe/communicator_nccl.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/device_cuda.hpp"
#include "topomoe/error.hpp"
#include "topomoe/launcher_env.hpp"
#include "topomoe/rank_check.hpp"
#include "topomoe/topology.hpp"

namespace topomoe::cli {
namespace {

constexpr const char* kNowhereElse = "ranks of one process are nowhere else: use --backend mpi, or mpirun with nccl";

struct Options {
  std::string plan, backend = "inproc", cluster, shrink = "auto", trace, profile;
  std::vector<std::string> calibrations;
  std::string host;  // what this rank's machine is called
  bool verify = false, remap = false;
  int repeat = 1, deadline_s = 0, kind = 0, threads = 1;
  std::uint64_t seed = 1;
};

// The plan's cluster and the one at hand must be the same. Returns as much of it as the plan uses.
Topology check_fingerprint(const Plan& plan, const Topology& topology, const std::string& where) {
  Topology sized =
      topology.gpu_count() == plan.topology.gpus ? topology : resize_hosts(topology, plan.topology.gpus, nullptr);
  const std::string here = fingerprint(sized);
  if (here != plan.topology.fingerprint)
    throw Failure("fingerprint of " + where + ": " + here + ", but the plan was made for " + plan.topology.fingerprint +
                  " (" + plan.topology.name + "): plan again for this cluster, or leave --cluster out to rehearse");
  return sized;
}

std::optional<std::chrono::seconds> deadline_of(const Options& o) {
  return o.deadline_s > 0 ? std::optional(std::chrono::seconds(o.deadline_s)) : std::nullopt;
}

RehearsalRequest request_for(const Plan& plan, const Options& o, Budget budget) {
  SizeRequest size = size_request_from(o.shrink, "--shrink");
  return {.size = choose_size(plan, size, budget),
          .seed = o.seed,
          .repeat = o.repeat,
          .verify = o.verify,
          .deadline = deadline_of(o)};
}

void announce(const RunInfo& info) {
  if (info.rehearsal) say("note: no --cluster: this is a rehearsal on this machine, not on the plan's cluster");
  for (const std::string& what : info.skipped) say("note: not executed in this run: " + what);
}

Calibration online_profile(const Plan& plan, const Options& o, const RunInfo& info, const RehearsalReport& report) {
  const RankGroups groups(plan.layout, info.cluster->gpus_per_node());
  return {.name = info.cluster->name.empty() ? o.cluster : info.cluster->name,
          .source = "topomoe run --backend " + o.backend + " --profile-out: steps of " + plan.schedule.name,
          .machine = machine_figures(*info.cluster),
          .curves = curves_of(plan.schedule, groups, report.ranks)};
}

void deliver(const Plan& plan, const Options& o, const Context& context, RunInfo info, const RehearsalRequest& request,
             const RehearsalReport& report) {
  OutputFiles files;
  if (info.cluster && !o.calibrations.empty())
    info.here = predict_run(plan, request.size, *info.cluster, calibrations_for(o.calibrations, *info.cluster));
  if (!o.profile.empty())
    files.add("--profile-out", o.profile, write_calibration(online_profile(plan, o, info, report)));
  if (!o.trace.empty()) files.add("--trace", o.trace, write_trace(plan, report));
  const std::string text = context.format == Format::json ? report_json(plan, info, request, report)
                                                          : report_text(plan, info, request, report);
  files.commit();
  print(text);
  if (!report.bytes_agree())
    throw Failure("bytes: predicted and measured differ: see the table; please report it with the plan");
  if (!report.values_agree()) throw Failure("values: beyond the bound: see the table; please report it with the plan");
}

void run_threads(const Plan& plan, const Options& o, const Context& context, RunInfo info) {
  const int world = plan.layout.world;
  if (world > kMostThreads)
    throw InvalidInput("ranks", std::to_string(world),
                       "inproc runs at most " + std::to_string(kMostThreads) + "; plan with --gpus " +
                           std::to_string(kMostThreads) + " or fewer, or use --backend mpi");
  const RehearsalRequest request = request_for(plan, o, budget_for(free_bytes_here()));
  info.device = make_cpu_device()->name();
  announce(info);
  std::optional<RehearsalReport> report;
  run_inproc(world, [&](Communicator& c) {
    const auto device = make_cpu_device({}, {.threads = o.threads});
    if (auto mine = rehearse(plan, request, c, *device)) report = std::move(mine);
  });
  deliver(plan, o, context, info, request, *report);
}

// The rest of a run once this process is a rank of `job`; `c` is what the layer runs on.
void run_as_rank(const Plan& plan, const Options& o, const Context& context, RunInfo info, Communicator& job,
                 Communicator& c, Device& device) {
  std::optional<RehearsalReport> report;
  RehearsalRequest request;
  try {
    request = request_for(plan, o, budget_for(least_free_bytes(c, deadline_of(o).value_or(std::chrono::minutes(10)))));
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

struct Loaded {
  Plan plan;
  RunInfo info;
  std::string bus_id;  // of this rank's device, where it is one of several
};

// As the launcher numbers this host's ranks, so do devices lie on its bus.
std::string bus_id_of(const LauncherRank& launched, const Topology& live) {
  const int gpu = launched.local_rank;
  return gpu >= 0 && gpu < live.gpu_count() ? live.bus_id(gpu) : "";
}

Loaded load(const Options& o, const LauncherRank& launched) {
  Loaded out;
  const Plan whole = read_plan(read_text_file(o.plan), o.plan);
  out.plan = plan_of_kind(whole, o.kind);
  out.info.backend = o.backend, out.info.skipped = unexecuted(out.plan),
  out.info.rehearsal = o.cluster.empty() && o.backend != "nccl";
  check_executable(out.plan);
  for (int kind = 0; kind < moe_kind_count(whole.model); ++kind)
    if (kind != o.kind)
      out.info.skipped.push_back(kind_name(whole.model, kind) + ": --kind " + std::to_string(kind) + " runs it");
  if (!o.cluster.empty()) out.info.cluster = check_fingerprint(out.plan, read_topology_file(o.cluster), o.cluster);
  if (o.backend == "nccl") {
    const Topology live = discover_live();
    if (o.cluster.empty()) check_fingerprint(out.plan, live, "this machine");
    out.bus_id = bus_id_of(launched, live);
  }
  return out;
}

void require_ranks(const Plan& plan, const Options& o, int ranks) {
  const std::string world = std::to_string(plan.layout.world);
  if (ranks != plan.layout.world)
    throw InvalidInput("ranks", std::to_string(ranks),
                       "the plan has " + world + "; launch it as: mpirun --oversubscribe -n " + world +
                           " topomoe run " + o.plan + " --backend " + o.backend);
}

Loaded load_together(const Options& o, const LauncherRank& launched, Context& context, Communicator& c) {
  return read_together(c, deadline_of(o).value_or(std::chrono::minutes(10)), context, [&] {
    Loaded mine = load(o, launched);
    require_ranks(mine.plan, o, c.size());
    return mine;
  });
}

// Beyond so many, the rest is counted.
constexpr std::size_t kMismatchesSaid = 8;

void say_mismatches(const RankCheck& check, const std::string& how) {
  for (std::size_t i = 0; i < std::min(check.mismatches.size(), kMismatchesSaid); ++i)
    say(how + ": " + check.mismatches[i]);
  if (check.mismatches.size() > kMismatchesSaid)
    say(how + ": and " + std::to_string(check.mismatches.size() - kMismatchesSaid) + " more");
}

// Compares where the ranks are with where the plan has them; rank 0 says what differs. Returns what this rank is to be
// called, below 0 where it stays as it is. A rehearsal on other hosts than the plan's has no right places.
int place(Loaded& loaded, const Options& o, Communicator& c) {
  const RankCheck check = check_ranks(loaded.plan, c, loaded.bus_id, o.host);
  const bool speaks = c.rank() == 0, fits = !check.order.empty();
  if (check.plans_differ) {
    if (speaks) say_mismatches(check, "warning");
    throw InvalidInput("plan", "not the same on all ranks", "give all ranks the same file");
  }
  for (const RankPlace& rank : check.ranks) loaded.info.hosts.push_back(rank.host);
  loaded.info.mismatches = check.mismatches;
  if (check.mismatches.empty()) return -1;
  if (o.remap && !fits) throw Failure("--remap: " + check.mismatches.back());
  if (o.remap) {
    if (speaks) say_mismatches(check, "note");
    if (speaks) say("note: ranks are re-ordered to where the plan has them");
    loaded.info.remapped = true;
    return check.planned_rank(c.rank());
  }
  if (speaks && !loaded.info.rehearsal) say_mismatches(check, "warning");
  if (speaks && loaded.info.rehearsal && fits)
    say("note: ranks are not where the plan has them: " + check.mismatches[0]);
  if (speaks && fits) say("note: --remap re-orders the ranks so that they are");
  return -1;
}

void require_in_place(Loaded& loaded, const Options& o, Communicator& c) {
  const RankCheck check = check_ranks(loaded.plan, c, loaded.bus_id, o.host);
  loaded.info.hosts.clear();
  for (const RankPlace& rank : check.ranks) loaded.info.hosts.push_back(rank.host);
  if (!check.mismatches.empty()) throw Failure("--remap: " + check.mismatches[0] + ", in the order that was to fit");
}

void run_gpu_threads(const Options& o, const LauncherRank& launched, const Context& context) {
  const Loaded loaded = load(o, launched);
  const Plan& plan = loaded.plan;
  const RehearsalRequest request = request_for(plan, o, budget_for(free_bytes_here()));
  RunInfo info = loaded.info;
  info.device = make_cuda_device(plan.layout.world - 1)->name();  // throws unless there is a GPU for every rank
  announce(info);
  std::optional<RehearsalReport> report;
  run_inproc(plan.layout.world, [&](Communicator& rendezvous) {
    const auto device = make_cuda_device(rendezvous.rank());
    const auto nccl = make_nccl_communicator(*device, rendezvous.rank(), rendezvous.size(), broadcast_over(rendezvous));
    if (auto mine = rehearse(plan, request, *nccl, *device)) report = std::move(mine);
  });
  deliver(plan, o, context, info, request, *report);
}

void run_gpu_rank(const Loaded& loaded, const Options& o, const Context& context, const LauncherRank& launched,
                  Communicator& mpi) {
  try {
    const auto device = make_cuda_device(std::max(0, launched.local_rank));
    const auto nccl = make_nccl_communicator(*device, mpi.rank(), mpi.size(), broadcast_over(mpi));
    run_as_rank(loaded.plan, o, context, loaded.info, mpi, *nccl, *device);
  } catch (const MissingEnvironment& e) {
    give_up(mpi, e);  // the others may have what we lack
  }
}

MpiOptions mpi_options(const Options& o) {
  MpiOptions options{.black_box = &black_box()};
  if (const auto deadline = deadline_of(o)) options.barrier_deadline = *deadline;
  return options;
}

void run(const Options& o, Context& context, const LauncherRank& launched) {
  if (o.backend == "inproc") {
    const Loaded loaded = load(o, launched);
    run_threads(loaded.plan, o, context, loaded.info);
    return;
  }
  if (o.backend == "nccl" && launched.size == 1) {
    if (o.remap) throw InvalidInput("--remap", "one process", kNowhereElse);
    run_gpu_threads(o, launched, context);
    return;
  }
  MpiOptions options = mpi_options(o);
  auto mpi = make_mpi_communicator(nullptr, options);
  context.silent = mpi->rank() != 0;
  std::optional<Loaded> loaded;
  try {
    loaded = load_together(o, launched, context, *mpi);
    options.rank = place(*loaded, o, *mpi);
  } catch (const TransportError& e) {
    give_up(*mpi, e);
  }
  if (loaded->info.remapped) {
    mpi.reset();
    mpi = make_mpi_communicator(nullptr, options);
    context.silent = mpi->rank() != 0;
  }
  try {
    if (loaded->info.remapped) require_in_place(*loaded, o, *mpi);
    if (o.backend == "mpi")
      run_as_rank(loaded->plan, o, context, loaded->info, *mpi, *mpi, *make_cpu_device({}, {.threads = o.threads}));
    else
      run_gpu_rank(*loaded, o, context, launched, *mpi);
  } catch (const TransportError& e) {
    give_up(*mpi, e);
  }
}

// What MPI itself says is what counts for mpi: there a launcher's variables are for last words only.
LauncherRank launched_as(const Options& o) {
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
  auto o = std::make_shared<Options>();
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
  command->add_option("--repeat", o->repeat, "Run it so often, default 1")
      ->check(whole_number("--repeat", 1, 1000))
      ->option_text("N");
  command->add_option("--kind", o->kind, "Which kind of MoE layer, where they differ; default 0")
      ->check(whole_number("--kind", 0, kMaxMoeKinds - 1))
      ->option_text("K");
  command->add_option("--seed", o->seed, "Of weights and tokens, default 1")
      ->check(whole_number("--seed", 0, std::numeric_limits<std::int64_t>::max()))
      ->option_text("N");
  command
      ->add_option("--threads", o->threads, "Of each rank's kernels on CPUs, default 1; 0: all CPUs that it may run on")
      ->check(whole_number("--threads", 0, kMostKernelThreads))
      ->option_text("N");
  command->add_flag("--remap", o->remap, "Re-order mpirun's ranks so that they are where the plan has them");
  command->add_option("--host", o->host, "What this rank's host is called, default its host name")->option_text("NAME");
  command->add_option("--deadline", o->deadline_s, "Give up on another rank after so long, default 120")
      ->check(whole_number("--deadline", 1, 86400))
      ->option_text("SECONDS");
  add_format_option(*command, context);
  command->callback([o, &context] {
    if (o->threads != 1 && o->backend == "nccl")
      throw InvalidInput("--threads", std::to_string(o->threads), "kernels run on GPUs there");
    if (o->remap && o->backend == "inproc") throw InvalidInput("--remap", "inproc", kNowhereElse);
    // Read before MPI starts, which sets variables of its own.
    const LauncherRank launched = launched_as(*o);
    std::unique_ptr<MpiSession> session;
    if (o->backend == "mpi" || launched.size > 1) {
      prepare_last_words(launched.rank, launched.size, mpi_options(*o).barrier_deadline);
      session = std::make_unique<MpiSession>(mpi_options(*o));
      arm_last_words();
    }
    run(*o, context, launched);
  });
}

}  // namespace topomoe::cli
