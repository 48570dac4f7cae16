#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "topology/fabric.hpp"
#include "topology/read/host_list.hpp"
#include "topomoe/error.hpp"
#include "topomoe/export.hpp"

namespace topomoe {
namespace {

std::vector<std::string> host_names(const Topology& topology, int first, int end) {
  std::vector<std::string> names;
  for (int host = first; host < end; ++host) names.push_back(topology.host_name(host));
  return names;
}

std::string heading(const Topology& topology, const char* plugin) {
  std::string name = topology.name;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }, '?');
  return fmt::format("# {}: {} hosts, for {}\n", name.empty() ? "cluster" : name, topology.host_count(), plugin);
}

class TreeWriter {
 public:
  explicit TreeWriter(const Topology& topology) : topology_(topology) {}

  std::string run() {
    const int hosts = topology_.host_count();
    if (!topology_.fabric)
      fail("no fabric", "nothing says what joins the hosts; give a description of the network too");
    const Fabric& fabric = *topology_.fabric;
    if (fabric.kind == FabricKind::torus) fail("a torus", "topology/tree has switches over hosts; a torus has none");
    if (topology_.hosts_per_domain > 1)
      out_ += fmt::format("# scale-up domains of {} hosts: topology/block, another file\n", topology_.hosts_per_domain);
    if (fabric.kind == FabricKind::dragonfly_plus)
      out_ += "# groups that are joined each with each: slurm.conf: TopologyParam=Dragonfly\n";
    const std::vector<int> units = unit_sizes(fabric, hosts);
    const bool has_spines = fabric.spine_count > 0, has_pods = fabric.hosts_per_pod > 0;
    std::vector<std::string> leaves, pods;
    int first = 0;
    for (std::size_t unit = 0; unit < units.size(); ++unit) {
      leaves.push_back(unit_name(unit));
      lines_ += fmt::format("SwitchName={} Nodes={}\n", leaves.back(),
                            host_list_of(host_names(topology_, first, first + units[unit]), "export slurm: host"));
      first += units[unit];
    }
    const std::vector<int> sizes = has_spines ? pod_sizes(fabric, hosts) : std::vector<int>{};
    auto next = leaves.begin();
    for (std::size_t pod = 0; pod < sizes.size(); ++pod) {
      const std::vector<std::string> own(next, next + sizes[pod]);
      next += sizes[pod];
      const bool named = pod < fabric.pod_names.size() && !fabric.pod_names[pod].empty();
      pods.push_back(unique(named ? fabric.pod_names[pod]
                            : !has_pods
                                ? "spine"
                                : fmt::format("{}{}", fabric.kind == FabricKind::fat_tree ? "pod" : "group", pod)));
      lines_ += switch_over(pods.back(), own);
    }
    if (has_pods && (fabric.core_count > 0 || fabric.kind == FabricKind::dragonfly_plus))
      lines_ += switch_over(unique("core"), pods);
    return heading(topology_, "TopologyPlugin=topology/tree") + out_ + lines_;
  }

 private:
  [[noreturn]] static void fail(const std::string& value, const std::string& hint) {
    throw InvalidInput("export slurm", value, hint);
  }
  static std::string switch_over(const std::string& name, const std::vector<std::string>& below) {
    return fmt::format("SwitchName={} Switches={}\n", name, host_list_of(below, "export slurm: switch"));
  }

  // The one leaf of these hosts, or all of them together.
  std::string unit_name(std::size_t unit) {
    const Fabric& fabric = *topology_.fabric;
    const auto ranks = static_cast<std::size_t>(fabric.rail_optimised ? fabric.rails : fabric.planes);
    const auto leaf_name = [&](std::size_t leaf) {
      return leaf < fabric.leaf_names.size() && !fabric.leaf_names[leaf].empty() ? fabric.leaf_names[leaf]
                                                                                 : fmt::format("leaf{}", leaf);
    };
    if (ranks == 1) return unique(leaf_name(unit));
    std::string name = unique(fmt::format("unit{}", unit));
    out_ += fmt::format("# {}: {} to {}, one for each {}\n", name, leaf_name(unit * ranks),
                        leaf_name(unit * ranks + ranks - 1), fabric.rail_optimised ? "rail" : "plane");
    return name;
  }
  std::string unique(std::string name) {
    while (!names_.insert(name).second) name += "_";
    return name;
  }

  const Topology& topology_;
  std::string out_, lines_;
  std::set<std::string> names_;
};

}  // namespace

std::string write_slurm_tree(const Topology& topology) { return TreeWriter(topology).run(); }

std::string write_slurm_blocks(const Topology& topology) {
  const int size = topology.hosts_per_domain, hosts = topology.host_count();
  if (size < 2)
    throw InvalidInput("export slurm-block", "no scale-up domain of several hosts",
                       "blocks are such domains (hosts_per_domain); topology/tree takes the switches");
  std::string out = heading(topology, "TopologyPlugin=topology/block");
  int smallest = size;
  for (int first = 0, block = 0; first < hosts; first += size, ++block) {
    const int end = std::min(first + size, hosts);
    smallest = std::min(smallest, end - first);
    out += fmt::format("BlockName=block{} Nodes={}\n", block,
                       host_list_of(host_names(topology, first, end), "export slurm-block: host"));
  }
  return out + fmt::format("BlockSizes={}\n", smallest);
}

}  // namespace topomoe
