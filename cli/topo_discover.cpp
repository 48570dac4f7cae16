// topomoe topo discover: this machine as a cluster file, one for each node of a job.
#include <unistd.h>

#include <array>
#include <memory>

#include "cli/files.hpp"
#include "cli/topo_commands.hpp"
#include "topomoe/discover.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {
namespace {

// Up to the first dot, as `hostname -s`.
std::string short_host_name() {
  std::array<char, 256> text{};
  if (gethostname(text.data(), text.size() - 1) != 0) text[0] = '\0';
  const std::string name(text.data());
  return name.substr(0, name.find('.'));
}

// %h is the host, %% is %.
std::string file_name(const std::string& pattern, const std::string& host) {
  std::string out;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '%') {
      out += pattern[i];
      continue;
    }
    const std::string code = pattern.substr(i++, 2);
    if (code != "%h" && code != "%%")
      throw InvalidInput("-o", pattern, code + " is neither %h (the short host name) nor %% (a %)");
    if (code == "%h" && (host.empty() || host.find('/') != std::string::npos))
      throw InvalidInput("-o", pattern, "this machine's name (\"" + host + "\") is none of a file; name the file");
    out += code == "%h" ? host : "%";
  }
  return out;
}

void discover(const std::string& pattern) {
  const std::string host = short_host_name();
  OutputFiles files({{"-o", file_name(pattern, host)}}, {});
  const Topology topology = discover_live(host.empty() ? "this-host" : host);
  for (const std::string& line : topology.warnings) say(line);
  const std::string text = write_cluster_json(topology);
  if (!files.wants("-o")) return print(text);
  files.write("-o", text);
  files.commit();
}

}  // namespace

void add_topo_discover(CLI::App& topo) {
  CLI::App* command = topo.add_subcommand("discover", "This machine as a cluster file (topomoe.cluster/1)");
  auto output = std::make_shared<std::string>();
  command
      ->add_option("-o,--output", *output,
                   "Write there, not to the standard output; %h is the short host name: srun --ntasks-per-node=1 "
                   "topomoe topo discover -o %h.json")
      ->option_text("FILE");
  command->callback([output] { discover(*output); });
}

}  // namespace topomoe::cli
