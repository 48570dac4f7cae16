// Which cluster a `topomoe topo` command speaks of.
#include "cli/topo_commands.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {
namespace {

std::string format_names() {
  std::string names;
  for (const TopologyFormat& format : topology_formats()) names += (names.empty() ? "" : ", ") + format.name;
  return names;
}

}  // namespace

void add_source_options(CLI::App& command, TopoSource& o, const char* as) {
  command.add_option("file", o.file, "A description of a machine or cluster; its format is told by its content")
      ->option_text("FILE");
  command.add_option(as, o.as, "Read the file as this format: " + format_names())->option_text("FORMAT");
  command.add_flag("--live", o.live, "This machine, through hwloc and, where there are GPUs, NVML and NCCL");
}

Topology described(const std::string& command, const TopoSource& o) {
  if (o.live != o.file.empty())
    throw InvalidInput(command, o.live ? o.file + " and --live" : "no file",
                       "name one file, or use --live for this machine");
  if (o.live && !o.as.empty()) throw InvalidInput("format", o.as, "of a file; this machine is asked in one way only");
  return o.live ? discover_live() : read_topology_file(o.file, o.as);
}

}  // namespace topomoe::cli
