// A topology for people (lstopo-like tree, matrices of path class and rate) and for programs (JSON).
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>

#include "topology/fabric.hpp"
#include "topology/fabric_map.hpp"
#include "topology/json_fields.hpp"
#include "topology/names.hpp"
#include "topology/write_json.hpp"

namespace topomoe {
namespace {

constexpr std::size_t kMaxMatrix = 32;

std::string cell(const Route& route) {
  if (route.path_class == PathClass::LOC) return "-";
  if (route.path_class == PathClass::DIS) return "DIS";
  return fmt::format("{} {}", name(route.path_class), short_number(route.bottleneck_GBps, 1));
}

// A host of this template to ask routes of; -1: no group uses it.
int example_host(const Topology& topology, std::size_t template_index) {
  int host = 0;
  for (const HostGroup& group : topology.groups) {
    if (static_cast<std::size_t>(group.template_index) == template_index) return host;
    host += group.count;
  }
  return -1;
}

int host_number(const Topology& topology, std::size_t template_index) {
  int hosts = 0;
  for (const HostGroup& group : topology.groups)
    if (static_cast<std::size_t>(group.template_index) == template_index) hosts += group.count;
  return hosts;
}

// CPUs, and under each what hangs on it by PCIe or C2C.
std::string tree(const HostTemplate& host) {
  std::string out;
  std::vector<bool> shown(host.devices.size(), false);
  const std::function<void(int, int, const Link*)> show = [&](int device, int depth, const Link* by) {
    const HostDevice& own = host.devices[static_cast<std::size_t>(device)];
    if (shown[static_cast<std::size_t>(device)] || depth > 64) return;
    shown[static_cast<std::size_t>(device)] = true;
    out += fmt::format("{:{}}{}", "", 2 + 2 * depth, own.name);
    if (!own.bus_id.empty()) out += fmt::format(" {}", own.bus_id);
    if (by != nullptr) out += fmt::format("  ({} {} GB/s)", name(by->kind), short_number(by->GBps_per_direction));
    for (const Nic& nic : host.nics)
      if (nic.device == device)
        out += fmt::format("  port {} rail {} {} GB/s", nic.name.empty() ? "-" : nic.name, nic.rail,
                           short_number(nic.port.GBps_per_direction));
    out += '\n';
    if (own.kind != DeviceKind::numa && own.kind != DeviceKind::pci_switch) return;
    if (by != nullptr && by->kind == LinkKind::cpu_root) return;  // what hangs below it is shown under its CPU
    for (const Link& link : host.links) {
      if (link.kind != LinkKind::pcie && link.kind != LinkKind::c2c && link.kind != LinkKind::cpu_root) continue;
      const int other = link.src == device ? link.dst : link.dst == device ? link.src : -1;
      if (other >= 0 && host.devices[static_cast<std::size_t>(other)].kind != DeviceKind::numa)
        show(other, depth + 1, &link);
    }
  };
  for (std::size_t i = 0; i < host.devices.size(); ++i)
    if (host.devices[i].kind == DeviceKind::numa) show(static_cast<int>(i), 0, nullptr);
  for (std::size_t i = 0; i < host.devices.size(); ++i) show(static_cast<int>(i), 0, nullptr);
  return out;
}

std::string table(const std::vector<std::string>& columns, const std::vector<std::string>& rows,
                  const std::function<std::string(std::size_t, std::size_t)>& text) {
  std::vector<std::string> cells;
  std::size_t width = 4;
  for (std::size_t row = 0; row < rows.size(); ++row)
    for (std::size_t column = 0; column < columns.size(); ++column) {
      cells.push_back(text(row, column));
      width = std::max({width, cells.back().size(), columns[column].size()});
    }
  std::string out = fmt::format("  {:6}", "");
  for (const std::string& column : columns) out += fmt::format(" {:>{}}", column, width);
  for (std::size_t row = 0; row < rows.size(); ++row) {
    out += fmt::format("\n  {:6}", rows[row]);
    for (std::size_t column = 0; column < columns.size(); ++column)
      out += fmt::format(" {:>{}}", cells[row * columns.size() + column], width);
  }
  return out + "\n";
}

std::string matrices(const Router& router, const HostTemplate& host, int first_gpu) {
  std::vector<std::string> gpus, nics;
  for (const int gpu : host.gpus) gpus.push_back(host.devices[static_cast<std::size_t>(gpu)].name);
  for (std::size_t i = 0; i < host.nics.size(); ++i)
    nics.push_back(host.nics[i].name.empty() ? fmt::format("nic{}", i) : host.nics[i].name);
  if (gpus.empty()) return "";
  if (gpus.size() > kMaxMatrix || nics.size() > kMaxMatrix) return "  (too many devices for a matrix)\n";
  std::string out = "  GPU to GPU: path class, GB/s one direction\n";
  out += table(gpus, gpus, [&](std::size_t row, std::size_t column) {
    return cell(router.route(first_gpu + static_cast<int>(row), first_gpu + static_cast<int>(column)));
  });
  if (nics.empty()) return out;
  out += "  GPU to NIC: path class, GB/s one direction; * its own\n";
  return out + table(nics, gpus, [&](std::size_t row, std::size_t column) {
           const int gpu = first_gpu + static_cast<int>(row);
           return cell(router.route_to_nic(gpu, static_cast<int>(column))) +
                  (router.nearest_nic(gpu) == static_cast<int>(column) ? "*" : "");
         });
}

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

// Who stands where, in the names people use: "  leaf0 sw-1: n1 to n8, 8 hosts".
std::string named_leaves(const Topology& topology) {
  const Fabric& fabric = *topology.fabric;
  if (topology.host_names.empty() && fabric.leaf_names.empty()) return "";
  constexpr int kMost = 32;
  const FabricMap map(topology, 0);
  std::string out;
  const int leaves = topology.leaf_count();
  for (int leaf = 0; leaf < std::min(leaves, kMost); ++leaf) {
    const int unit = leaf / map.ranks, first = map.first_host(unit),
              end = std::min(map.first_host(unit + 1), map.hosts);
    out += fmt::format("  leaf{}", leaf);
    if (!fabric.leaf_names.empty()) out += ' ' + fabric.leaf_names[static_cast<std::size_t>(leaf)];
    out += ": " + topology.host_name(first);
    if (end - first > 1) out += fmt::format(" to {}, {} hosts", topology.host_name(end - 1), end - first);
    const int pod = map.pod_of_unit(unit);
    if (!fabric.pod_names.empty()) out += ", under " + fabric.pod_names[static_cast<std::size_t>(pod)];
    out += '\n';
  }
  if (leaves > kMost) out += fmt::format("  and {} leaves more\n", leaves - kMost);
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
    out = fmt::format("fabric: {}{} leaves, {} hosts a leaf", fabric.rail_optimised ? "rail-optimised, " : "",
                      topology.leaf_count(), sizes_words(fabric.leaf_hosts, fabric.hosts_per_leaf));
    if (fabric.rail_optimised) out += fmt::format(", {} rails", fabric.rails);
    if (fabric.planes > 1) out += fmt::format(" in {} planes", fabric.planes);
    if (fabric.spine_count == 0) return out + ", no spine\n" + named_leaves(topology);
    out += fmt::format(", {} spines, {}:1 oversubscription, {}\n", fabric.spine_count,
                       short_number(fabric.oversubscription), rate_line(fabric.uplink, "up from a leaf"));
    if (fabric.kind == FabricKind::dragonfly_plus)
      out += fmt::format("  groups of {} hosts, {}\n", fabric.hosts_per_pod,
                         rate_line(fabric.pod_uplink, "from one to each other"));
    else if (fabric.hosts_per_pod > 0 && fabric.core_count == 0)
      out += fmt::format("  pods of {} hosts, not joined\n", fabric.hosts_per_pod);
    else if (fabric.hosts_per_pod > 0)
      out += fmt::format("  pods of {} hosts, {} cores, {}:1 oversubscription, {}\n", fabric.hosts_per_pod,
                         fabric.core_count, short_number(fabric.pod_oversubscription),
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
  std::string out = fmt::format("{}: {} hosts, {} GPUs in {} {} of up to {}; fingerprint {}\n", topology.name,
                                topology.host_count(), topology.gpu_count(), topology.node_count(),
                                topology.hosts_per_domain > 1 ? "NVLink domains" : "nodes", topology.gpus_per_node(),
                                fingerprint(topology));
  for (std::size_t i = 0; i < topology.templates.size(); ++i) {
    const HostTemplate& host = topology.templates[i];
    const int example = example_host(topology, i);
    out += fmt::format("\nhost {} x {}\n", host.name, host_number(topology, i));
    if (!host.gpus.empty()) out += gpu_line(host.gpu) + nvlink_line(host);
    out += tree(host);
    if (example >= 0) out += matrices(router, host, topology.first_gpu_of_host(example));
  }
  const std::string fabric = fabric_line(topology);
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
  const auto route_json = [](const Route& route) {
    Json value;
    value["path_class"] = name(route.path_class);
    // LOC has no rate: it never leaves the GPU.
    value["GBps_per_direction"] = route.path_class == PathClass::LOC ? Json() : json_number(route.bottleneck_GBps);
    return value;
  };
  Json hosts = Json::array();
  for (std::size_t i = 0; i < topology.templates.size(); ++i) {
    const HostTemplate& host = topology.templates[i];
    const int example = example_host(topology, i);
    Json value;
    value["template"] = host.name;
    value["count"] = host_number(topology, i);
    Json gpu_gpu = Json::array(), gpu_nic = Json::array();
    const int gpus = example < 0 ? 0 : static_cast<int>(host.gpus.size());
    const int first = example < 0 ? 0 : topology.first_gpu_of_host(example);
    for (int a = 0; a < gpus; ++a) {
      Json row = Json::array(), nic_row = Json::array();
      for (int b = 0; b < gpus; ++b) row.push_back(route_json(router.route(first + a, first + b)));
      for (int n = 0; n < static_cast<int>(host.nics.size()); ++n)
        nic_row.push_back(route_json(router.route_to_nic(first + a, n)));
      gpu_gpu.push_back(std::move(row));
      gpu_nic.push_back(std::move(nic_row));
    }
    value["gpu_to_gpu"] = std::move(gpu_gpu);
    value["gpu_to_nic"] = std::move(gpu_nic);
    hosts.push_back(std::move(value));
  }
  json["host_routes"] = std::move(hosts);
  json["warnings"] = topology.warnings;
  json["cluster"] = cluster_json(topology);
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace topomoe
