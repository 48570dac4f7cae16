// topomoe topo compose *.json --fabric topology.conf: one cluster from descriptions of its hosts and its network.
#include <memory>
#include <vector>

#include "cli/edit_options.hpp"
#include "cli/files.hpp"
#include "cli/topo_commands.hpp"
#include "topomoe/compose.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {
namespace {

struct Options : EditOptions {
  std::vector<std::string> files;
  std::string fabric, output, prefer, name = "composed";
  int hosts_per_domain = 0;
};

// "runs/n01.json" -> "n01"
std::string label_of(const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  const std::string file = slash == std::string::npos ? path : path.substr(slash + 1);
  return file.substr(0, file.find_last_of('.'));
}

void compose_files(const Options& o) {
  const bool from_file = !o.fabric.empty() && !is_fabric_spec(o.fabric);
  std::vector<NamedFile> inputs = named("file", o.files);
  if (from_file) inputs.push_back({"--fabric", o.fabric});
  OutputFiles files({{"-o", o.output}}, inputs);
  std::vector<DescribedHosts> hosts;
  for (const std::string& file : o.files) hosts.push_back({label_of(file), read_topology_file(file), file});
  std::optional<Topology> network;
  if (from_file) network = read_topology_file(o.fabric);
  ComposeOptions options;
  options.hosts_per_domain = o.hosts_per_domain;
  if (!from_file) options.fabric_spec = o.fabric;
  if (!o.prefer.empty())
    options.prefer = o.prefer == "hosts" ? ComposeOptions::Prefer::hosts : ComposeOptions::Prefer::network;
  Topology cluster = edited(compose(hosts, network, options), o);
  cluster.name = o.name;
  for (const std::string& line : cluster.warnings) say(line);
  const std::string text = write_cluster_json(cluster);
  if (!files.wants("-o")) return print(text);
  files.write("-o", text);
  files.commit();
}

}  // namespace

void add_topo_compose(CLI::App& topo) {
  CLI::App* command = topo.add_subcommand("compose", "One cluster from descriptions of its hosts and its network");
  auto o = std::make_shared<Options>();
  command->add_option("files", o->files, "Descriptions of hosts, as topo discover writes them, or of any format")
      ->option_text("FILE...")
      ->required();
  command
      ->add_option(
          "--fabric", o->fabric,
          "What joins the hosts: topology.conf, topology.yaml, ibnetdiscover's output, or "
          "fat-tree:hosts_per_leaf=16,spine_count=8 (rail-optimised:, dragonfly-plus:, torus:dims=4x4,GBps=50)")
      ->option_text("FILE|SPEC");
  command
      ->add_option("--hosts-per-domain", o->hosts_per_domain, "Hosts that share one NVLink domain, where nothing says")
      ->check(CLI::Range(1, 1'000'000));
  command->add_option("--prefer", o->prefer, "Whom to believe where a port's rate differs")
      ->check(CLI::IsMember({"hosts", "network"}));
  command->add_option("--name", o->name, "What the cluster is called")->option_text("NAME");
  command->add_option("-o,--output", o->output, "Write there, not to the standard output")->option_text("FILE");
  add_edit_options(*command, *o);
  command->callback([o] { compose_files(*o); });
}

}  // namespace topomoe::cli
