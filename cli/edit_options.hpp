// --set, --degrade and --remove: a cluster that is not as its file says.
#pragma once

#include <string>
#include <vector>

#include "cli/commands.hpp"
#include "topomoe/topology.hpp"

namespace topomoe::cli {

struct EditOptions {
  std::vector<std::string> set, degrade, remove;
};

void add_edit_options(CLI::App& command, EditOptions& options);
// Throws InvalidInput by flag and name.
Topology edited(const Topology& topology, const EditOptions& options);
// "host4.nic1=0.25, without leaf0"; empty where nothing is edited.
std::string words(const EditOptions& options);

}  // namespace topomoe::cli
