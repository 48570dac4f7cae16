// What a Router keeps, and the one function that walks a route. Router::route and LinkLoads::add both go through
// walk(), so that what is drawn and what is loaded cannot differ.
//
// Directed links are numbered host by host (the template's directed links, then out and in of each NIC), then those of
// the fabric (fabric_map.hpp). An id is a base plus an offset; no table grows with the number of GPUs.
#pragma once

#include <algorithm>
#include <vector>

#include "topology/fabric_map.hpp"
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
  int first_fabric_link = 0;
  int links = 0;
  bool has_fabric = false;
  FabricMap fabric;

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
  int directed_links(const HostRun& run) const {
    return static_cast<int>(paths[static_cast<std::size_t>(run.template_index)].directed.size());
  }

  // Calls visit(id) for each directed link on the way; DIS without a call where there is no path.
  template <class Visit>
  PathClass walk(int src_gpu, int dst_gpu, Visit visit) const;

  // How a flow between two hosts enters and leaves the fabric. It depends on the hosts only through their templates,
  // the sum of their numbers (which NIC of several), and whether their leaves are joined.
  struct Hop {
    PathClass path_class = PathClass::DIS;
    int sender = 0;  // the local GPU whose NIC is taken
    int src_nic = 0, dst_nic = 0, src_rank = 0, dst_rank = 0;
  };
  Hop choose(const Place& src, const Place& dst) const;
  bool same_domain(int host, int other) const {
    return topology.hosts_per_domain > 1 && host / topology.hosts_per_domain == other / topology.hosts_per_domain;
  }
  int nic_out(const Place& at, int nic) const { return directed_links(*at.run) + 2 * nic; }
  // The directed links of the two ends, as offsets in their hosts.
  template <class Visit>
  void visit_src(const Place& src, const Hop& hop, Visit visit) const {
    if (hop.sender != src.local) visit_path(src, src.paths->between(src.local, hop.sender), visit);
    visit_path(src, src.paths->to_nic(hop.sender, hop.src_nic), visit);
    visit(nic_out(src, hop.src_nic));
  }
  template <class Visit>
  void visit_dst(const Place& dst, const Hop& hop, Visit visit) const {
    visit(nic_out(dst, hop.dst_nic) + 1);
    visit_path(dst, dst.paths->from_nic(hop.dst_nic, dst.local), visit);
  }
  template <class Visit>
  static void visit_path(const Place& at, const HostPath& path, Visit& visit) {
    for (int i = path.first; i < path.first + path.count; ++i) visit(at.paths->pool[static_cast<std::size_t>(i)]);
  }

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
  struct Exit {
    int nic = -1, sender = -1;
  };
  // The first of the GPU's own NICs that fits; else, with PXN, of a GPU that is reached over NVLink.
  template <class Fits>
  Exit own_exit(const Place& at, Fits fits) const;
  template <class Fits>
  Exit relay_exit(const Place& at, Fits fits) const;
  Hop detour(const Place& src, const Place& dst, std::size_t stripe) const;
  Hop hop(const Place& src, const Place& dst, Exit exit, int dst_nic) const;
};

template <class Visit>
PathClass Router::State::walk(int src_gpu, int dst_gpu, Visit visit) const {
  if (src_gpu == dst_gpu) return PathClass::LOC;
  const Place src = place(src_gpu);
  const Place dst = place(dst_gpu);
  if (src.host == dst.host) {
    const HostPath& path = src.paths->between(src.local, dst.local);
    for (int i = path.first; i < path.first + path.count; ++i)
      visit(src.link_base + src.paths->pool[static_cast<std::size_t>(i)]);
    return path.path_class;
  }
  if (same_domain(src.host, dst.host)) {
    // One NVLink plane spans the hosts of the domain: up from one host, down into the other.
    visit(src.link_base + src.paths->to_nvswitch[static_cast<std::size_t>(src.local)]);
    visit(dst.link_base + dst.paths->from_nvswitch[static_cast<std::size_t>(dst.local)]);
    return PathClass::NVL;
  }
  if (!has_fabric) return PathClass::DIS;
  const Hop way = choose(src, dst);
  if (way.path_class == PathClass::DIS) return way.path_class;
  visit_src(src, way, [&](int offset) { visit(src.link_base + offset); });
  fabric.visit(src.host, way.src_rank, dst.host, way.dst_rank, visit);
  visit_dst(dst, way, [&](int offset) { visit(dst.link_base + offset); });
  return way.path_class;
}

}  // namespace topomoe
