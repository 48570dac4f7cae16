// Counting through host groups: which host, which GPU, which node.
#include "topomoe/topology.hpp"

#include <algorithm>

#include "topology/fabric.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

struct HostPlace {
  const HostTemplate* host_template;
  int host;
  int first_gpu;
};

int gpus_of(const HostTemplate& t) { return static_cast<int>(t.gpus.size()); }

InvalidInput out_of_range(const char* what, int value, int count) {
  return {what, std::to_string(value), "allowed: 0 to " + std::to_string(count - 1)};
}

// Groups are few (one for each kind of host), so a walk over them is cheap.
HostPlace place_of_host(const Topology& t, int host) {
  int first_host = 0, first_gpu = 0;
  for (const HostGroup& group : t.groups) {
    const HostTemplate& own = t.templates[static_cast<std::size_t>(group.template_index)];
    if (host >= 0 && host < first_host + group.count)
      return {&own, host, first_gpu + (host - first_host) * gpus_of(own)};
    first_host += group.count;
    first_gpu += group.count * gpus_of(own);
  }
  throw out_of_range("host", host, first_host);
}

HostPlace place_of_gpu(const Topology& t, int gpu) {
  int first_host = 0, first_gpu = 0;
  for (const HostGroup& group : t.groups) {
    const HostTemplate& own = t.templates[static_cast<std::size_t>(group.template_index)];
    const int each = gpus_of(own);
    if (gpu >= 0 && gpu < first_gpu + group.count * each) {
      const int host_in_group = (gpu - first_gpu) / each;
      return {&own, first_host + host_in_group, first_gpu + host_in_group * each};
    }
    first_host += group.count;
    first_gpu += group.count * each;
  }
  throw out_of_range("gpu", gpu, first_gpu);
}

const HostDevice& gpu_device(const HostPlace& place, int gpu) {
  const auto local = static_cast<std::size_t>(gpu - place.first_gpu);
  return place.host_template->devices[static_cast<std::size_t>(place.host_template->gpus[local])];
}

}  // namespace

std::string_view attribute(const std::vector<Attribute>& of, std::string_view name) {
  for (const Attribute& own : of)
    if (own.name == name) return own.value;
  return {};
}

int Topology::host_count() const {
  int count = 0;
  for (const HostGroup& group : groups) count += group.count;
  return count;
}

int Topology::gpu_count() const {
  int count = 0;
  for (const HostGroup& group : groups)
    count += group.count * gpus_of(templates[static_cast<std::size_t>(group.template_index)]);
  return count;
}

const HostTemplate& Topology::host_template(int host) const { return *place_of_host(*this, host).host_template; }
int Topology::gpus_per_host(int host) const { return gpus_of(host_template(host)); }
int Topology::first_gpu_of_host(int host) const { return place_of_host(*this, host).first_gpu; }
int Topology::host_of(int gpu) const { return place_of_gpu(*this, gpu).host; }
int Topology::node_of(int gpu) const { return host_of(gpu) / hosts_per_domain; }
int Topology::gpus_per_node() const {
  for (int node = 0; node < node_count(); ++node)
    if (const int gpus = gpus_in_node(node); gpus > 0) return gpus;
  return 0;
}

int Topology::node_count() const { return (host_count() + hosts_per_domain - 1) / hosts_per_domain; }

int Topology::gpus_in_node(int node) const {
  if (node < 0 || node >= node_count()) throw out_of_range("node", node, node_count());
  const int end = (node + 1) * hosts_per_domain;
  const int next = end >= host_count() ? gpu_count() : first_gpu_of_host(end);
  return next - first_gpu_of_host(node * hosts_per_domain);
}

bool Topology::uniform() const {
  // One node may be a part of a domain: 64 GPUs of an NVL72 rack are all there is.
  const bool full = host_count() % hosts_per_domain == 0 || host_count() < hosts_per_domain;
  int first = -1;
  for (const HostGroup& group : groups) {
    const bool empty = templates[static_cast<std::size_t>(group.template_index)].gpus.empty();
    if (empty && hosts_per_domain == 1) continue;
    if (first < 0) first = group.template_index;
    if (group.template_index != first) return false;
  }
  return full;
}

int Topology::leaf_count() const {
  if (!fabric || fabric->kind == FabricKind::torus) return 0;
  return unit_count(*fabric, host_count()) * (fabric->rail_optimised ? fabric->rails : fabric->planes);
}

HostRange Topology::hosts_beside(int host) const {
  const int hosts = host_count();
  if (host < 0 || host >= hosts) throw out_of_range("host", host, hosts);
  if (!fabric || fabric->kind == FabricKind::torus) return {host, host + 1};
  int first = host / fabric->hosts_per_leaf * fabric->hosts_per_leaf, size = fabric->hosts_per_leaf;
  if (!fabric->leaf_hosts.empty()) {
    first = 0;
    for (const int own : fabric->leaf_hosts) {
      size = own;
      if (host < first + own) break;
      first += own;
    }
  }
  return {first, std::min(first + size, hosts)};
}

std::string Topology::host_name(int host) const {
  const auto i = static_cast<std::size_t>(host);
  return i < host_names.size() && !host_names[i].empty() ? host_names[i] : "host" + std::to_string(host);
}

std::string Topology::gpu_name(int gpu) const {
  const HostPlace place = place_of_gpu(*this, gpu);
  return host_name(place.host) + "." + gpu_device(place, gpu).name;
}

std::string Topology::bus_id(int gpu) const { return gpu_device(place_of_gpu(*this, gpu), gpu).bus_id; }
const GpuSpec& Topology::gpu_spec(int gpu) const { return place_of_gpu(*this, gpu).host_template->gpu; }

}  // namespace topomoe
