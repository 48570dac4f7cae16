// Measures what a planner prices with: how long collectives take among ranks, by size, as curves of a calibration.
//
// All groups of a shape run at once, since that is how steps of a schedule run and what the planner's prices mean:
// ranks of a host share its NIC and its cores, and a curve says what each gets of them. Each operation begins with a
// barrier and takes as long as its slowest rank, by that rank's own clock, as in runtime/bench.hpp. Rounds go over all
// shapes and sizes in turn, so that what the machine does meanwhile meets all alike; a knot is the median of its
// rounds. Besides an operation alone there is one of several in a row (parameter "in_a_row"), which wait for nothing
// between them: chunks of a schedule run so. Messages are of nearly equal size. Ignored: what else runs meanwhile.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "topomoe/calibration.hpp"
#include "topomoe/communicator.hpp"
#include "topomoe/layout.hpp"

namespace topomoe {

// An operation, and the groups that partition the ranks.
struct ProfileShape {
  std::string operation;  // "alltoall", "all_gather"
  int ranks = 2, nodes = 1;
  std::vector<int> group_of;  // by rank: the number of its group
};

// Every evenly spread group that some layout of these ranks may have. Groups with one rank a node lie on nodes as far
// apart as they go, as tensor-parallel groups in front of them put them; others on neighbours.
std::vector<ProfileShape> profile_shapes(int world, int ranks_per_node);
// Groups over which schedules of this layout travel; those spread unevenly have no curve.
std::vector<ProfileShape> profile_shapes(const Layout& layout, int ranks_per_node);

struct ProfileBudget {
  double seconds = 30;                // about; two rounds are made in any case
  std::size_t most_bytes = 16 << 20;  // of a rank's buffer
  int ranks_per_host = 1;
  std::chrono::seconds deadline = std::chrono::minutes(1);  // of every wait
};

// Collective over `communicator`, in its ranks' host memory. Rank 0 gets the curves, the others nothing.
std::optional<std::vector<CalibrationCurve>> profile_collectives(const std::vector<ProfileShape>& shapes,
                                                                 const ProfileBudget& budget,
                                                                 Communicator& communicator, Device& device);
// Rows of `row_bytes` moved through memory by all ranks at once: "copy", by bytes read and written.
std::optional<CalibrationCurve> profile_copies(const ProfileBudget& budget, Communicator& communicator, Device& device);

// Experts of one rank: so many of these matrices.
struct ExpertShape {
  std::int64_t hidden = 0, ffn = 0;  // ffn: of a shard
  int experts = 1;
  DType dtype = DType::f32;
};
// The experts' steps, forward, dgrad and wgrad, by rows, on the devices of all ranks at once: three curves a shape.
// budget.most_bytes bounds a tensor of rows. Collective; rank 0 gets the curves. Throws InvalidInput.
std::optional<std::vector<CalibrationCurve>> profile_experts(std::span<const ExpertShape> shapes,
                                                             const ProfileBudget& budget, Communicator& communicator,
                                                             Device& device);

}  // namespace topomoe
