// The same kind of cluster with fewer or more GPUs, in whole hosts.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

#include "topology/fabric.hpp"
#include "topology/names.hpp"
#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

void shrink(Topology& topology, int gpus) {
  int left = gpus;
  std::vector<HostGroup> kept;
  for (HostGroup group : topology.groups) {
    if (left <= 0) break;
    const int each = static_cast<int>(topology.templates[static_cast<std::size_t>(group.template_index)].gpus.size());
    if (each > 0) group.count = std::min(group.count, (left + each - 1) / each);
    left -= group.count * each;
    kept.push_back(group);
  }
  topology.groups = std::move(kept);
}

// Hosts that had no network between them get the plainest one: non-blocking, a leaf for each rail where each GPU has a
// NIC. Leaves that had no spine above them get one.
std::string grow_fabric(Topology& topology, const HostTemplate& host) {
  const bool one_domain = topology.host_count() <= topology.hosts_per_domain;
  std::string note;
  if (!topology.fabric) {
    if (one_domain || topology.host_count() == 1) return note;
    if (host.nics.empty())
      throw InvalidInput(topology.name + ": hosts",
                         fmt::format("{} of {} without a NIC", topology.host_count(), host.name),
                         "give the host template \"nics\", or stay within one host");
    Fabric fabric;
    fabric.rails = static_cast<int>(host.nics.size());
    fabric.rail_optimised = host.nics.size() >= host.gpus.size();
    for (const Nic& nic : host.nics) fabric.rails = std::max(fabric.rails, nic.rail + 1);
    fabric.hosts_per_leaf = 32;
    topology.fabric = fabric;
    note = fmt::format("; a fabric is assumed, {}32 hosts a leaf, non-blocking",
                       fabric.rail_optimised ? "rail-optimised, " : "");
  }
  Fabric& fabric = *topology.fabric;
  if (fabric.spine_count == 0 && topology.leaf_count() > (fabric.rail_optimised ? fabric.rails : 1)) {
    fabric.spine_count = 1;
    fabric.uplink = {leaf_down_GBps(topology, fabric) / fabric.oversubscription, 1, Source::assumed,
                     fmt::format("{}:1 oversubscription, grown by --gpus", short_number(fabric.oversubscription))};
    note += "; a spine is assumed above the leaves";
  }
  return note;
}

}  // namespace

Topology resize_hosts(const Topology& topology, int gpus, std::string* note) {
  const int had = topology.gpu_count();
  const int had_hosts = topology.host_count();
  if (gpus < 1) throw InvalidInput("gpus", std::to_string(gpus), "1 or more");
  if (had == 0)
    throw InvalidInput(topology.name + ": gpus", "0",
                       "a cluster without GPUs cannot be resized; add a template with GPUs");
  Topology result = topology;
  std::string said;
  if (gpus <= had) {
    shrink(result, gpus);
    fit_fabric(result);
    if (result.host_count() == had_hosts && result.gpu_count() == gpus) {
      if (note != nullptr) note->clear();
      return result;
    }
    said = fmt::format("{}: the first {} of {} hosts ({} of {} GPUs)", topology.name, result.host_count(), had_hosts,
                       result.gpu_count(), had);
    if (result.gpu_count() != gpus) said += fmt::format("; {} GPUs asked for, hosts are taken whole", gpus);
  } else {
    const auto grown = std::find_if(result.groups.rbegin(), result.groups.rend(), [&](const HostGroup& group) {
      return !result.templates[static_cast<std::size_t>(group.template_index)].gpus.empty();
    });
    const HostTemplate& host = topology.templates[static_cast<std::size_t>(grown->template_index)];
    const int each = static_cast<int>(host.gpus.size());
    const std::int64_t more = (std::int64_t{gpus} - had + each - 1) / each;
    if (had + more * each > 10'000'000) throw InvalidInput("gpus", std::to_string(gpus), "at most 10,000,000");
    grown->count += static_cast<int>(more);
    said = fmt::format("{}: grown from {} hosts to {} ({} GPUs) with more of {}", topology.name, had_hosts,
                       result.host_count(), result.gpu_count(), host.name);
    fit_fabric(result);
    const std::string network = grow_fabric(result, host);
    if (result.fabric)
      said += fmt::format(", leaves from {} to {} at the same {}:1 oversubscription", topology.leaf_count(),
                          result.leaf_count(), short_number(result.fabric->oversubscription));
    said += network;
    add_warning(result, said);
  }
  if (note != nullptr) *note = said;
  require_valid(result, topology.name);
  return result;
}

}  // namespace topomoe
