#include "topology/write/write_json.hpp"

#include <unordered_set>

#include "topology/names.hpp"
#include "topology/read/json_fields.hpp"
#include "topology/warnings.hpp"

namespace topomoe {
namespace {

using Json = nlohmann::ordered_json;

Json rate_json(const Rate& rate) {
  Json json;
  if (rate.GBps_per_direction > 0) json["GBps_per_direction"] = json_number(rate.GBps_per_direction);
  json["latency_us"] = json_number(rate.latency_us);
  json["source"] = source_text(rate.source, rate.source_note);
  return json;
}

Json gpu_json(const GpuSpec& gpu) {
  Json json;
  json["name"] = gpu.name;
  const auto figure = [&](const char* key, double value) {
    if (value > 0) json[key] = json_number(value);
  };
  figure("memory_GiB", gpu.memory_GiB);
  figure("hbm_GBps", gpu.hbm_GBps);
  figure("bf16_TFLOPps", gpu.bf16_TFLOPps);
  figure("fp8_TFLOPps", gpu.fp8_TFLOPps);
  figure("fp32_TFLOPps", gpu.fp32_TFLOPps);
  if (gpu.sms > 0) json["sms"] = gpu.sms;
  json["source"] = source_text(gpu.source, gpu.source_note);
  return json;
}

Json shape_json(const HostShape& shape) {
  Json json;
  json["kind"] = shape.kind;
  json["gpus"] = shape.gpus;
  json["numa_nodes"] = shape.numa_nodes;
  json["gpus_per_pci_switch"] = shape.gpus_per_pci_switch;
  json["nics"] = shape.nics;
  const auto rate = [&](const char* key, const Rate& value) {
    if (value.GBps_per_direction > 0) json[key] = rate_json(value);
  };
  rate("nvlink", shape.nvlink);
  rate("pcie", shape.pcie);
  rate("c2c", shape.c2c);
  rate("cpu_interconnect", shape.cpu_interconnect);
  rate("cpu_root", shape.cpu_root);
  rate("nic", shape.nic);
  return json;
}

void add_attributes(Json& json, const std::vector<Attribute>& attributes) {
  for (const Attribute& own : attributes) json["attributes"][own.name] = own.value;
}

void add_graph(Json& json, const HostTemplate& host) {
  const auto device_name = [&](int device) { return host.devices[static_cast<std::size_t>(device)].name; };
  json["nvlink"] = name(host.nvlink);
  Json devices = Json::array(), links = Json::array(), nics = Json::array();
  for (const HostDevice& device : host.devices) {
    Json value;
    value["kind"] = name(device.kind);
    value["name"] = device.name;
    if (!device.bus_id.empty()) value["bus_id"] = device.bus_id;
    if (device.numa >= 0) value["numa"] = device.numa;
    add_attributes(value, device.attributes);
    devices.push_back(std::move(value));
  }
  for (const Link& link : host.links) {
    Json value;
    value["src"] = device_name(link.src);
    value["dst"] = device_name(link.dst);
    value["kind"] = name(link.kind);
    value["GBps_per_direction"] = json_number(link.GBps_per_direction);
    value["latency_us"] = json_number(link.latency_us);
    if (!link.both_ways) value["both_ways"] = false;
    if (link.count > 0) value["count"] = link.count;
    value["source"] = source_text(link.source, link.source_note);
    links.push_back(std::move(value));
  }
  for (const Nic& nic : host.nics) {
    Json value;
    value["device"] = device_name(nic.device);
    value["rail"] = nic.rail;
    if (!nic.name.empty()) value["name"] = nic.name;
    value["port"] = rate_json(nic.port);
    add_attributes(value, nic.attributes);
    nics.push_back(std::move(value));
  }
  json["devices"] = std::move(devices);
  json["links"] = std::move(links);
  json["nics"] = std::move(nics);
}

Json template_json(const HostTemplate& host) {
  Json json;
  json["name"] = host.name;
  json["gpu"] = gpu_json(host.gpu);
  // The short form only where it still says the same: somebody may have edited the graph.
  if (host.shape && build_host(*host.shape, host.gpu, host.name) == host)
    json["shape"] = shape_json(*host.shape);
  else
    add_graph(json, host);
  return json;
}

// A fat tree of one or two tiers and one plane, all as its kind says, is written without a kind.
Json fabric_json(const Fabric& fabric) {
  Json json;
  if (fabric.kind == FabricKind::torus) {
    json["kind"] = name(fabric.kind);
    json["dims"] = fabric.dims;
    json["ring"] = rate_json(fabric.ring);
  } else {
    if (fabric.kind != FabricKind::fat_tree || fabric.hosts_per_pod > 0 || fabric.planes > 1)
      json["kind"] = name(fabric.kind);
    json["rails"] = fabric.rails;
    json["rail_optimised"] = fabric.rail_optimised;
    if (fabric.planes > 1) json["planes"] = fabric.planes;
    json["hosts_per_leaf"] = fabric.hosts_per_leaf;
    if (!fabric.leaf_hosts.empty()) json["leaf_hosts"] = fabric.leaf_hosts;
    if (!fabric.leaf_names.empty()) json["leaf_names"] = fabric.leaf_names;
    json["spine_count"] = fabric.spine_count;
    // Leaves that nothing joins may have figures too; uplinks that nobody knows have no share either.
    if (fabric.oversubscription != 1 || fabric.uplink.GBps_per_direction > 0)
      json["oversubscription"] = json_number(fabric.oversubscription);
    if (fabric.spine_count > 0 || fabric.uplink != Rate{}) json["uplink"] = rate_json(fabric.uplink);
    if (fabric.hosts_per_pod > 0) {
      const std::string pod = fabric.kind == FabricKind::dragonfly_plus ? "group" : "pod";
      json["hosts_per_" + pod] = fabric.hosts_per_pod;
      if (fabric.kind == FabricKind::fat_tree) json["core_count"] = fabric.core_count;
      if (!fabric.pod_leaves.empty()) json[pod + "_leaves"] = fabric.pod_leaves;
      if (fabric.kind != FabricKind::fat_tree || fabric.core_count > 0) {
        if (fabric.pod_uplink.GBps_per_direction > 0)
          json[pod + "_oversubscription"] = json_number(fabric.pod_oversubscription);
        json[pod + "_uplink"] = rate_json(fabric.pod_uplink);
      }
    }
    if (!fabric.pod_names.empty()) json["pod_names"] = fabric.pod_names;
  }
  for (const FabricException& own : fabric.exceptions) {
    Json value;
    value["name"] = own.name;
    value["factor"] = json_number(own.factor);
    json["exceptions"].push_back(std::move(value));
  }
  return json;
}

}  // namespace

Json cluster_json(const Topology& topology) {
  Json json;
  json["schema"] = "topomoe.cluster/1";
  json["name"] = topology.name;
  if (!topology.source.empty()) json["source"] = topology.source;
  Json hosts = Json::array(), templates = Json::array();
  for (const HostGroup& group : topology.groups) {
    Json value;
    value["template"] = topology.templates[static_cast<std::size_t>(group.template_index)].name;
    value["count"] = group.count;
    hosts.push_back(std::move(value));
  }
  for (const HostTemplate& host : topology.templates) templates.push_back(template_json(host));
  json["hosts"] = std::move(hosts);
  json["hosts_per_domain"] = topology.hosts_per_domain;
  if (!topology.host_names.empty()) json["host_names"] = topology.host_names;
  if (topology.fabric) json["fabric"] = fabric_json(*topology.fabric);
  json["templates"] = std::move(templates);
  const std::vector<std::string> lines = warnings_from_sources(topology);
  const std::unordered_set<std::string> derived(lines.begin(), lines.end());
  Json warnings = Json::array();
  for (const std::string& line : topology.warnings)
    if (derived.count(line) == 0) warnings.push_back(line);
  if (!warnings.empty()) json["warnings"] = std::move(warnings);
  return json;
}

std::string write_cluster_json(const Topology& topology) {
  require_valid(topology, topology.name.empty() ? "topology" : topology.name);
  // Bytes that are not UTF-8 (a device name from a file) are replaced, not thrown at the caller.
  return cluster_json(topology).dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace topomoe
