// Measurements held against a description: "is this number normal?". Internal to topology/ and the CLI.
//
// A measurement above what the description allows is a warning: the description is wrong (or the run is not of it). Far
// below what healthy machines reach is severe, with the link that the bound is of. The rest is a note with its share.
#pragma once

#include <span>
#include <vector>

#include "topology/doctor/busbw_ceiling.hpp"
#include "topology/doctor/measured.hpp"
#include "topomoe/doctor.hpp"

namespace topomoe {

// Of each measurement at least one finding; severe ones first.
std::vector<Finding> diagnose_measured(const Topology&, std::span<const Measured>);

// What a run was held against; bound 0: it was not.
struct JudgedRun {
  int nodes = 0;
  double seen_GBps = 0, bound_GBps = 0;
};
JudgedRun diagnose_collective(const MeasuredCollective&, const Topology&, std::vector<Finding>&);
// All-to-alls of one description over more and more nodes: how much of a fall is the bound's.
void diagnose_scaling(std::vector<JudgedRun> all_to_alls, std::vector<Finding>&);
void diagnose_copies(const MeasuredCopies&, const Topology&, std::vector<Finding>&);

// More than the bound by this share is more than rounding and the unit of a clock. Assumed.
inline constexpr double kAboveBound = 1.02;

}  // namespace topomoe
