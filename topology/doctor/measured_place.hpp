// Where a measured run was, on a description: which GPU each rank had. Internal to the doctor.
//
// Hosts are found by name where the description has names, else they are taken in order of their first rank (and that
// is said where it may matter); GPUs by bus id where both say it, else by device number. What does not fit is a
// finding. An address (10.0.0.2) is a whole name; short names that several hosts have place nothing.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "topology/doctor/measured.hpp"
#include "topomoe/doctor.hpp"

namespace topomoe {

struct RunPlace {
  Topology topology;                     // as described, or grown to the hosts of the run
  std::vector<std::vector<int>> groups;  // GPU of each rank; groups that ran at the same time
  int ranks = 0;                         // of a group
  int hosts = 0, nodes = 0;              // of a group; a node is a scale-up domain
  bool first_gpus = false;               // one group, rank i on GPU i
  bool other_hosts = false;              // its hosts are not found by name: the first hosts instead of them
};

// "alltoall of 16 ranks on 2 hosts (out.txt)"
std::string run_name(const MeasuredCollective&);

// None: it cannot be compared, and a finding says why. InvalidInput where the output names no rank.
std::optional<RunPlace> place_run(const MeasuredCollective&, const Topology&, std::vector<Finding>&);

// The GPU of the first host that each device of nvbandwidth is, -1: none; of a multi-node run, GPUs of the whole
// topology.
std::vector<int> place_devices(const MeasuredCopies&, const Topology&, std::vector<Finding>&);

}  // namespace topomoe
