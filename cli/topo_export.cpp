// topomoe topo export: the same cluster in the form of another program.
#include <memory>

#include "cli/files.hpp"
#include "cli/topo_commands.hpp"

namespace topomoe::cli {

void add_topo_export(CLI::App& topo) {
  CLI::App* command = topo.add_subcommand("export", "The same cluster in the form of another program");
  auto o = std::make_shared<TopoSource>();
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

}  // namespace topomoe::cli
