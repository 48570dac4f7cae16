// Where mpirun put the ranks, against where a plan has them: what `run` and `bench --plan` ask before the first step.
//
// Places are compared whatever the ranks are for. Where an order of them fits, wrong places are said and --remap mends
// them. Where none does, since hosts hold other numbers of ranks than planned, a rehearsal has nowhere else to be and
// says that once; on the plan's own cluster each wrong place is a warning; --remap refuses.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/commands.hpp"
#include "topomoe/communicator_mpi.hpp"
#include "topomoe/plan.hpp"

namespace topomoe::cli {

struct PlacementOptions {
  std::string bus_id;     // of this rank's device, where it is one of several
  std::string host;       // what this rank's host is called; empty: its host name
  bool remap = false;     // re-order the ranks
  bool rehearsal = true;  // no cluster was named: wrong places are no warning
};

struct Placement {
  std::vector<std::string> hosts;       // by rank, as they are now
  std::vector<std::string> mismatches;  // as they were found
  bool remapped = false;
};

// Collective over `mpi`, a communicator over all of mpirun's ranks with these options, which is replaced by one with
// the ranks in their places where --remap has them re-ordered: then this process is another rank, and it may be another
// that speaks. Throws InvalidInput where ranks hold different plans, Failure where --remap was asked for and no order
// fits: alike on all ranks. Ends the job where the transport fails.
Placement place_ranks(const Plan& plan, const PlacementOptions& options, MpiOptions mpi_options,
                      std::unique_ptr<Communicator>& mpi, Context& context);

// For ranks that are all in this process: throws InvalidInput for --host and --remap, and warns where a launcher
// started several such processes, each of which would run all ranks.
void require_one_process(const std::string& host, bool remap, const std::string& backend);

}  // namespace topomoe::cli
