// topomoe topo doctor FILE...: what looks wrong.
#include <algorithm>
#include <memory>
#include <vector>

#include "cli/files.hpp"
#include "cli/topo_commands.hpp"
#include "topomoe/doctor.hpp"

namespace topomoe::cli {
namespace {

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

}  // namespace

void add_topo_doctor(CLI::App& topo, Context& context) {
  CLI::App* command = topo.add_subcommand("doctor", "What looks wrong: each host against itself and its siblings");
  auto files = std::make_shared<std::vector<std::string>>();
  command->add_option("files", *files, "Descriptions of hosts or clusters that should be alike")
      ->option_text("FILE...")
      ->required();
  add_format_option(*command, context);
  command->callback([files, &context] { doctor(*files, context); });
}

}  // namespace topomoe::cli
