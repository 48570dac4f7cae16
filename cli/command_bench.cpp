// topomoe bench alltoall: the exchange of chosen schedules, side by side, on ranks.
//
// inproc: ranks are threads of this process. mpi: this process is one rank of mpirun's; ranks of one host name are
// one host.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <memory>

#include "cli/bench_contest.hpp"
#include "cli/commands.hpp"
#include "cli/files.hpp"
#include "cli/last_words.hpp"
#include "cli/numbers.hpp"
#include "runtime/bench.hpp"
#include "runtime/host_exchange.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/communicator_mpi.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {
namespace {

struct Options : ContestOptions {
  std::string backend = "inproc", bytes = "1M", token_bytes;
  int ranks = 0, per_host = 0, tp = 1, ep = 0, etp = 0, top_k = 2, experts = 0, warmup = 1, repeat = 5;
  bool edp_inner = false;
  double skew = 0, rate_GBps = 0;
  std::uint64_t seed = 1;
};

// A row of a usual model; smaller where messages would be of so few tokens that their number is chance.
constexpr double kTokenBytes = 4096;
constexpr double kTokensWanted = 1024;

std::int64_t hidden_for(const Options& o, double bytes) {
  double token = kTokenBytes;
  if (o.token_bytes.empty())
    while (token > 4 && bytes / (token * o.top_k) < kTokensWanted) token /= 2;
  else
    token = bytes_from(o.token_bytes, "--token-bytes");
  if (token < 4 || token > 1e8 || token != 4 * static_cast<double>(static_cast<std::int64_t>(token / 4)))
    throw InvalidInput("--token-bytes", o.token_bytes, "a multiple of 4, an fp32 each");
  return static_cast<std::int64_t>(token / 4);
}

ExchangeBench bench_for(const Options& o, int world, int per_host) {
  ExchangeBench b;
  const int etp = o.etp > 0 ? o.etp : o.tp;
  const int ep = o.ep > 0 ? o.ep : std::max(1, world / etp);
  b.layout = make_layout(world, o.tp, 1, 1, etp, ep, o.edp_inner ? ExpertOrder::edp_inner : ExpertOrder::ep_inner);
  b.ranks_per_host = per_host;
  // ffn is no part of an exchange, and only must be divisible.
  b.shape = {.ffn = etp, .experts = o.experts > 0 ? o.experts : std::max(8, ep), .top_k = o.top_k};
  check(b.layout, b.shape.experts);
  if (o.top_k > b.shape.experts)
    throw InvalidInput("--top-k", std::to_string(o.top_k),
                       "at most the " + std::to_string(b.shape.experts) + " experts");
  const double bytes = bytes_from(o.bytes, "--bytes");
  b.shape.hidden = hidden_for(o, bytes);
  const double tokens = bytes / (4.0 * static_cast<double>(b.shape.hidden) * o.top_k);
  if (tokens < o.tp || tokens > 1e8)
    throw InvalidInput("--bytes", o.bytes,
                       fmt::format("{} tokens of {} bytes for {} experts each: at least one for each TP rank, at most "
                                   "1e8; see --token-bytes",
                                   tokens, 4 * b.shape.hidden, o.top_k));
  b.tokens = static_cast<std::int64_t>(tokens);
  if (o.skew > 0) b.routing = zipf_routing(o.skew);
  b.seed = o.seed, b.warmup = o.warmup, b.repeat = o.repeat, b.nic_payload_GBps = o.rate_GBps;
  return b;
}

// As nccl-tests prints: bandwidth is of a rank's whole buffer over the median time.
std::string text_of(const std::vector<ExchangeRow>& rows) {
  std::string out = fmt::format("# {} ranks on {} hosts; time of the slowest rank, median of {}\n", rows[0].ranks,
                                rows[0].hosts, rows[0].times_us.size());
  out += fmt::format("#{:>11} {:>22} {:>6} {:>12} {:>12} {:>12} {:>8} {:>13} {:>13} {:>12} {:>7} {:>12}\n", "size",
                     "algorithm", "chunks", "time", "min", "max", "algbw", "inter", "intra", "bound", "/bound",
                     "predicted");
  out += fmt::format("#{:>11} {:>22} {:>6} {:>12} {:>12} {:>12} {:>8} {:>13} {:>13} {:>12} {:>7} {:>12}\n", "(B)", "",
                     "", "(us)", "(us)", "(us)", "(GB/s)", "(B)", "(B)", "(us)", "", "(us)");
  for (const ExchangeRow& r : rows) {
    const auto [low, high] = std::minmax_element(r.times_us.begin(), r.times_us.end());
    const double time = median(r.times_us);
    out += fmt::format("{:>12.0f} {:>22} {:>6} {:>12.1f} {:>12.1f} {:>12.1f} {:>8.3f} {:>13.0f} {:>13.0f}",
                       r.bytes_per_rank, r.algorithm, r.chunks, time, *low, *high, r.bytes_per_rank / time * 1e-3,
                       r.inter_bytes, r.intra_bytes);
    out += r.bound_us && *r.bound_us > 0 ? fmt::format(" {:>12.1f} {:>7.3f}", *r.bound_us, time / *r.bound_us)
                                         : fmt::format(" {:>12} {:>7}", "-", "-");
    out += r.predicted_us ? fmt::format(" {:>12.1f}{}\n", *r.predicted_us, r.picked == true ? " picked" : "")
                          : fmt::format(" {:>12}\n", "-");
  }
  return out;
}

void deliver(const Context& context, const Contest& contest, std::vector<ExchangeRow>& rows) {
  for (std::size_t i = 0; i < contest.predicted_us.size(); ++i)
    rows[i].predicted_us = contest.predicted_us[i], rows[i].picked = i == contest.picked;
  print(context.format == Format::json ? rows_json(rows) : text_of(rows));
  for (const ExchangeRow& r : rows)
    if (r.bytes_agree == false)
      throw Failure("bytes: " + r.algorithm + " handed other bytes to the transport than were drawn; please report it");
}

// Ranks of a host, by its name: all hosts must have as many, and theirs in a row.
int ranks_of_a_host(Communicator& c) {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  const auto mine = static_cast<double>(std::hash<std::string>()(name) >> 12);  // exact in a double
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

void over_threads(const Options& o, const Context& context) {
  const int etp = o.etp > 0 ? o.etp : o.tp;
  const int world = o.ranks > 0 ? o.ranks : std::max(etp * std::max(1, o.ep), o.tp);
  if (world > kMostThreads)
    throw InvalidInput("--ranks", std::to_string(world),
                       "inproc runs at most " + std::to_string(kMostThreads) + "; use --backend mpi");
  const ExchangeBench bench = bench_for(o, world, o.per_host > 0 ? o.per_host : world);
  const Contest contest = contest_for(o, bench, context.silent);
  std::optional<std::vector<ExchangeRow>> rows;
  run_inproc(world, [&](Communicator& c) {
    if (auto mine = bench_exchange(contest.schedules, bench, c, *make_cpu_device())) rows = std::move(mine);
  });
  deliver(context, contest, *rows);
}

void as_rank(const Options& o, Context& context) {
  const auto mpi = make_mpi_communicator(nullptr, {.black_box = &black_box()});
  context.silent = mpi->rank() != 0;
  if (o.ranks > 0 && o.ranks != mpi->size())
    throw InvalidInput("--ranks", std::to_string(o.ranks), "mpirun started " + std::to_string(mpi->size()));
  const ExchangeBench bench = bench_for(o, mpi->size(), o.per_host > 0 ? o.per_host : ranks_of_a_host(*mpi));
  const Contest contest = contest_for(o, bench, context.silent);
  std::optional<std::vector<ExchangeRow>> rows;
  try {
    rows = bench_exchange(contest.schedules, bench, *mpi, *make_cpu_device());
  } catch (const InvalidInput&) {
    throw;  // alike on all ranks
  } catch (const std::exception& e) {
    give_up(*mpi, e);
  }
  if (rows) deliver(context, contest, *rows);
}

}  // namespace

void add_bench_command(CLI::App& app, Context& context) {
  CLI::App* bench = app.add_subcommand("bench", "Time schedules on ranks, side by side");
  bench->require_subcommand(1);
  CLI::App* command = bench->add_subcommand("alltoall", "The way from packed rows to the experts' ranks");
  auto o = std::make_shared<Options>();
  command->add_option("--backend", o->backend, "Ranks are threads (default) or mpirun's processes")
      ->check(CLI::IsMember({"inproc", "mpi"}))
      ->option_text("inproc|mpi");
  const auto count = [&](const char* flag, int& value, const char* text, std::int64_t low = 1) {
    command->add_option(flag, value, text)->check(whole_number(flag, low, 1'000'000))->option_text("N");
  };
  count("--ranks", o->ranks, "Of inproc; default as few as the layout needs");
  count("--per-host", o->per_host, "Ranks of a host; default by its name, inproc: all are one host");
  count("--tp", o->tp, "Tensor parallel size, default 1");
  count("--ep", o->ep, "Expert parallel size, default all that --etp leaves");
  count("--etp", o->etp, "Shards of an expert, default --tp");
  command->add_flag("--edp-inner", o->edp_inner, "Stride EP groups over hosts instead of packing them");
  command->add_option("--split", o->split, "Default sliced")
      ->delimiter(',')
      ->check(CLI::IsMember({"replicated", "sliced"}))
      ->option_text("replicated,sliced");
  command->add_option("--transport", o->transport, "Default flat")->delimiter(',')->option_text("flat,two_level,...");
  command->add_option("--chunks", o->chunks, "Default 1")
      ->delimiter(',')
      ->check(whole_number("--chunks", 1, 4096))
      ->option_text("1,4,8");
  command
      ->add_option("--variants", o->variants,
                   "These, not --split with --transport with --chunks; all: all that apply; auto: without those that "
                   "cannot win by --cluster, in fewer numbers of chunks")
      ->delimiter(',')
      ->option_text("sliced:flat:4,...|auto|all");
  command->add_option("--cluster", o->cluster, "What we run on, for predictions and the planner's pick")
      ->option_text("FILE");
  command->add_option("--calibration", o->calibrations, "topomoe.calibration/1, beside the built-in ones (repeatable)")
      ->option_text("FILE")
      ->needs("--cluster");
  command->add_option("--bytes", o->bytes, "Of a rank before slicing: tokens x top-k x token, default 1M")
      ->option_text("SIZE");
  command->add_option("--token-bytes", o->token_bytes, "Default 4096, less where few tokens would be left")
      ->option_text("SIZE");
  count("--top-k", o->top_k, "Experts of a token, default 2");
  count("--experts", o->experts, "Default 8, or one a rank of --ep");
  command->add_option("--skew", o->skew, "Zipf exponent of the routing, default 0: uniform")
      ->check(CLI::Range(0.0, kMostZipf))
      ->option_text("S");
  count("--repeat", o->repeat, "Timed rounds, default 5");
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

}  // namespace topomoe::cli
