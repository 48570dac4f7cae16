// Hosts of a plan as launchers want them: names in order, ranks of each, and hostlists as Slurm writes them
// ("n[01-04,07],login"), which keep the order they are given in.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "planner/emit/emit.hpp"

namespace topomoe {

// Throws InvalidInput(field, text, ...) for what is no hostlist, or holds a name that a shell would not leave alone.
std::vector<std::string> expand_hostlist(std::string_view text, const std::string& field);
// The shortest list that expands to exactly these names; only ascending runs are folded.
std::string fold_hostlist(const std::vector<std::string>& names);

struct PlannedHosts {
  std::vector<std::string> names;  // as options say, else the plan's
  std::vector<int> of_rank;        // rank -> index of its host
  int ranks_per_host = 0;          // 0: they differ, or ranks of a host are not consecutive
  bool named = false;              // by options, or by the plan: its cluster's hosts had names
  std::vector<int> device_order;   // place by bus id of each local rank's GPU; empty: as they come, or unknown
  bool devices_known = false;
};
// Throws InvalidInput("--hosts", ...) when the number of names is not that of the plan's hosts, or where the plan's own
// names are none for a shell.
PlannedHosts hosts_of(const Plan&, const EmitOptions&);

// Why a framework that places experts in order cannot run the plan; empty: it can.
std::string out_of_order(const Plan&);

// "# topomoe plan <hash>: model on cluster, layout, algorithm" and one "#" line for each of `notes`.
std::string comment_header(const Plan&, const std::vector<std::string>& notes);
// Text for one comment line: no control characters.
std::string one_line(std::string text);

}  // namespace topomoe
