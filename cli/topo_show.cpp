// topomoe topo show: devices, links, rates and their sources.
#include <memory>

#include "cli/edit_options.hpp"
#include "cli/files.hpp"
#include "cli/topo_commands.hpp"
#include "cli/topo_nccl_graph.hpp"

namespace topomoe::cli {
namespace {

struct Options : EditOptions, TopoSource {
  std::string svg, dot, nccl_graph;
};

void show(const Options& o, const Context& context) {
  OutputFiles files({{"--svg", o.svg}, {"--dot", o.dot}}, {{"file", o.file}, {"--nccl-graph", o.nccl_graph}});
  const Topology topology = edited(described("topo show", o), o);
  if (files.wants("--svg")) files.write("--svg", write_svg(topology));
  if (files.wants("--dot")) files.write("--dot", write_dot(topology));
  const std::string text = context.format == Format::json ? show_json(topology) : show_text(topology);
  const std::string all = with_nccl_graph(text, context.format, o.nccl_graph, topology);
  files.commit();
  print(all.empty() || all.back() == '\n' ? all : all + "\n");
}

}  // namespace

void add_topo_show(CLI::App& topo, Context& context) {
  CLI::App* command = topo.add_subcommand("show", "Devices, links, rates and their sources");
  auto o = std::make_shared<Options>();
  add_source_options(*command, *o);
  add_edit_options(*command, *o);
  command->add_option("--svg", o->svg, "Write a drawing")->option_text("FILE");
  command->add_option("--dot", o->dot, "Write it for Graphviz")->option_text("FILE");
  add_nccl_graph_option(*command, o->nccl_graph);
  add_format_option(*command, context);
  command->callback([o, &context] { show(*o, context); });
}

}  // namespace topomoe::cli
