// The commands of `topomoe topo`, one file each (topo_<name>.cpp): what describes a cluster, and what is said of it.
// Adding one: such a file, a line here, a line in command_topo.cpp.
#pragma once

#include <string>

#include "cli/commands.hpp"
#include "topomoe/topology.hpp"

namespace topomoe::cli {

// One description of a machine or cluster, as a user names it: a file or this machine.
struct TopoSource {
  std::string file, as;
  bool live = false;
};
// The file, --live, and the format under the name `as`.
void add_source_options(CLI::App& command, TopoSource& source, const char* as = "--as");
// Throws InvalidInput by `command` where neither or both are named.
Topology described(const std::string& command, const TopoSource& source);

void add_topo_show(CLI::App& topo, Context& context);
void add_topo_facts(CLI::App& topo, Context& context);
void add_topo_export(CLI::App& topo);
void add_topo_compose(CLI::App& topo);
void add_topo_diff(CLI::App& topo, Context& context);
void add_topo_doctor(CLI::App& topo, Context& context);
void add_topo_load(CLI::App& topo, Context& context);
void add_topo_discover(CLI::App& topo);
void add_topo_draw(CLI::App& topo);

}  // namespace topomoe::cli
