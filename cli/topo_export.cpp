// topomoe topo export: the same cluster in the form of another program.
#include <memory>

#include "cli/files.hpp"
#include "cli/topo_commands.hpp"
#include "topomoe/export.hpp"

namespace topomoe::cli {
namespace {

// To add a form: its line here.
struct Form {
  const char* name;
  const char* what;
  std::string (*write)(const Topology&);
};
constexpr Form kForms[] = {
    {"json", "topomoe.cluster/1", write_cluster_json},
    {"nccl-xml", "NCCL_TOPO_FILE", write_nccl_xml},
    {"astra", "ASTRA-sim's analytical network", write_astra},
    {"simai", "SimAI's topology", write_simai},
    {"slurm", "topology.conf of topology/tree", write_slurm_tree},
    {"slurm-block", "topology.conf of topology/block", write_slurm_blocks},
    {"simgrid", "platform XML", write_simgrid},
    {"dot", "Graphviz", write_dot},
    {"svg", "a drawing", write_svg},
};

}  // namespace

void add_topo_export(CLI::App& topo) {
  CLI::App* command = topo.add_subcommand("export", "The same cluster in the form of another program");
  auto o = std::make_shared<TopoSource>();
  auto form = std::make_shared<std::string>();
  auto output = std::make_shared<std::string>();
  add_source_options(*command, *o, "--from");  // --as is what to write
  std::vector<std::string> names;
  std::string what;
  for (const Form& known : kForms) {
    names.push_back(known.name);
    what += std::string(what.empty() ? "" : ", ") + known.name + " (" + known.what + ")";
  }
  command->add_option("--as", *form, what)->option_text("FORM")->required()->check(CLI::IsMember(names));
  command->add_option("-o,--output", *output, "Write there, not to the standard output")->option_text("FILE");
  command->callback([o, form, output] {
    OutputFiles files({{"-o", *output}}, {{"file", o->file}});
    const Topology topology = described("topo export", *o);
    const Form* chosen = kForms;
    while (chosen->name != *form) ++chosen;  // one of them: the option was checked
    const std::string text = chosen->write(topology);
    if (!files.wants("-o")) return print(text);
    files.write("-o", text);
    files.commit();
  });
}

}  // namespace topomoe::cli
