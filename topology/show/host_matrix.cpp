#include "topology/show/host_matrix.hpp"

#include "topology/fabric_map.hpp"

namespace topomoe {
namespace {

PathCell cell_of(const Route& route) { return {route.path_class, route.bottleneck_GBps}; }

int rail_of(const Router& router, int gpu) {
  const Topology& topology = router.topology();
  const int nic = router.nearest_nic(gpu);
  return nic < 0 ? -1 : topology.host_template(topology.host_of(gpu)).nics[static_cast<std::size_t>(nic)].rail;
}

// "" where the hosts are the same, or `known` ones already say as much.
std::string relation(const Topology& topology, const FabricMap& map, int host, int other) {
  if (topology.hosts_per_domain > 1 && host / topology.hosts_per_domain == other / topology.hosts_per_domain)
    return "same NVLink domain";
  if (!topology.fabric) return "no fabric known";
  if (map.top == FabricMap::Top::torus) {
    for (int dim = 0; dim < static_cast<int>(map.dims.size()); ++dim)
      for (const int direction : {0, 1})
        if (map.neighbour(host, dim, direction) == other) return "next in a ring";
    return "further in the torus";
  }
  if (map.unit_of(host) == map.unit_of(other)) return map.ranks > 1 ? "same leaves" : "same leaf";
  const bool has_pods = topology.fabric->hosts_per_pod > 0;
  if (has_pods && map.pod_of(host) == map.pod_of(other))
    return map.top == FabricMap::Top::mesh ? "same group" : "same pod";
  return !has_pods ? "other leaf" : map.top == FabricMap::Top::mesh ? "other group" : "other pod";
}

}  // namespace

int example_host(const Topology& topology, std::size_t template_index) {
  int host = 0;
  for (const HostGroup& group : topology.groups) {
    if (static_cast<std::size_t>(group.template_index) == template_index) return host;
    host += group.count;
  }
  return -1;
}

int hosts_of(const Topology& topology, std::size_t template_index) {
  int hosts = 0;
  for (const HostGroup& group : topology.groups)
    if (static_cast<std::size_t>(group.template_index) == template_index) hosts += group.count;
  return hosts;
}

HostMatrix host_matrix(const Router& router, std::size_t template_index) {
  const Topology& topology = router.topology();
  const HostTemplate& host = topology.templates[template_index];
  const int example = example_host(topology, template_index);
  HostMatrix out;
  if (example < 0 || host.gpus.empty()) return out;
  for (const int gpu : host.gpus) out.gpus.push_back(host.devices[static_cast<std::size_t>(gpu)].name);
  for (const Nic& nic : host.nics)
    out.nics.push_back(nic.name.empty() ? host.devices[static_cast<std::size_t>(nic.device)].name : nic.name);
  const int first = topology.first_gpu_of_host(example), gpus = static_cast<int>(out.gpus.size());
  for (int row = first; row < first + gpus; ++row) {
    for (int column = first; column < first + gpus; ++column)
      out.gpu_to_gpu.push_back(cell_of(router.route(row, column)));
    for (int nic = 0; nic < static_cast<int>(out.nics.size()); ++nic)
      out.gpu_to_nic.push_back(cell_of(router.route_to_nic(row, nic)));
    out.own_nic.push_back(router.nearest_nic(row));
  }
  return out;
}

std::vector<HostPair> host_pairs(const Router& router) {
  const Topology& topology = router.topology();
  std::vector<HostPair> out;
  const FabricMap map = topology.fabric ? FabricMap(topology, 0) : FabricMap();
  int first = -1, host = 0;
  for (const HostGroup& group : topology.groups) {
    const bool has_gpus = !topology.templates[static_cast<std::size_t>(group.template_index)].gpus.empty();
    for (const int end = host + group.count; host < end; ++host) {
      if (!has_gpus) continue;
      if (first < 0) {
        first = host;
        continue;
      }
      HostPair pair{first, host, relation(topology, map, first, host), {}, {}};
      bool known = false;
      for (const HostPair& other : out) known = known || other.relation == pair.relation;
      if (known) continue;
      const int gpu = topology.first_gpu_of_host(first), peer = topology.first_gpu_of_host(host);
      const int rail = rail_of(router, gpu), peers = topology.gpus_per_host(host);
      int same = -1, apart = -1;
      for (int i = peer; i < peer + peers && (same < 0 || apart < 0); ++i)
        (rail_of(router, i) == rail ? same : apart) = i;
      pair.same_rail = cell_of(router.route(gpu, same < 0 ? peer : same));
      if (same >= 0 && apart >= 0) pair.other_rail = cell_of(router.route(gpu, apart));
      out.push_back(std::move(pair));
    }
  }
  return out;
}

}  // namespace topomoe
