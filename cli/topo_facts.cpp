// topomoe topo facts: what can be counted, by bus id.
#include <memory>

#include "cli/files.hpp"
#include "cli/topo_commands.hpp"

namespace topomoe::cli {

void add_topo_facts(CLI::App& topo, Context& context) {
  CLI::App* command = topo.add_subcommand("facts", "What can be counted, by bus id, as JSON");
  auto o = std::make_shared<TopoSource>();
  add_source_options(*command, *o);
  add_format_option(*command, context);
  command->callback([o] { print(facts_json(described("topo facts", *o))); });
}

}  // namespace topomoe::cli
