#include "cli/topo_nccl_graph.hpp"

#include "topology/read/read_file.hpp"
#include "topomoe/nccl_graph.hpp"

namespace topomoe::cli {

void add_nccl_graph_option(CLI::App& command, std::string& path) {
  command
      .add_option("--nccl-graph", path,
                  "What NCCL chose on this machine (NCCL_GRAPH_DUMP_FILE): channels and the links they cross")
      ->option_text("FILE");
}

std::string with_nccl_graph(const std::string& shown, Format format, const std::string& path,
                            const Topology& topology) {
  if (path.empty()) return shown;
  const NcclGraph graph = read_nccl_graph(read_text_file(path), path);
  return format == Format::json ? with_nccl_graph_json(shown, graph, topology, path)
                                : shown + nccl_graph_text(graph, topology, path);
}

}  // namespace topomoe::cli
