// What looks wrong with a cluster: what is seen against what its own siblings, or its design, make one expect.
//
// A finding is severe where the machine does less than it could (or than its siblings do), a warning where it may be
// meant so, a note where something is merely not known. Measurements: topology/doctor/doctor_measured.hpp.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

enum class Severity { severe, warning, note };
const char* name(Severity);  // "severe"

struct Finding {
  Severity severity = Severity::note;
  std::string element;   // "node7.gpu3 (0000:1b:00.0)"
  std::string seen;      // "4 NVLinks"
  std::string expected;  // "18, as 7 of 8 GPUs of this host"; with the reason
  std::string cost;      // "all-to-all inside this host: at most 33 of 450 GB/s a GPU"; empty: not known
  std::string check;     // what to look at; empty: nothing
  bool operator==(const Finding&) const = default;
};

// Each host against itself, and all hosts against each other where there are several (in one topology, or several
// files of siblings). Severe ones first, otherwise in the order of hosts and devices.
std::vector<Finding> diagnose(std::span<const Topology> topologies);

std::string findings_text(std::span<const Finding>);
std::string findings_json(std::span<const Finding>);

}  // namespace topomoe
