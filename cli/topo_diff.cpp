// topomoe topo diff A B: what differs, element by element.
#include <memory>
#include <vector>

#include "cli/files.hpp"
#include "cli/topo_commands.hpp"
#include "topology/show/diff.hpp"

namespace topomoe::cli {

void add_topo_diff(CLI::App& topo, Context& context) {
  CLI::App* command = topo.add_subcommand(
      "diff", "What differs between two descriptions, element by element; exit status 0 either way");
  auto files = std::make_shared<std::vector<std::string>>();
  command->add_option("files", *files, "Two descriptions")->option_text("BEFORE AFTER")->expected(2)->required();
  add_format_option(*command, context);
  command->callback([files, &context] {
    const auto all = differences(read_topology_file(files->front()), read_topology_file(files->back()));
    print(context.format == Format::json ? differences_json(all) : differences_text(all));
  });
}

}  // namespace topomoe::cli
