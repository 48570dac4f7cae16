// Graphviz: one host of each template in full, folded with its count, under the leaves it reaches and the spine.
#include <fmt/format.h>

#include <map>
#include <set>

#include "topology/fabric.hpp"
#include "topology/fabric_map.hpp"
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
    case LinkKind::cpu_root:
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
  std::map<std::string, int> leaves;  // name, number
  const FabricMap map = topology.fabric ? FabricMap(topology, 0) : FabricMap();
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
    if (topology.fabric)
      for (const Nic& nic : host.nics) {
        const std::string leaf = map.leaf_name(first_host, nic.rail);
        leaves.emplace(leaf, map.leaf_of(first_host, nic.rail));
        links += edge(prefix + host.devices[static_cast<std::size_t>(nic.device)].name, leaf, LinkKind::nic,
                      nic.port.GBps_per_direction, true);
      }
    first_host += group.count;
  }
  std::set<std::string> above;
  const auto up = [&](const std::string& from, int id) {
    LinkInfo link;
    map.describe(*topology.fabric, id, link);
    const std::string& to = link.src == from ? link.dst : link.src;
    links += edge(from, to, link.kind, link.GBps_per_direction, true);
    return to;
  };
  for (const auto& [leaf, id] : leaves) {
    out += fmt::format("  {} [fillcolor=\"#e3f2fd\"];\n", quoted(leaf));
    if (map.top == FabricMap::Top::torus) {
      above.insert(up(leaf, map.ring(id, 0, 0)));
    } else if (map.top != FabricMap::Top::none) {
      const std::string spine = up(leaf, map.leaf_up(id));
      const int pod = map.pod_of_unit(id / map.ranks), plane = id % map.ranks % map.planes;
      if (above.insert(spine).second && map.top == FabricMap::Top::core)
        above.insert(up(spine, map.pod_up(pod, plane)));
      if (map.top == FabricMap::Top::mesh && map.pods > 1)
        above.insert(up(spine, map.between(pod, pod == 0 ? 1 : 0, plane)));
    }
  }
  for (const std::string& device : above)
    out += fmt::format("  {} [label={}, fillcolor=\"#e3f2fd\"];\n", quoted(device),
                       quoted(device == "spine" ? fabric_words(topology) : device));
  return out + links + "}\n";
}

}  // namespace topomoe
