// --pattern and --bytes: which traffic `topo load` and `topo draw` put on a cluster.
#pragma once

#include <string>

#include "cli/commands.hpp"
#include "topomoe/pattern_load.hpp"

namespace topomoe::cli {

struct TrafficOptions {
  std::string pattern, bytes;  // empty: not given
  // The pattern where it is a file.
  std::string traffic_file() const;
};

void add_traffic_options(CLI::App& command, TrafficOptions& options);
// All-to-all of 64 MiB where nothing is asked for. Throws InvalidInput by flag, row and column.
PatternLoad asked_load(const Router& router, const TrafficOptions& options);

}  // namespace topomoe::cli
