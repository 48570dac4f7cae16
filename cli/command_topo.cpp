// topomoe topo show|facts|export FILE|--live, diff A B, doctor FILE...: what a cluster is, and what is wrong with it.

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.hpp"
#include "cli/edit_options.hpp"
#include "cli/files.hpp"
#include "topology/diff.hpp"
#include "topomoe/doctor.hpp"
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
  if (o.live && !o.as.empty()) throw InvalidInput("format", o.as, "of a file; this machine is asked in one way only");
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

void add_source_options(CLI::App& command, Options& o, const char* as = "--as") {
  command.add_option("file", o.file, "A description of a machine or cluster; its format is told by its content")
      ->option_text("FILE");
  command.add_option(as, o.as, "Read the file as this format: " + format_names())->option_text("FORMAT");
  command.add_flag("--live", o.live, "This machine, through hwloc and, where there are GPUs, NCCL");
}

void add_facts_command(CLI::App& topo, Context& context) {
  CLI::App* command = topo.add_subcommand("facts", "What can be counted, by bus id, as JSON");
  auto o = std::make_shared<Options>();
  add_source_options(*command, *o);
  add_format_option(*command, context);
  command->callback([o] { print(facts_json(described("topo facts", *o))); });
}

void add_export_command(CLI::App& topo) {
  CLI::App* command = topo.add_subcommand("export", "The same cluster in the form of another program");
  auto o = std::make_shared<Options>();
  auto form = std::make_shared<std::string>();
  auto output = std::make_shared<std::string>();
  add_source_options(*command, *o, "--from");  // --as is what to write
  command->add_option("--as", *form, "json (topomoe.cluster/1), nccl-xml (NCCL_TOPO_FILE), dot, svg")
      ->option_text("FORM")
      ->required()
      ->check(CLI::IsMember({"json", "nccl-xml", "dot", "svg"}));
  command->add_option("-o,--output", *output, "Write there, not to the standard output")->option_text("FILE");
  command->callback([o, form, output] {
    OutputFiles files({{"-o", *output}}, {{"file", o->file}});
    const Topology topology = described("topo export", *o);
    const std::string text = *form == "json"       ? write_cluster_json(topology)
                             : *form == "nccl-xml" ? write_nccl_xml(topology)
                             : *form == "dot"      ? write_dot(topology)
                                                   : write_svg(topology);
    if (!files.wants("-o")) return print(text);
    files.write("-o", text);
    files.commit();
  });
}

void add_diff_command(CLI::App& topo) {
  CLI::App* command = topo.add_subcommand(
      "diff", "What differs between two descriptions, element by element; exit status 0 either way");
  auto files = std::make_shared<std::vector<std::string>>();
  command->add_option("files", *files, "Two descriptions")->option_text("BEFORE AFTER")->expected(2)->required();
  command->callback([files] {
    std::string text;
    for (const Difference& own : differences(read_topology_file(files->front()), read_topology_file(files->back())))
      text += own.element + ": " + own.before + " -> " + own.after + "\n";
    print(text.empty() ? "no difference\n" : text);
  });
}

void doctor(const std::vector<std::string>& files, const Context& context) {
  std::vector<Topology> topologies;
  for (const std::string& file : files) topologies.push_back(read_topology_file(file));
  const std::vector<Finding> findings = diagnose(topologies);
  print(context.format == Format::json ? findings_json(findings) : findings_text(findings));
  const auto severe = std::count_if(findings.begin(), findings.end(),
                                    [](const Finding& own) { return own.severity == Severity::severe; });
  if (severe > 0)
    throw Failure("topo doctor: " + std::to_string(severe) + (severe == 1 ? " severe finding" : " severe findings"));
}

void add_doctor_command(CLI::App& topo, Context& context) {
  CLI::App* command = topo.add_subcommand("doctor", "What looks wrong: each host against itself and its siblings");
  auto files = std::make_shared<std::vector<std::string>>();
  command->add_option("files", *files, "Descriptions of hosts or clusters that should be alike")
      ->option_text("FILE...")
      ->required();
  add_format_option(*command, context);
  command->callback([files, &context] { doctor(*files, context); });
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
  add_export_command(*topo);
  add_diff_command(*topo);
  add_doctor_command(*topo, context);
}

}  // namespace topomoe::cli
