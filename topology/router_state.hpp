// What a Router keeps, and the one function that walks a route. Router::route and LinkLoads::add both go through
// walk(), so that what is drawn and what is loaded cannot differ.
//
// Directed links are numbered host by host (the template's directed links, then out and in of each NIC), then up and
// down of each leaf. An id is a base plus an offset; no table grows with the number of GPUs.
#pragma once

#include <algorithm>
#include <vector>

#include "topology/graph.hpp"
#include "topomoe/topology.hpp"

namespace topomoe {

// The hosts of one group.
struct HostRun {
  int first_host = 0, first_gpu = 0, first_link = 0;
  int hosts = 0, gpus_per_host = 0, links_per_host = 0;
  int template_index = 0;
};

struct Router::State {
  Topology topology;
  RouteOptions options;
  std::vector<HostPaths> paths;  // by template
  std::vector<HostRun> runs;
  int gpus = 0;
  int first_leaf_link = 0;
  int links = 0;
  bool has_fabric = false, has_spine = false;

  struct Place {
    const HostRun* run;
    const HostPaths* paths;
    const HostTemplate* host_template;
    int host, local, link_base;
  };
  Place place(int gpu) const {
    const auto next = std::upper_bound(runs.begin(), runs.end(), gpu,
                                       [](int wanted, const HostRun& run) { return wanted < run.first_gpu; });
    return place_in(*(next - 1), gpu);
  }
  const HostRun& run_of_link(int id) const {
    const auto next = std::upper_bound(runs.begin(), runs.end(), id,
                                       [](int wanted, const HostRun& run) { return wanted < run.first_link; });
    return *(next - 1);
  }
  void require_gpu(int gpu) const;
  int leaf_of(int host, int rail) const {
    const Fabric& fabric = *topology.fabric;
    const int pod = host / fabric.hosts_per_leaf;
    return fabric.rail_optimised ? pod * fabric.rails + rail : pod;
  }
  int directed_links(const HostRun& run) const {
    return static_cast<int>(paths[static_cast<std::size_t>(run.template_index)].directed.size());
  }

  // Calls visit(id) for each directed link on the way; DIS without a call where there is no path.
  template <class Visit>
  PathClass walk(int src_gpu, int dst_gpu, Visit visit) const;

 private:
  Place place_in(const HostRun& run, int gpu) const {
    const auto index = static_cast<std::size_t>(run.template_index);
    const int within = gpu - run.first_gpu;
    const int host = within / run.gpus_per_host;
    return {&run,
            &paths[index],
            &topology.templates[index],
            run.first_host + host,
            within % run.gpus_per_host,
            run.first_link + host * run.links_per_host};
  }
  // The GPU of the host that owns a NIC on the rail and is reached from `gpu` by NVLink; -1: none.
  int relay_gpu(const Place& at, int rail, int* nic) const;
  int own_nic_on(const Place& at, int rail) const {
    for (const int nic : at.paths->own_nics[static_cast<std::size_t>(at.local)])
      if (at.host_template->nics[static_cast<std::size_t>(nic)].rail == rail) return nic;
    return -1;
  }
  template <class Visit>
  static void visit_path(const Place& at, const HostPath& path, Visit& visit) {
    for (int i = path.first; i < path.first + path.count; ++i)
      visit(at.link_base + at.paths->pool[static_cast<std::size_t>(i)]);
  }
  template <class Visit>
  PathClass walk_fabric(const Place& src, const Place& dst, Visit& visit) const;
};

template <class Visit>
PathClass Router::State::walk(int src_gpu, int dst_gpu, Visit visit) const {
  if (src_gpu == dst_gpu) return PathClass::LOC;
  const Place src = place(src_gpu);
  const Place dst = place(dst_gpu);
  if (src.host == dst.host) {
    const HostPath& path = src.paths->between(src.local, dst.local);
    visit_path(src, path, visit);
    return path.path_class;
  }
  const int domain_hosts = topology.hosts_per_domain;
  if (domain_hosts > 1 && src.host / domain_hosts == dst.host / domain_hosts) {
    // One NVLink plane spans the hosts of the domain: up from one host, down into the other.
    visit(src.link_base + src.paths->to_nvswitch[static_cast<std::size_t>(src.local)]);
    visit(dst.link_base + dst.paths->from_nvswitch[static_cast<std::size_t>(dst.local)]);
    return PathClass::NVL;
  }
  return has_fabric ? walk_fabric(src, dst, visit) : PathClass::DIS;
}

template <class Visit>
PathClass Router::State::walk_fabric(const Place& src, const Place& dst, Visit& visit) const {
  const auto& src_nics = src.paths->own_nics[static_cast<std::size_t>(src.local)];
  const auto& dst_nics = dst.paths->own_nics[static_cast<std::size_t>(dst.local)];
  if (src_nics.empty() || dst_nics.empty()) return PathClass::DIS;
  // A GPU with several NICs spreads its peers over them; the same rule at both ends meets on the same rail.
  const auto stripe = static_cast<std::size_t>(src.local) + static_cast<std::size_t>(dst.local) +
                      static_cast<std::size_t>(src.host) + static_cast<std::size_t>(dst.host);
  const int dst_nic = dst_nics[stripe % dst_nics.size()];
  const int rail = dst.host_template->nics[static_cast<std::size_t>(dst_nic)].rail;
  int src_nic = src_nics[stripe % src_nics.size()];
  int sender = src.local;
  if (topology.fabric->rail_optimised) {
    int relay_nic = -1;
    if (const int own = own_nic_on(src, rail); own >= 0) {
      src_nic = own;
    } else if (const int relay = options.pxn ? relay_gpu(src, rail, &relay_nic) : -1; relay >= 0) {
      sender = relay;
      src_nic = relay_nic;
    }
  }
  const int src_leaf = leaf_of(src.host, src.host_template->nics[static_cast<std::size_t>(src_nic)].rail);
  const int dst_leaf = leaf_of(dst.host, rail);
  if (src_leaf != dst_leaf && !has_spine) return PathClass::DIS;
  if (dst.paths->from_nic(dst_nic, dst.local).path_class == PathClass::DIS) return PathClass::DIS;

  if (sender != src.local) visit_path(src, src.paths->between(src.local, sender), visit);
  visit_path(src, src.paths->to_nic(sender, src_nic), visit);
  visit(src.link_base + directed_links(*src.run) + 2 * src_nic);
  if (src_leaf != dst_leaf) {
    visit(first_leaf_link + 2 * src_leaf);
    visit(first_leaf_link + 2 * dst_leaf + 1);
  }
  visit(dst.link_base + directed_links(*dst.run) + 2 * dst_nic + 1);
  visit_path(dst, dst.paths->from_nic(dst_nic, dst.local), visit);
  return sender != src.local ? PathClass::PXN : PathClass::NET;
}

}  // namespace topomoe
