// A topology for people and for programs: what it has, of each host template the tree (show_tree.cpp) and the matrices
// (show_matrix.cpp), then the fabric and what is assumed.
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "topology/counted.hpp"
#include "topology/fabric.hpp"
#include "topology/fabric_map.hpp"
#include "topology/names.hpp"
#include "topology/read/json_fields.hpp"
#include "topology/show/host_matrix.hpp"
#include "topology/write/write_json.hpp"

namespace topomoe {
namespace {

std::string nvlink_line(const HostTemplate& host) {
  if (host.nvlink != Presence::present) return fmt::format("  NVLink: {}\n", name(host.nvlink));
  double least = std::numeric_limits<double>::infinity(), most = 0;
  const char* kind = "nvlink";
  for (const int gpu : host.gpus) {
    double sum = 0;
    for (const Link& link : host.links) {
      if (link.kind != LinkKind::nvlink && link.kind != LinkKind::xgmi) continue;
      kind = name(link.kind);
      if (link.src == gpu || (link.both_ways && link.dst == gpu)) sum += link.GBps_per_direction;
    }
    least = std::min(least, sum);
    most = std::max(most, sum);
  }
  return least == most
             ? fmt::format("  {}: {} GB/s out of each GPU\n", kind, short_number(most))
             : fmt::format("  {}: {} to {} GB/s out of a GPU\n", kind, short_number(least), short_number(most));
}

// Who stands where, in the names people use: "  leaf0 sw-1: n1 to n8, 8 hosts". Leaves of one unit have the same
// hosts: those without names of their own are one line.
std::string named_leaves(const Topology& topology) {
  const Fabric& fabric = *topology.fabric;
  if (topology.host_names.empty() && fabric.leaf_names.empty()) return "";
  constexpr int kMost = 12;
  const FabricMap map(topology, 0);
  const auto own_name = [&](int leaf) {
    return fabric.leaf_names.empty() ? std::string() : fabric.leaf_names[static_cast<std::size_t>(leaf)];
  };
  std::string out;
  const int leaves = topology.leaf_count();
  int leaf = 0;
  for (int lines = 0; leaf < leaves && lines < kMost; ++lines) {
    const int unit = leaf / map.ranks, first = map.first_host(unit),
              end = std::min(map.first_host(unit + 1), map.hosts);
    int last = leaf;
    while (own_name(leaf).empty() && last + 1 < (unit + 1) * map.ranks && own_name(last + 1).empty()) ++last;
    out += fmt::format("  leaf{}", leaf);
    if (last > leaf) out += fmt::format(" to leaf{}", last);
    if (const std::string own = own_name(leaf); !own.empty()) out += ' ' + own;
    out += ": " + topology.host_name(first);
    if (end - first > 1) out += fmt::format(" to {}, {} hosts", topology.host_name(end - 1), end - first);
    const int pod = map.pod_of_unit(unit);
    if (!fabric.pod_names.empty()) out += ", under " + fabric.pod_names[static_cast<std::size_t>(pod)];
    out += '\n';
    leaf = last + 1;
  }
  if (leaf < leaves) out += "  and " + counted(leaves - leaf, "leaf", "leaves") + " more\n";
  return out;
}

std::string fabric_line(const Topology& topology) {
  if (!topology.fabric) return topology.host_count() > 1 ? "fabric: none known\n" : "";
  const Fabric& fabric = *topology.fabric;
  const auto rate_line = [](const Rate& rate, const char* what) {
    if (rate.GBps_per_direction == 0)
      return fmt::format("unknown GB/s {} ({})", what, source_text(rate.source, rate.source_note));
    return fmt::format("{} GB/s {} ({})", short_number(rate.GBps_per_direction), what,
                       source_text(rate.source, rate.source_note));
  };
  std::string out;
  if (fabric.kind == FabricKind::torus) {
    out = fmt::format("fabric: {}, {}\n", fabric_words(topology), rate_line(fabric.ring, "to the next of a ring"));
  } else {
    out = fmt::format("fabric: {}{}, {} a leaf", fabric.rail_optimised ? "rail-optimised, " : "",
                      counted(topology.leaf_count(), "leaf", "leaves"),
                      counted(sizes_words(fabric.leaf_hosts, fabric.hosts_per_leaf), "host"));
    if (fabric.rail_optimised) out += ", " + counted(fabric.rails, "rail");
    if (fabric.planes > 1) out += fmt::format(" in {} planes", fabric.planes);
    if (fabric.spine_count == 0) return out + ", no spine\n" + named_leaves(topology);
    out += fmt::format(", {}, {}:1 oversubscription, {}\n", counted(fabric.spine_count, "spine"),
                       short_number(fabric.oversubscription), rate_line(fabric.uplink, "up from a leaf"));
    if (fabric.kind == FabricKind::dragonfly_plus)
      out += fmt::format("  groups of {}, {}\n", counted(fabric.hosts_per_pod, "host"),
                         rate_line(fabric.pod_uplink, "from one to each other"));
    else if (fabric.hosts_per_pod > 0 && fabric.core_count == 0)
      out += fmt::format("  pods of {}, not joined\n", counted(fabric.hosts_per_pod, "host"));
    else if (fabric.hosts_per_pod > 0)
      out += fmt::format("  pods of {}, {}, {}:1 oversubscription, {}\n", counted(fabric.hosts_per_pod, "host"),
                         counted(fabric.core_count, "core"), short_number(fabric.pod_oversubscription),
                         rate_line(fabric.pod_uplink, "up from a pod"));
  }
  out += named_leaves(topology);
  for (const FabricException& own : fabric.exceptions)
    out += own.factor == 0 ? fmt::format("  {} dead\n", own.name)
                           : fmt::format("  {} at {} of its rate\n", own.name, short_number(own.factor, 4));
  return out;
}

std::string gpu_line(const GpuSpec& gpu) {
  std::string out = "  GPU: " + (gpu.name.empty() ? std::string("not named") : gpu.name);
  const auto figure = [&](const char* format, double value) {
    if (value > 0) out += fmt::format(fmt::runtime(format), short_number(value));
  };
  figure(", {} GiB", gpu.memory_GiB);
  figure(", HBM {} GB/s", gpu.hbm_GBps);
  figure(", BF16 {} TFLOP/s", gpu.bf16_TFLOPps);
  figure(", FP8 {} TFLOP/s", gpu.fp8_TFLOPps);
  figure(", {} SMs", gpu.sms);
  return out + "\n";
}

}  // namespace

std::string show_text(const Topology& topology) {
  const Router router(topology);
  const int hosts = topology.host_count(), gpus = topology.gpu_count();
  std::string out = fmt::format("{}: {}, ", topology.name, counted(hosts, "host"));
  out += gpus == 0
             ? "no GPUs described"
             : fmt::format("{} in {} of up to {}", counted(gpus, "GPU"),
                           counted(topology.node_count(), topology.hosts_per_domain > 1 ? "NVLink domain" : "node"),
                           topology.gpus_per_node());
  out += fmt::format("; fingerprint {}\n", fingerprint(topology));
  for (std::size_t i = 0; i < topology.templates.size(); ++i) {
    const HostTemplate& host = topology.templates[i];
    out +=
        fmt::format("\nhost {} x {}{}\n", host.name, hosts_of(topology, i),
                    host.gpus.empty() && host.nics.empty() && host.links.empty() ? "; nothing is known of what is in it"
                    : host.links.empty()                                         ? ""
                                                                                 : "; rates in GB/s, one direction");
    if (!host.gpus.empty()) out += gpu_line(host.gpu) + nvlink_line(host);
    out += tree_text(host) + matrix_text(host_matrix(router, i));
  }
  const std::string fabric = fabric_line(topology) + host_pairs_text(topology, host_pairs(router));
  if (!fabric.empty()) out += "\n" + fabric;
  if (!topology.warnings.empty()) out += "\nassumed or unknown:\n";
  for (const std::string& line : topology.warnings) out += "  - " + line + "\n";
  return out;
}

std::string show_json(const Topology& topology) {
  using Json = nlohmann::ordered_json;
  const Router router(topology);
  Json json;
  json["schema"] = "topomoe.show/1";
  json["fingerprint"] = fingerprint(topology);
  json["hosts"] = topology.host_count();
  json["gpus"] = topology.gpu_count();
  json["nodes"] = topology.node_count();
  json["gpus_per_node"] = topology.gpus_per_node();
  json["leaves"] = topology.leaf_count();
  json["directed_links"] = router.link_count();
  Json hosts = Json::array();
  for (std::size_t i = 0; i < topology.templates.size(); ++i) {
    Json value;
    value["template"] = topology.templates[i].name;
    value["count"] = hosts_of(topology, i);
    matrix_json(host_matrix(router, i), value);
    hosts.push_back(std::move(value));
  }
  json["host_routes"] = std::move(hosts);
  json["between_hosts"] = host_pairs_json(host_pairs(router));
  json["warnings"] = topology.warnings;
  json["cluster"] = cluster_json(topology);
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace topomoe
