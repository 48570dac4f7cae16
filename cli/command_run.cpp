// topomoe run plan.json: the plan's MoE layer on ranks, verified, predicted against measured.
//
// inproc: ranks are threads of this process. mpi: this process is one rank of mpirun's. nccl: a GPU a rank, as
// threads on one host, or as mpirun's processes on several.

#include <unistd.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <optional>

#include "cli/calibrations.hpp"
#include "cli/files.hpp"
#include "cli/last_words.hpp"
#include "cli/numbers.hpp"
#include "cli/run_report.hpp"
#include "planner/rates/machine_figures.hpp"
#include "runtime/drift.hpp"
#include "runtime/host_exchange.hpp"
#include "runtime/trace.hpp"
#include "topology/read_file.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/communicator_mpi.hpp"
#include "topomoe/communicator_nccl.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/device_cuda.hpp"
#include "topomoe/error.hpp"
#include "topomoe/launcher_env.hpp"
#include "topomoe/topology.hpp"

namespace topomoe::cli {
namespace {

struct Options {
  std::string plan, backend = "inproc", cluster, shrink = "auto", trace, profile;
  std::vector<std::string> calibrations;
  bool verify = false;
  int repeat = 1, deadline_s = 0, kind = 0;
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

void check_executable(const Plan& plan) {
  if (!plan.model.gated_ffn)
    throw Failure("model: " + plan.model.name +
                  " has experts without a gate: only SwiGLU experts are executed; the plan itself is usable");
}

// Chosen sizes take a quarter of what is free, and at most the default: the same run on every machine that is large
// enough. Sizes that a user insists on may take most of it.
Budget budget_for(double free_bytes) {
  Budget budget;
  budget.memory_bytes = std::min(budget.memory_bytes, 0.25 * free_bytes);
  budget.memory_limit_bytes = 0.8 * free_bytes;
  return budget;
}

double free_bytes_here() {
  const long pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? static_cast<double>(pages) * static_cast<double>(page) : 4.0 * (1 << 30);
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
    const auto device = make_cpu_device();
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
    double least = free_bytes_here();
    for (const auto& one :
         HostExchange(c, deadline_of(o).value_or(std::chrono::minutes(10))).gather_on_all("agree on memory", {least}))
      least = std::min(least, one[0]);
    request = request_for(plan, o, budget_for(least));
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
};

Loaded load(const Options& o) {
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
  if (o.cluster.empty() && o.backend == "nccl") check_fingerprint(out.plan, discover_live(), "this machine");
  return out;
}

void require_ranks(const Plan& plan, const Options& o, int ranks) {
  const std::string world = std::to_string(plan.layout.world);
  if (ranks != plan.layout.world)
    throw InvalidInput("ranks", std::to_string(ranks),
                       "the plan has " + world + "; launch it as: mpirun --oversubscribe -n " + world +
                           " topomoe run " + o.plan + " --backend " + o.backend);
}

// Reads the inputs as one of several ranks. Where some rank cannot, all say so and none waits for it; only the
// first of those that fail speaks.
Loaded load_together(const Options& o, Context& context, Communicator& c) {
  HostExchange host(c, deadline_of(o).value_or(std::chrono::minutes(10)));
  std::optional<Loaded> mine;
  std::exception_ptr failure;
  try {
    mine = load(o);
    require_ranks(mine->plan, o, c.size());
  } catch (...) {
    failure = std::current_exception();
  }
  const auto failed = host.gather_on_all("read the plan", {failure ? 1.0 : 0.0});
  const auto first = std::find_if(failed.begin(), failed.end(), [](const auto& f) { return f[0] != 0; });
  if (first == failed.end()) return std::move(*mine);
  context.silent = first - failed.begin() != c.rank();
  if (failure) std::rethrow_exception(failure);
  throw InvalidInput("plan", "unreadable on another rank", "give all ranks the same files");
}

void run_gpu_threads(const Options& o, const Context& context) {
  const Loaded loaded = load(o);
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
    const Loaded loaded = load(o);
    run_threads(loaded.plan, o, context, loaded.info);
    return;
  }
  if (o.backend == "nccl" && launched.size == 1) {
    run_gpu_threads(o, context);
    return;
  }
  const auto mpi = make_mpi_communicator(nullptr, mpi_options(o));
  context.silent = mpi->rank() != 0;
  try {
    const Loaded loaded = load_together(o, context, *mpi);
    if (o.backend == "mpi")
      run_as_rank(loaded.plan, o, context, loaded.info, *mpi, *mpi, *make_cpu_device());
    else
      run_gpu_rank(loaded, o, context, launched, *mpi);
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
  command->add_option("--deadline", o->deadline_s, "Give up on another rank after so long, default 120")
      ->check(whole_number("--deadline", 1, 86400))
      ->option_text("SECONDS");
  add_format_option(*command, context);
  command->callback([o, &context] {
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
