// topomoe topo: what a cluster is, and what is wrong with it.
#include "cli/topo_commands.hpp"

namespace topomoe::cli {

void add_topo_command(CLI::App& app, Context& context) {
  CLI::App* topo = app.add_subcommand("topo", "What a cluster is")->require_subcommand(1);
  add_topo_show(*topo, context);
  add_topo_facts(*topo, context);
  add_topo_export(*topo);
  add_topo_compose(*topo);
  add_topo_diff(*topo, context);
  add_topo_doctor(*topo, context);
  add_topo_load(*topo, context);
  add_topo_discover(*topo);
  add_topo_draw(*topo);
}

}  // namespace topomoe::cli
