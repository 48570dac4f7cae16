// topomoe topo show|facts FILE|--live: what a cluster is.

#include <memory>
#include <string>
#include <vector>

#include "cli/commands.hpp"
#include "cli/edit_options.hpp"
#include "cli/files.hpp"
#include "topomoe/error.hpp"
#include "topomoe/topology.hpp"

namespace topomoe::cli {
namespace {

struct Options : EditOptions {
  std::string file, as, svg, dot;
  bool live = false;
};

Topology described(const std::string& command, const Options& o) {
  if (o.live != o.file.empty())
    throw InvalidInput(command, o.live ? o.file + " and --live" : "no file",
                       "name one file, or use --live for this machine");
  if (o.live && !o.as.empty()) throw InvalidInput("--as", o.as, "of a file; this machine is asked in one way only");
  return o.live ? discover_live() : read_topology_file(o.file, o.as);
}

std::string format_names() {
  std::string names;
  for (const TopologyFormat& format : topology_formats()) names += (names.empty() ? "" : ", ") + format.name;
  return names;
}

void show(const Options& o, const Context& context) {
  OutputFiles files({{"--svg", o.svg}, {"--dot", o.dot}}, {{"file", o.file}});
  const Topology topology = edited(described("topo show", o), o);
  if (files.wants("--svg")) files.write("--svg", write_svg(topology));
  if (files.wants("--dot")) files.write("--dot", write_dot(topology));
  const std::string text = context.format == Format::json ? show_json(topology) : show_text(topology);
  files.commit();
  print(text.empty() || text.back() == '\n' ? text : text + "\n");
}

void add_source_options(CLI::App& command, Options& o) {
  command.add_option("file", o.file, "A description of a machine or cluster; its format is told by its content")
      ->option_text("FILE");
  command.add_option("--as", o.as, "Read the file as this format: " + format_names())->option_text("FORMAT");
  command.add_flag("--live", o.live, "This machine, through hwloc and, where there are GPUs, NCCL");
}

void add_facts_command(CLI::App& topo, Context& context) {
  CLI::App* command = topo.add_subcommand("facts", "What can be counted, by bus id, as JSON");
  auto o = std::make_shared<Options>();
  add_source_options(*command, *o);
  add_format_option(*command, context);
  command->callback([o] { print(facts_json(described("topo facts", *o))); });
}

}  // namespace

void add_topo_command(CLI::App& app, Context& context) {
  CLI::App* topo = app.add_subcommand("topo", "What a cluster is")->require_subcommand(1);
  CLI::App* command = topo->add_subcommand("show", "Devices, links, rates and their sources");
  auto o = std::make_shared<Options>();
  add_source_options(*command, *o);
  add_edit_options(*command, *o);
  command->add_option("--svg", o->svg, "Write a drawing")->option_text("FILE");
  command->add_option("--dot", o->dot, "Write it for Graphviz")->option_text("FILE");
  add_format_option(*command, context);
  command->callback([o, &context] { show(*o, context); });
  add_facts_command(*topo, context);
}

}  // namespace topomoe::cli
