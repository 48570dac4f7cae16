// Whether the ranks are where their plan has them: host, device and the plan itself, compared before the first step.
//
// Planned hosts are names of places ("host0") unless they are names of the hosts at hand: then the k-th is whichever
// host most of its ranks are on. Wrong places are slow, not wrong: they are told, and an order of the ranks that puts
// them right, where there is one; another plan is an error of whoever launched. Ignored: which NIC a device is next to,
// which numbers of a host's devices a container hides.
#pragma once

#include <string>
#include <vector>

#include "topomoe/communicator.hpp"
#include "topomoe/plan.hpp"

namespace topomoe {

// Of one rank. An empty bus id is unknown and fits everywhere.
struct RankPlace {
  std::string host, bus_id, plan;  // plan: its hash
  bool operator==(const RankPlace&) const = default;
};

struct RankCheck {
  std::vector<RankPlace> ranks;         // as they are, by rank
  std::vector<std::string> mismatches;  // one line each; none: all as planned
  bool plans_differ = false;
  // order[p] is the rank that is where the plan has rank p; empty where the hosts at hand hold other numbers of ranks.
  std::vector<int> order;
  // What rank `rank` is to be called so that all is as planned: the key to split a communicator by. -1: no order fits.
  int planned_rank(int rank) const;
};

// Throws InvalidInput where the plan has another number of ranks.
RankCheck compare_ranks(const Plan& plan, std::vector<RankPlace> actual);

// Collective; the same answer on all ranks. Throws TransportError. `bus_id` of this rank's device, or empty; `host`
// empty: this machine's name.
RankCheck check_ranks(const Plan& plan, Communicator& communicator, const std::string& bus_id = "",
                      std::string host = "");

}  // namespace topomoe
