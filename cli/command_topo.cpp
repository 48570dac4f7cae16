// topomoe topo show FILE|--live: what a cluster is.

#include <memory>
#include <string>
#include <vector>

#include "cli/commands.hpp"
#include "cli/files.hpp"
#include "topomoe/error.hpp"
#include "topomoe/topology.hpp"

namespace topomoe::cli {
namespace {

struct Options {
  std::string file, svg, dot;
  std::vector<std::string> set, degrade, remove;
  bool live = false;
};

void show(const Options& o, const Context& context) {
  if (o.live != o.file.empty())
    throw InvalidInput("topo show", o.live ? o.file + " and --live" : "no file",
                       "name one cluster.json or NCCL XML, or use --live for this machine");
  std::vector<Edit> edits;
  for (const std::string& text : o.set) edits.push_back(parse_set(text));
  for (const std::string& text : o.degrade) edits.push_back(parse_degrade(text));
  for (const std::string& text : o.remove) edits.push_back(parse_remove(text));
  const Topology topology = edit(o.live ? discover_live() : read_topology_file(o.file), edits);
  OutputFiles files;
  if (!o.svg.empty()) files.add("--svg", o.svg, write_svg(topology));
  if (!o.dot.empty()) files.add("--dot", o.dot, write_dot(topology));
  const std::string text = context.format == Format::json ? show_json(topology) : show_text(topology);
  files.commit();
  print(text.empty() || text.back() == '\n' ? text : text + "\n");
}

}  // namespace

void add_topo_command(CLI::App& app, Context& context) {
  CLI::App* topo = app.add_subcommand("topo", "What a cluster is")->require_subcommand(1);
  CLI::App* command = topo->add_subcommand("show", "Devices, links, rates and their sources");
  auto o = std::make_shared<Options>();
  command->add_option("file", o->file, "topomoe.cluster/1 JSON, or an NCCL topology XML")->option_text("FILE");
  command->add_flag("--live", o->live, "This machine, through hwloc and, where there are GPUs, NCCL");
  command->add_option("--set", o->set, "A figure for all: nic.GBps=25, hosts=64")->option_text("KEY=N");
  command
      ->add_option("--degrade", o->degrade,
                   "Links of one thing times a factor: leaf3=0.5, host4.nic1=0.25 (a GPU: its links, not its clock)")
      ->option_text("NAME=X");
  command->add_option("--remove", o->remove, "Without one thing: host17.gpu3, host17, leaf3, leaf3->spine5")
      ->option_text("NAME");
  command->add_option("--svg", o->svg, "Write a drawing")->option_text("FILE");
  command->add_option("--dot", o->dot, "Write it for Graphviz")->option_text("FILE");
  add_format_option(*command, context);
  command->callback([o, &context] { show(*o, context); });
}

}  // namespace topomoe::cli
