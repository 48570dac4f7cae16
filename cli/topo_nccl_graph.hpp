// `topo show --nccl-graph`: what NCCL chose on the machine that is shown.
#pragma once

#include <string>

#include "cli/commands.hpp"
#include "topomoe/topology.hpp"

namespace topomoe::cli {

void add_nccl_graph_option(CLI::App& command, std::string& path);
// What is shown, in that format, with a section about the graph; as it is where no graph is named.
std::string with_nccl_graph(const std::string& shown, Format format, const std::string& path, const Topology&);

}  // namespace topomoe::cli
