#include "topology/doctor/busbw_ceiling.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "topology/names.hpp"
#include "topomoe/class_loads.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// Flow by flow up to here: about a second.
constexpr double kMostFlows = 4e6;

template <class Loads>
void take_bottleneck(const Loads& loads, double busbw_per_second, BusbwCeiling& out) {
  const Bottleneck worst = loads.bottleneck();
  out.usual_GBps = out.any_GBps = out.in_switch_GBps = busbw_per_second / worst.seconds / 1e9;
  out.bottleneck = worst.name, out.klass = worst.klass;
  const LinkInfo link = loads.router().link(worst.link);
  out.assumed = link.source == Source::assumed, out.unknown = link.source == Source::unknown;
}

// N/(N-1) x (n-1)/n x NIC per GPU, said where it is what the loads say (nccl-tests#130).
void name_formula(const RunPlace& run, BusbwCeiling& out) {
  if (out.klass != "nic_out" && out.klass != "nic_in") return;
  const double n = run.ranks, nodes = run.nodes;
  const HostTemplate& host = run.topology.host_template(run.topology.host_of(run.groups[0][0]));
  double nics = 0;
  for (const Nic& nic : host.nics) nics += nic.port.GBps_per_direction;
  const double each = nics / (n / run.hosts);
  if (std::abs(nodes / (nodes - 1) * (n - 1) / n * each / out.usual_GBps - 1) > 1e-3) return;
  out.formula = fmt::format("{}/{} x {}/{} x {} GB/s of NIC a GPU", run.nodes, run.nodes - 1, run.ranks - 1, run.ranks,
                            short_number(each));
}

BusbwCeiling all_to_all(const RunPlace& run, const Router& router) {
  BusbwCeiling out;
  const double n = run.ranks;
  // A byte a pair: buffers of n bytes, of which (n-1)/n count as bus bandwidth.
  if (run.first_gpus) {
    take_bottleneck(all_to_all_loads(router, 1, {.ranks = run.ranks}), n - 1, out);
  } else {
    if (static_cast<double>(run.groups.size()) * n * n > kMostFlows)
      throw InvalidInput("ranks", std::to_string(run.ranks), "the first GPUs of the description in order, or fewer");
    LinkLoads loads(router);
    for (const std::vector<int>& group : run.groups)
      for (const int src : group)
        for (const int dst : group) loads.add(src, dst, 1);
    take_bottleneck(loads, n - 1, out);
  }
  if (run.nodes > 1 && run.groups.size() == 1) name_formula(run, out);
  return out;
}

// Each rank to the next: the whole buffer.
BusbwCeiling send_recv(const RunPlace& run, const Router& router) {
  BusbwCeiling out;
  LinkLoads loads(router);
  for (const std::vector<int>& group : run.groups)
    for (std::size_t i = 0; i < group.size(); ++i) loads.add(group[i], group[(i + 1) % group.size()], 1);
  take_bottleneck(loads, 1, out);
  return out;
}

}  // namespace

BusbwCeiling busbw_ceiling(const RunPlace& run, const std::string& operation) {
  BusbwCeiling out;
  if (operation == "alltoall" || operation == "send_recv") {
    const Router router(run.topology);
    out = operation == "alltoall" ? all_to_all(run, router) : send_recv(run, router);
  } else {
    out = ceiling_of_edges(run, operation);
  }
  const bool inside = !out.klass.starts_with("nic") && !out.klass.starts_with("leaf") && !out.klass.starts_with("pod");
  const HostTemplate& host = run.topology.host_template(run.topology.host_of(run.groups[0][0]));
  out.unknown = out.unknown || (inside && run.ranks > run.hosts && host.nvlink == Presence::unknown);
  return out;
}

std::string all_to_all_by_nodes(const RunPlace& run) {
  const Topology& topology = run.topology;
  if (!run.first_gpus || !topology.uniform()) return {};
  const int each = topology.gpus_per_node();
  std::set<int> counts{1, 2, 4, 8, run.nodes};
  std::string out;
  for (const int nodes : counts) {
    if (each < 2 && nodes == 1) continue;
    RunPlace other{topology, {{}}, nodes * each, 0, nodes, true, false};
    if (nodes > topology.node_count()) {
      // More of the same, where there is a network to grow.
      if (run.nodes < 2 && topology.host_count() < 2) continue;
      other.topology = resize_hosts(topology, other.ranks, nullptr);
    }
    for (int gpu = 0; gpu < other.ranks; ++gpu) other.groups[0].push_back(gpu);
    other.hosts = other.topology.host_of(other.ranks - 1) + 1;
    const double GBps = all_to_all(other, Router(other.topology)).usual_GBps;
    out += fmt::format("{}{}: {}", out.empty() ? "" : ", ", nodes, short_number(GBps, 1));
  }
  return out.find(',') == std::string::npos ? std::string() : out;
}

}  // namespace topomoe
