#include "cli/placement.hpp"

#include <algorithm>

#include "cli/files.hpp"
#include "cli/last_words.hpp"
#include "topomoe/error.hpp"
#include "topomoe/launcher_env.hpp"
#include "topomoe/rank_check.hpp"

namespace topomoe::cli {
namespace {

// Beyond so many, the rest is counted.
constexpr std::size_t kMismatchesSaid = 8;

void say_mismatches(const RankCheck& check, const std::string& how) {
  for (std::size_t i = 0; i < std::min(check.mismatches.size(), kMismatchesSaid); ++i)
    say(how + ": " + check.mismatches[i]);
  if (check.mismatches.size() > kMismatchesSaid)
    say(how + ": and " + std::to_string(check.mismatches.size() - kMismatchesSaid) + " more");
}

RankCheck compare(const Plan& plan, const PlacementOptions& o, Communicator& mpi) {
  try {
    return check_ranks(plan, mpi, o.bus_id, o.host);
  } catch (const TransportError& e) {
    give_up(mpi, e);
  }
}

std::vector<std::string> hosts_of(const RankCheck& check) {
  std::vector<std::string> out;
  for (const RankPlace& rank : check.ranks) out.push_back(rank.host);
  return out;
}

void say_places(const RankCheck& check, bool rehearsal) {
  const bool fits = !check.order.empty();
  if (rehearsal && !fits)
    say("note: this rehearsal is not placed as planned: " + check.mismatches.back());
  else
    say_mismatches(check, rehearsal ? "note" : "warning");
  if (fits) say("note: --remap re-orders the ranks so that each is where the plan has it");
}

}  // namespace

Placement place_ranks(const Plan& plan, const PlacementOptions& o, MpiOptions mpi_options,
                      std::unique_ptr<Communicator>& mpi, Context& context) {
  const RankCheck check = compare(plan, o, *mpi);
  const bool speaks = mpi->rank() == 0;
  if (check.plans_differ) {
    if (speaks) say_mismatches(check, "warning");
    throw InvalidInput("plan", "not the same on all ranks", "give all ranks the same file");
  }
  Placement out{.hosts = hosts_of(check), .mismatches = check.mismatches};
  if (check.mismatches.empty()) return out;
  if (!o.remap) {
    if (speaks) say_places(check, o.rehearsal);
    return out;
  }
  if (check.order.empty()) throw Failure("--remap: " + check.mismatches.back());
  if (speaks) say_mismatches(check, "note");
  if (speaks) say("note: ranks are re-ordered to where the plan has them");
  mpi_options.rank = check.planned_rank(mpi->rank());
  mpi.reset();
  mpi = make_mpi_communicator(nullptr, mpi_options);
  context.silent = mpi->rank() != 0;
  const RankCheck again = compare(plan, o, *mpi);
  if (!again.mismatches.empty()) throw Failure("--remap: " + again.mismatches[0] + ", in the order that was to fit");
  out.hosts = hosts_of(again), out.remapped = true;
  return out;
}

void require_one_process(const std::string& host, bool remap, const std::string& backend) {
  const std::string hint = std::string("ranks of one process are all on this host: ") +
                           (backend == "nccl" ? "launch them by mpirun" : "mpirun and --backend mpi make others");
  if (remap) throw InvalidInput("--remap", "--backend " + backend, hint);
  if (!host.empty()) throw InvalidInput("--host", host, hint);
  try {
    const LauncherRank launched = read_launcher_env(process_environment());
    if (launched.size > 1 && launched.rank == 0)
      say("warning: " + launched.source + " started " + std::to_string(launched.size) +
          " processes, each of which runs all ranks as threads: --backend mpi makes each of them one rank");
  } catch (const InvalidInput&) {  // variables of somebody else's job
  }
}

}  // namespace topomoe::cli
