// topomoe topo doctor FILE...: what looks wrong; --measured OUTPUT: are these numbers normal?
#include <algorithm>
#include <memory>
#include <vector>

#include "cli/files.hpp"
#include "cli/topo_commands.hpp"
#include "topology/doctor/doctor_measured.hpp"
#include "topology/read/read_file.hpp"
#include "topomoe/doctor.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {
namespace {

struct DoctorOptions {
  std::vector<std::string> files, measured;
  std::string operation;
};

void doctor(const DoctorOptions& options, const Context& context) {
  if (!options.measured.empty() && options.files.size() != 1)
    throw InvalidInput("--measured", std::to_string(options.files.size()) + " descriptions",
                       "one FILE that the measurements are held against");
  if (!options.operation.empty() && options.measured.empty())
    throw InvalidInput("--op", options.operation, "only with --measured: what nccl-tests ran");
  const std::string operation = measured_operation(options.operation);
  if (operation.empty() && !options.operation.empty())
    throw InvalidInput(
        "--op", options.operation,
        "alltoall, all_gather, all_reduce, reduce_scatter, send_recv, broadcast, reduce, gather, scatter");
  std::vector<Topology> topologies;
  for (const std::string& file : options.files) topologies.push_back(read_topology_file(file));
  std::vector<Measured> measured;
  for (const std::string& file : options.measured)
    for (Measured& own : read_measured(read_text_file(file), file, operation)) measured.push_back(std::move(own));
  std::vector<Finding> findings;
  if (!measured.empty()) findings = diagnose_measured(topologies.front(), measured);
  const std::vector<Finding> more = diagnose(topologies);
  findings.insert(findings.end(), more.begin(), more.end());
  std::stable_sort(findings.begin(), findings.end(),
                   [](const Finding& a, const Finding& b) { return a.severity < b.severity; });
  print(context.format == Format::json ? findings_json(findings) : findings_text(findings));
  const auto severe = std::count_if(findings.begin(), findings.end(),
                                    [](const Finding& own) { return own.severity == Severity::severe; });
  if (severe > 0)
    throw Failure("topo doctor: " + std::to_string(severe) + (severe == 1 ? " severe finding" : " severe findings"));
}

}  // namespace

void add_topo_doctor(CLI::App& topo, Context& context) {
  CLI::App* command =
      topo.add_subcommand("doctor", "What looks wrong: hosts, their siblings, the fabric, measurements");
  auto options = std::make_shared<DoctorOptions>();
  command->add_option("files", options->files, "Descriptions of hosts or clusters that should be alike")
      ->option_text("FILE...")
      ->required();
  command->add_option("--measured", options->measured, "Output of nccl-tests or nvbandwidth, text or JSON (repeatable)")
      ->option_text("OUTPUT")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->add_option("--op", options->operation, "What nccl-tests ran, where its output does not say");
  add_format_option(*command, context);
  command->callback([options, &context] { doctor(*options, context); });
}

}  // namespace topomoe::cli
