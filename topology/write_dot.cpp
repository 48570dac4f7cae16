// Graphviz: one host of each template in full, folded with its count, under the leaves it reaches and the spine.
#include <fmt/format.h>

#include <set>

#include "topology/names.hpp"

namespace topomoe {
namespace {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) out += c;
  }
  return out + "\"";
}

const char* colour(LinkKind kind) {
  switch (kind) {
    case LinkKind::nvlink:
    case LinkKind::xgmi: return "#2e7d32";
    case LinkKind::c2c: return "#00838f";
    case LinkKind::cpu_interconnect: return "#6a1b9a";
    case LinkKind::nic:
    case LinkKind::leaf_spine:
    case LinkKind::pod_core:
    case LinkKind::group_group:
    case LinkKind::ring: return "#1565c0";
    case LinkKind::pcie: break;
  }
  return "#757575";
}

std::string edge(const std::string& a, const std::string& b, LinkKind kind, double GBps, bool both_ways) {
  return fmt::format("  {} -> {} [label={}, color={}, dir={}];\n", quoted(a), quoted(b), quoted(short_number(GBps)),
                     quoted(colour(kind)), both_ways ? "both" : "forward");
}

}  // namespace

std::string write_dot(const Topology& topology) {
  require_valid(topology, topology.name);
  std::string out = fmt::format(
      "digraph {} {{\n  graph [rankdir=TB, label={}, labelloc=t, fontname=\"sans-serif\"];\n"
      "  node [shape=box, style=filled, fillcolor=white, fontname=\"sans-serif\"];\n"
      "  edge [fontsize=9, fontname=\"sans-serif\"];\n",
      quoted(topology.name),
      quoted(fmt::format("{}: {} hosts, {} GPUs; GB/s one direction", topology.name, topology.host_count(),
                         topology.gpu_count())));
  std::set<std::string> leaves;
  std::string links;
  int first_host = 0;
  for (std::size_t g = 0; g < topology.groups.size(); ++g) {
    const HostGroup& group = topology.groups[g];
    const HostTemplate& host = topology.templates[static_cast<std::size_t>(group.template_index)];
    const std::string prefix = fmt::format("group{}.", g);
    out += fmt::format("  subgraph {} {{\n    label={};\n", quoted("cluster_" + prefix),
                       quoted(fmt::format("{} x {} (from host{})", host.name, group.count, first_host)));
    for (const HostDevice& device : host.devices)
      out += fmt::format("    {} [label={}];\n", quoted(prefix + device.name),
                         quoted(device.bus_id.empty() ? device.name : device.name + " " + device.bus_id));
    out += "  }\n";
    for (const Link& link : host.links)
      links += edge(prefix + host.devices[static_cast<std::size_t>(link.src)].name,
                    prefix + host.devices[static_cast<std::size_t>(link.dst)].name, link.kind, link.GBps_per_direction,
                    link.both_ways);
    if (topology.fabric) {
      const int pod = first_host / topology.fabric->hosts_per_leaf;
      for (const Nic& nic : host.nics) {
        const int leaf = topology.fabric->rail_optimised ? pod * topology.fabric->rails + nic.rail : pod;
        leaves.insert(fmt::format("leaf{}", leaf));
        links += edge(prefix + host.devices[static_cast<std::size_t>(nic.device)].name, fmt::format("leaf{}", leaf),
                      LinkKind::nic, nic.port.GBps_per_direction, true);
      }
    }
    first_host += group.count;
  }
  for (const std::string& leaf : leaves) {
    out += fmt::format("  {} [fillcolor=\"#e3f2fd\"];\n", quoted(leaf));
    if (topology.fabric->spine_count > 0)
      links += edge(leaf, "spine", LinkKind::leaf_spine, topology.fabric->uplink.GBps_per_direction, true);
  }
  if (topology.fabric && topology.fabric->spine_count > 0)
    out +=
        fmt::format("  \"spine\" [label={}, fillcolor=\"#e3f2fd\"];\n",
                    quoted(fmt::format("{} spines, {} leaves", topology.fabric->spine_count, topology.leaf_count())));
  return out + links + "}\n";
}

}  // namespace topomoe
