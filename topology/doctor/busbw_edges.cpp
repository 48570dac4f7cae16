// What crosses the edge of a set of ranks, for collectives that no fixed flows make.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "topology/doctor/busbw_ceiling.hpp"
#include "topology/doctor/busbw_need.hpp"
#include "topology/host_tree.hpp"
#include "topology/names.hpp"
#include "topology/router_state.hpp"

namespace topomoe {
namespace {

// A set of GPUs and what leaves it, one direction.
struct Edge {
  std::string name, klass;
  double GBps = 0;
  double near_GBps = 0;  // of it, what its GPUs use first; 0: all
  bool assumed = false, unknown = false;
  std::vector<int> gpus;
  // Edges of one partition ("gpus", "nodes") are of disjoint sets; empty: this one nests in others.
  std::string partition = {};
  void add(double more_GBps, Source source) {
    GBps += more_GBps;
    assumed = assumed || source == Source::assumed, unknown = unknown || source == Source::unknown;
  }
};

class Edges {
 public:
  explicit Edges(const RunPlace& run) : run_(run), router_(run.topology) {
    for (const std::vector<int>& group : run.groups) members_.insert(group.begin(), group.end());
    for (const int gpu : members_) {
      gpus_of_host_[run.topology.host_of(gpu)].push_back(gpu);
      gpus_of_node_[run.topology.node_of(gpu)].push_back(gpu);
    }
  }

  std::vector<Edge> run() {
    for (const auto& [host, gpus] : gpus_of_host_) inside(host, gpus);
    if (run_.nodes > 1) {
      nodes();
      units();
    }
    return std::move(edges_);
  }

 private:
  std::string host_prefix(int host) const {
    return run_.topology.host_count() > 1 ? run_.topology.host_name(host) + "." : "";
  }

  // NVLink alone carries the node, one host or several, where it reaches all ranks of it.
  bool nvlink_reaches_all(const std::vector<int>& gpus) const {
    for (const int other : gpus)
      if (router_.route(gpus.front(), other).path_class > PathClass::NVB) return false;
    return gpus.size() > 1;
  }

  void inside(int host, const std::vector<int>& gpus) {
    const HostTemplate& own = run_.topology.host_template(host);
    const int first = run_.topology.first_gpu_of_host(host);
    const bool by_nvlink = nvlink_reaches_all(gpus_of_node_.at(run_.topology.node_of(gpus.front())));
    const bool leaves = run_.nodes > 1;
    const HostTree tree(own);
    // From the parts of `inner` to the rest of the host, and through NICs within.
    const auto edge = [&](const std::string& name, const std::set<int>& inner, std::vector<int> ranks,
                          const char* partition) {
      Edge out{name, "pcie", 0, 0, false, false, std::move(ranks), partition};
      for (const Link& link : own.links) {
        const bool src = inner.count(link.src) > 0, dst = inner.count(link.dst) > 0;
        if (src == dst || (!src && !link.both_ways)) continue;
        if (!joins_gpus(link) && by_nvlink && !leaves) continue;
        if (joins_gpus(link)) out.klass = "nvlink";
        out.add(link.GBps_per_direction, link.source);
      }
      for (const Nic& nic : own.nics)
        if (leaves && inner.count(nic.device) > 0) out.add(nic.port.GBps_per_direction, nic.port.source);
      if (out.GBps > 0) edges_.push_back(std::move(out));
    };
    for (const int gpu : gpus) {
      const int device = own.gpus[static_cast<std::size_t>(gpu - first)];
      edge(host_prefix(host) + shown(own.devices[static_cast<std::size_t>(device)]), {device}, {gpu}, "gpus");
    }
    if (by_nvlink) return;
    for (int above = 0; above < static_cast<int>(own.devices.size()); ++above) {
      std::set<int> inner{above};
      for (int device = 0; device < static_cast<int>(own.devices.size()); ++device) {
        const std::vector<int> up = tree.way_up(device);
        if (std::find(up.begin(), up.end(), above) != up.end()) inner.insert(device);
      }
      std::vector<int> ranks;
      for (const int gpu : gpus)
        if (inner.count(own.gpus[static_cast<std::size_t>(gpu - first)])) ranks.push_back(gpu);
      if (inner.size() > 1 && !ranks.empty() && ranks.size() < gpus.size())
        edge("what leaves " + host_prefix(host) + shown(own.devices[static_cast<std::size_t>(above)]), inner, ranks,
             "");
    }
  }

  // The NICs of a node, of which its GPUs use the nearest, or the slots of those GPUs, where these are less.
  void nodes() {
    std::map<int, Edge> by_nics, by_slots;
    std::map<int, std::pair<std::size_t, std::size_t>> nics;  // near, all
    for (const auto& [host, gpus] : gpus_of_host_) {
      const int node = run_.topology.node_of(gpus.front());
      const HostTemplate& own = run_.topology.host_template(host);
      Edge &ports = by_nics[node], &slots = by_slots[node];
      std::set<int> near;
      for (const int gpu : gpus) {
        const Router::State::Place place = router_.state().place(gpu);
        const std::vector<int>& first = place.paths->own_nics[static_cast<std::size_t>(place.local)];
        near.insert(first.begin(), first.end());
        const int device = own.gpus[static_cast<std::size_t>(place.local)];
        for (const Link& link : own.links)
          if (!joins_gpus(link) && (link.src == device || (link.both_ways && link.dst == device)))
            slots.add(link.GBps_per_direction, link.source);
        ports.gpus.push_back(gpu), slots.gpus.push_back(gpu);
      }
      for (const Nic& nic : own.nics) ports.add(nic.port.GBps_per_direction, nic.port.source);
      for (const int nic : near) ports.near_GBps += own.nics[static_cast<std::size_t>(nic)].port.GBps_per_direction;
      nics[node].first += near.size(), nics[node].second += own.nics.size();
      if (ports.name.empty()) ports.name = slots.name = run_.topology.host_name(host);
    }
    for (auto& [node, edge] : by_nics) {
      const auto& [near, all] = nics[node];
      edge.name = all == 1      ? "the NIC of " + edge.name
                  : near == all ? fmt::format("all {} NICs of {}", all, edge.name)
                                : fmt::format("{} of {} NICs of {}, the nearest", near, all, edge.name);
      edge.klass = "nic_out", edge.partition = "nodes";
      edges_.push_back(edge);
      Edge& slots = by_slots[node];
      slots.name = "PCIe of the GPUs of " + slots.name, slots.klass = "pcie", slots.partition = "slots";
      if (slots.GBps > 0) edges_.push_back(slots);
    }
  }

  // The uplinks of hosts that share leaves, and of a pod.
  void units() {
    const FabricMap& map = router_.state().fabric;
    using Top = FabricMap::Top;
    if (!run_.topology.fabric || map.top == Top::none || map.top == Top::torus) return;
    std::map<int, Edge> by_unit, by_pod;
    for (const auto& [host, gpus] : gpus_of_host_) {
      Edge& unit = by_unit[map.unit_of(host)];
      unit.gpus.insert(unit.gpus.end(), gpus.begin(), gpus.end());
      Edge& pod = by_pod[map.pod_of(host)];
      pod.gpus.insert(pod.gpus.end(), gpus.begin(), gpus.end());
    }
    const auto uplinks = [&](std::map<int, Edge>& all, int links, const char* name, const char* klass, auto id_of) {
      if (all.size() < 2) return;
      for (auto& [number, edge] : all) {
        for (int i = 0; i < links; ++i) {
          const LinkInfo link = router_.link(id_of(number, i));
          edge.add(link.GBps_per_direction, link.source);
        }
        edge.name = fmt::format("the uplinks of {} {}", name, number), edge.klass = edge.partition = klass;
        edges_.push_back(edge);
      }
    };
    uplinks(by_unit, map.ranks, "the leaves of unit", "leaf_up",
            [&](int unit, int i) { return map.leaf_up(unit * map.ranks + i); });
    if (map.top == Top::core)
      uplinks(by_pod, map.planes, "pod", "pod_up", [&](int pod, int i) { return map.pod_up(pod, i); });
  }

  const RunPlace& run_;
  Router router_;
  std::set<int> members_;
  std::map<int, std::vector<int>> gpus_of_host_, gpus_of_node_;
  std::vector<Edge> edges_;
};

struct Partition {
  double GBps = 0;
  std::size_t gpus = 0;
  std::map<std::size_t, int> sets_of_group;
};

}  // namespace

BusbwCeiling ceiling_of_edges(const RunPlace& run, const std::string& operation) {
  BusbwCeiling out;
  double least_GBps = std::numeric_limits<double>::infinity();  // of all edges
  double any_GBps = std::numeric_limits<double>::infinity();
  const double n = run.ranks;
  const Need need(operation, n);
  std::map<int, std::size_t> group_of;
  for (std::size_t group = 0; group < run.groups.size(); ++group)
    for (const int gpu : run.groups[group]) group_of[gpu] = group;
  std::map<std::string, Partition> partitions;
  for (const Edge& edge : Edges(run).run()) {
    // Groups that run side by side share what they all cross.
    std::map<std::size_t, int> inside;
    for (const int gpu : edge.gpus) ++inside[group_of.at(gpu)];
    Partition& partition = partitions[edge.partition];
    partition.gpus += edge.gpus.size();
    std::vector<int> crossing;
    for (const auto& [group, count] : inside)
      if (count < run.ranks) crossing.push_back(count), ++partition.sets_of_group[group];
    if (crossing.empty()) continue;
    const auto groups = static_cast<double>(crossing.size());
    partition.GBps += edge.GBps;
    const double GBps = (edge.near_GBps > 0 ? edge.near_GBps : edge.GBps) / groups;
    if (out.usual_GBps == 0 || GBps < out.usual_GBps) {
      out.usual_GBps = GBps, out.bottleneck = edge.name, out.klass = edge.klass;
      out.assumed = edge.assumed, out.unknown = edge.unknown;
      out.formula = crossing.size() == 1 ? "" : fmt::format("shared by {} groups", crossing.size());
    }
    any_GBps = std::min(any_GBps, need.busbw() * edge.GBps / need.of_edge(crossing));
    least_GBps = std::min(least_GBps, edge.GBps / groups);
  }
  for (const auto& [name, partition] : partitions) {
    double all = 0;
    for (const auto& [group, sets] : partition.sets_of_group) all += need.of_partition(sets);
    if (!name.empty() && all > 0 && partition.gpus == group_of.size())
      any_GBps = std::min(any_GBps, need.busbw() * partition.GBps / all);
  }
  out.any_GBps = out.usual_GBps > 0 ? any_GBps : 0;
  // Between nodes a network may reduce, inside one an NVSwitch.
  const HostTemplate& host = run.topology.host_template(run.topology.host_of(run.groups[0][0]));
  const bool may_reduce =
      run.nodes > 1 || std::any_of(host.devices.begin(), host.devices.end(),
                                   [](const HostDevice& own) { return own.kind == DeviceKind::nvswitch; });
  out.in_switch_GBps =
      operation == "all_reduce" && may_reduce ? std::max(out.any_GBps, least_GBps * 2 * (n - 1) / n) : out.any_GBps;
  return out;
}

}  // namespace topomoe
