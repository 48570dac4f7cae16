// One number for "the same cluster as far as a plan can tell".
//
// FNV-1a over a canonical text: what is connected to what, at which rate and latency, with which bus ids, and the
// GPUs' figures. Left out: names, sources, warnings, and whether a template was given as shape or as graph.
#include <fmt/format.h>

#include <cstdint>
#include <nlohmann/json.hpp>

#include "topology/fabric_map.hpp"
#include "topology/names.hpp"
#include "topomoe/topology.hpp"

namespace topomoe {
namespace {

using Json = nlohmann::ordered_json;

Json rate_json(double GBps, double latency_us) { return Json::array({GBps, latency_us}); }

Json host_json(const HostTemplate& host) {
  const GpuSpec& gpu = host.gpu;
  Json json;
  json["gpu"] = {gpu.memory_GiB, gpu.hbm_GBps, gpu.bf16_TFLOPps, gpu.fp8_TFLOPps, gpu.fp32_TFLOPps, gpu.sms};
  json["nvlink"] = name(host.nvlink);
  for (const HostDevice& device : host.devices)
    json["devices"].push_back({name(device.kind), device.bus_id, device.numa});
  json["gpus"] = host.gpus;
  for (const Link& link : host.links)
    json["links"].push_back(
        {link.src, link.dst, name(link.kind), link.both_ways, rate_json(link.GBps_per_direction, link.latency_us)});
  for (const Nic& nic : host.nics)
    json["nics"].push_back({nic.device, nic.rail, rate_json(nic.port.GBps_per_direction, nic.port.latency_us)});
  return json;
}

std::uint64_t fnv1a(const std::string& text) {
  std::uint64_t hash = 14695981039346656037ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  return hash;
}

}  // namespace

std::string fingerprint(const Topology& topology) {
  Json json;
  for (const HostGroup& group : topology.groups) {
    Json host = host_json(topology.templates[static_cast<std::size_t>(group.template_index)]);
    Json& groups = json["groups"];
    // Two groups of equal hosts in a row are one group.
    if (!groups.empty() && groups.back()["host"] == host)
      groups.back()["count"] = groups.back()["count"].get<std::int64_t>() + group.count;
    else
      groups.push_back({{"count", std::int64_t{group.count}}, {"host", std::move(host)}});
  }
  json["hosts_per_domain"] = topology.hosts_per_domain;
  if (topology.fabric) {
    const Fabric& fabric = *topology.fabric;
    json["fabric"] = {fabric.rails, fabric.rail_optimised, fabric.hosts_per_leaf, fabric.spine_count > 0};
    if (fabric.spine_count > 0)
      json["fabric"].push_back(rate_json(fabric.uplink.GBps_per_direction, fabric.uplink.latency_us));
    // What only newer fabrics have, so that the others keep their number.
    if (fabric.kind == FabricKind::torus)
      json["torus"] = {fabric.dims, rate_json(fabric.ring.GBps_per_direction, fabric.ring.latency_us)};
    if (fabric.planes > 1) json["planes"] = fabric.planes;
    if (fabric.hosts_per_pod > 0)
      json["pods"] = {name(fabric.kind), fabric.hosts_per_pod,
                      rate_json(fabric.pod_uplink.GBps_per_direction, fabric.pod_uplink.latency_us)};
    const FabricMap map(topology, 0);
    if (!map.unit_first.empty()) json["leaves"] = map.unit_first;
    if (!map.pod_first.empty()) json["pod_leaves"] = map.pod_first;
    if (map.top == FabricMap::Top::pods) json["pods_joined"] = false;
    if (!fabric.exceptions.empty()) {
      json["counts"] = {fabric.spine_count, fabric.core_count};  // what share of a cable one of n is
      for (const FabricException& own : fabric.exceptions) json["exceptions"].push_back({own.name, own.factor});
    }
  }
  return fmt::format("{:016x}", fnv1a(json.dump(-1, ' ', true, Json::error_handler_t::replace)));
}

}  // namespace topomoe
