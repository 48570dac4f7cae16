// topomoe bench alltoall, moe-layer: chosen schedules side by side on ranks, their exchange or the whole layer.
//
// inproc: ranks are threads of this process. mpi: this process is one rank of mpirun's; ranks of one host name are
// one host.

#include <unistd.h>

#include <functional>
#include <memory>
#include <optional>

#include "cli/bench_case.hpp"
#include "cli/commands.hpp"
#include "cli/files.hpp"
#include "cli/last_words.hpp"
#include "cli/numbers.hpp"
#include "cli/placement.hpp"
#include "cli/run_size.hpp"
#include "cli/together.hpp"
#include "runtime/host_exchange.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/communicator_mpi.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {
namespace {

void deliver(const Context& context, const Contest& contest, std::vector<BenchRow>& rows) {
  std::size_t row = 0;
  for (std::size_t i = 0; i < contest.predicted_us.size(); ++i)
    for (const double us : contest.predicted_us[i])
      rows[row].predicted_us = us, rows[row].picked = i == contest.picked, ++row;
  print(context.format == Format::json ? rows_json(rows) : rows_table(rows));
  for (const BenchRow& r : rows)
    if (r.bytes_agree == false)
      throw Failure("bytes: " + r.algorithm + " handed other bytes to the transport than were drawn; please report it");
}

// Ranks of a host, by its name: all hosts must have as many, and theirs in a row.
int ranks_of_a_host(Communicator& c, const std::string& called) {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  const std::string host = called.empty() ? name : called;
  const auto mine = static_cast<double>(std::hash<std::string>()(host) >> 12);  // exact in a double
  const auto all = HostExchange(c).gather_on_all("names of hosts", {mine});
  const auto same = [&](int a, int b) { return all[static_cast<std::size_t>(a)] == all[static_cast<std::size_t>(b)]; };
  int per_host = 1;
  while (per_host < c.size() && same(per_host, 0)) ++per_host;
  bool even = c.size() % per_host == 0;
  for (int r = 0; even && r < c.size(); ++r)
    even = same(r, r / per_host * per_host) && (r < per_host || !same(r, r - per_host));
  if (!even)
    throw InvalidInput("--per-host", "not given",
                       "hosts have unequally many ranks, or not in a row: say how many, or "
                       "launch with --map-by slot");
  return per_host;
}

std::optional<std::vector<BenchRow>> bench(const BenchOptions& o, const Contest& contest, const BenchCase& bench,
                                           Communicator& c) {
  const auto device = make_cpu_device({}, {.threads = o.threads});
  return o.layer ? bench_layer(contest.schedules, bench, c, *device)
                 : bench_exchange(contest.schedules, bench, c, *device);
}

void over_threads(const BenchOptions& o, const Context& context) {
  require_one_process(o.host, o.remap, o.backend);
  const std::optional<Plan> plan = o.plan.empty() ? std::nullopt : std::optional(plan_of(o));
  const int world = plan ? plan->layout.world : ranks_of(o);
  if (world > kMostThreads)
    throw InvalidInput(plan ? "--plan" : "--ranks", std::to_string(world),
                       "inproc runs at most " + std::to_string(kMostThreads) + "; use --backend mpi");
  const BenchCase of =
      plan ? case_of(o, *plan, budget_for(free_bytes_here())) : case_of(o, world, o.per_host > 0 ? o.per_host : world);
  const Contest contest = contest_for(o, of, plan ? std::optional(plan->schedule) : std::nullopt, context.silent);
  std::optional<std::vector<BenchRow>> rows;
  run_inproc(world, [&](Communicator& c) {
    if (auto mine = bench(o, contest, of, c)) rows = std::move(mine);
  });
  deliver(context, contest, *rows);
}

constexpr auto kStart = std::chrono::minutes(1);  // for ranks to read, and to tell each other what they have

void as_rank(const BenchOptions& o, Context& context) {
  const MpiOptions options{.black_box = &black_box()};
  auto mpi = make_mpi_communicator(nullptr, options);
  context.silent = mpi->rank() != 0;
  std::optional<Contest> contest;
  std::optional<std::vector<BenchRow>> rows;
  try {
    std::optional<Plan> plan;
    if (!o.plan.empty()) plan = read_together(*mpi, kStart, context, [&] { return plan_of(o); });
    const int world = plan ? plan->layout.world : o.ranks;
    if (world > 0 && world != mpi->size())
      throw InvalidInput(plan ? "--plan" : "--ranks", std::to_string(world),
                         "mpirun started " + std::to_string(mpi->size()));
    if (plan)
      (void)place_ranks(*plan, {.host = o.host, .remap = o.remap, .rehearsal = o.cluster.empty()}, options, mpi,
                        context);
    const BenchCase of = plan ? case_of(o, *plan, budget_for(least_free_bytes(*mpi, kStart)))
                              : case_of(o, mpi->size(), o.per_host > 0 ? o.per_host : ranks_of_a_host(*mpi, o.host));
    contest = read_together(*mpi, kStart, context, [&] {
      return contest_for(o, of, plan ? std::optional(plan->schedule) : std::nullopt, context.silent);
    });
    rows = bench(o, *contest, of, *mpi);
  } catch (const InvalidInput&) {
    throw;  // alike on all ranks
  } catch (const Failure&) {
    throw;  // likewise
  } catch (const std::exception& e) {
    if (mpi) give_up(*mpi, e);
    throw;
  }
  if (rows) deliver(context, *contest, *rows);
}

void add_layer_options(CLI::App& command, BenchOptions& o, std::vector<CLI::Option*>& of_plan) {
  of_plan.push_back(command.add_option("--ffn", o.ffn, "Width of an expert, default that of a token")
                        ->check(whole_number("--ffn", 1, 1'000'000))
                        ->option_text("N"));
  of_plan.push_back(command.add_option("--dtype", o.dtype, "Default f32")
                        ->check(CLI::IsMember({"f32", "bf16"}))
                        ->option_text("f32|bf16"));
  of_plan.push_back(
      command.add_option("--dispatch-dtype", o.dispatch_dtype, "Of tokens on their way out, default as_job")
          ->check(CLI::IsMember({"as_job", "fp8"}))
          ->option_text("as_job|fp8"));
  command.add_flag("--forward-only", o.forward_only, "As in inference");
  command.add_option("--rate-TFLOPps", o.rate_TFLOPps, "Peak of a rank in --dtype, for the bound")
      ->check(positive_number("--rate-TFLOPps", 1e6))
      ->option_text("X");
  CLI::Option* const plan = command
                                .add_option("--plan", o.plan,
                                            "Layout, sizes, routing and schedule of a plan.json; beside it what "
                                            "--variants, --split, --transport and --chunks ask for")
                                ->option_text("FILE");
  for (CLI::Option* option : of_plan) plan->excludes(option);
  command.add_option("--kind", o.kind, "Which kind of MoE layer of the plan, where they differ; default 0")
      ->check(whole_number("--kind", 0, kMaxMoeKinds - 1))
      ->option_text("K")
      ->needs(plan);
  command.add_option("--shrink", o.shrink, "Scale the plan's tensors down (default auto: until they fit)")
      ->option_text("auto|none|hidden=N,ffn=N,tokens=N")
      ->needs(plan);
  command.add_flag("--remap", o.remap, "Re-order mpirun's ranks so that they are where the plan has them")->needs(plan);
}

void add_operation(CLI::App& parent, Context& context, bool layer) {
  CLI::App* command =
      layer ? parent.add_subcommand("moe-layer", "Router, dispatch, experts and combine, forward and backward")
            : parent.add_subcommand("alltoall", "The way from packed rows to the experts' ranks");
  auto o = std::make_shared<BenchOptions>();
  o->layer = layer;
  command->add_option("--backend", o->backend, "Ranks are threads (default) or mpirun's processes")
      ->check(CLI::IsMember({"inproc", "mpi"}))
      ->option_text("inproc|mpi");
  const auto count = [&](const char* flag, int& value, const char* text, std::int64_t low = 1) {
    return command->add_option(flag, value, text)->check(whole_number(flag, low, 1'000'000))->option_text("N");
  };
  std::vector<CLI::Option*> of_plan;  // what a plan says instead
  of_plan.push_back(count("--ranks", o->ranks, "Of inproc; default as few as the layout needs"));
  CLI::Option* const per_host =
      count("--per-host", o->per_host, "Ranks of a host; default by its name, inproc: all are one host");
  of_plan.push_back(per_host);
  of_plan.push_back(count("--tp", o->tp, "Tensor parallel size, default 1"));
  of_plan.push_back(count("--ep", o->ep, "Expert parallel size, default all that --etp leaves"));
  of_plan.push_back(count("--etp", o->etp, "Shards of an expert, default --tp"));
  of_plan.push_back(
      command->add_flag("--edp-inner", o->edp_inner, "Stride EP groups over hosts instead of packing them")
          ->option_text(" "));
  command->add_option("--host", o->host, "What this rank's host is called, default its host name")
      ->option_text("NAME")
      ->excludes(per_host);
  const std::string else_of_plan = layer ? "; with --plan the plan's" : "";
  command->add_option("--split", o->split, "Default sliced" + else_of_plan)
      ->delimiter(',')
      ->check(CLI::IsMember({"replicated", "sliced"}))
      ->option_text("replicated,sliced");
  command->add_option("--transport", o->transport, "Default flat" + else_of_plan)
      ->delimiter(',')
      ->option_text("flat,two_level,...");
  command->add_option("--chunks", o->chunks, "Default 1" + else_of_plan)
      ->delimiter(',')
      ->check(whole_number("--chunks", 1, 4096))
      ->option_text("1,4,8");
  command
      ->add_option("--variants", o->variants,
                   "These; all: all that apply of --split, --transport and --chunks, where given; auto: of them "
                   "without those that cannot win by --cluster, in fewer numbers of chunks")
      ->delimiter(',')
      ->option_text("sliced:flat:4,...|auto|all");
  command->add_option("--cluster", o->cluster, "What we run on, for predictions and the planner's pick")
      ->option_text("FILE");
  command->add_option("--calibration", o->calibrations, "topomoe.calibration/1, beside the built-in ones (repeatable)")
      ->option_text("FILE")
      ->needs("--cluster");
  of_plan.push_back(
      command->add_option("--bytes", o->bytes, "Of a rank before slicing: tokens x top-k x token, default 1M")
          ->option_text("SIZE"));
  of_plan.push_back(
      command->add_option("--token-bytes", o->token_bytes, "Default 4096, less where few tokens would be left")
          ->option_text("SIZE"));
  of_plan.push_back(count("--top-k", o->top_k, "Experts of a token, default 2"));
  of_plan.push_back(count("--experts", o->experts, "Default 8, or one a rank of --ep"));
  of_plan.push_back(command->add_option("--skew", o->skew, "Zipf exponent of the routing, default 0: uniform")
                        ->check(number_up_to("--skew", kMostZipf))
                        ->option_text("S"));
  if (layer) add_layer_options(*command, *o, of_plan);
  count("--repeat", o->repeat, "Timed rounds, default 5");
  add_threads_option(*command, o->threads);
  count("--warmup", o->warmup, "Rounds before them, default 1", 0);
  command->add_option("--seed", o->seed, "Of the routing, default 1")
      ->check(whole_number("--seed", 0, std::numeric_limits<std::int64_t>::max()))
      ->option_text("N");
  command->add_option("--rate-GBps", o->rate_GBps, "Payload rate of a host's NIC, for the bound")
      ->check(positive_number("--rate-GBps", 1e5))
      ->option_text("X");
  add_format_option(*command, context);
  command->callback([o, &context] {
    if (o->backend == "inproc") {
      over_threads(*o, context);
      return;
    }
    const auto session = start_mpi({.black_box = &black_box()});
    as_rank(*o, context);
  });
}

}  // namespace

void add_bench_command(CLI::App& app, Context& context) {
  CLI::App* bench = app.add_subcommand("bench", "Time schedules on ranks, side by side");
  bench->require_subcommand(1);
  for (const bool layer : {false, true}) add_operation(*bench, context, layer);
}

}  // namespace topomoe::cli
