#include "planner/rates/routed_node.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// 8 x L40S, NCCL all-to-all bus bandwidth: 22 GB/s between two GPUs of one PCIe Gen4 x16 switch, 69% of the raw 32.
constexpr double kPcieShare = 0.69;
// The same box at 4 and 8 GPUs: 4.5 and 2.1 GB/s. Both are 12.0 GB/s through one socket's root complex, all flows
// together that it takes part in (4 GPUs: 4 x 2/3 x 4.5; 8: 4 x (2 + 4 + 4) / 7 x 2.1): 3/8 of one slot's raw rate.
constexpr double kRootComplexShare = 0.375;
// A ring's flows are few and steady where an all-to-all's are many and short. Between the above and a link's own share;
// nothing is measured at hand. Assumed.
constexpr double kRootComplexRingShare = 0.65;
// NCCL reaches 317 of 450 GB/s on NVLink; between sockets a fraction is assumed.
constexpr double kNvlinkShare = 0.72, kCpuShare = 0.8;
// NCCL's cost model counts 1.0 us a hop over PCIe where NVLink has 0.6; on H100 the latter is 0.85 us in all, and hops
// through a CPU take longer. Assumed.
constexpr double kFloor_us = 8, kPcieStep_us = 2.0, kNvlinkStep_us = 0.9;

double share_of(const LinkInfo& link) {
  if (link.kind == LinkKind::nvlink || link.kind == LinkKind::xgmi || link.kind == LinkKind::c2c) return kNvlinkShare;
  return link.kind == LinkKind::pcie ? kPcieShare : kCpuShare;
}

struct Flow {
  int src, dst;
  double bytes;  // for S = 1
};

std::vector<Flow> flows_of(Collective op, const std::vector<int>& gpus) {
  const auto n = gpus.size();
  std::vector<Flow> flows;
  if (op == Collective::alltoall) {
    for (const int a : gpus)
      for (const int b : gpus)
        if (a != b) flows.push_back({a, b, 1.0 / static_cast<double>(n)});
    return flows;
  }
  const double share = static_cast<double>(n - 1) / static_cast<double>(n);
  const double bytes = op == Collective::send_recv ? 1 : op == Collective::all_reduce ? 2 * share : share;
  for (std::size_t i = 0; i < n; ++i) flows.push_back({gpus[i], gpus[(i + 1) % n], bytes});
  return flows;
}

}  // namespace

RoutedNode routed_node(const Router& router, Collective op, const std::vector<int>& gpus) {
  struct Load {
    double bytes = 0, us_per_byte = 0, raw_us_per_byte = 0;
    std::string name;
  };
  std::map<int, Load> links;
  std::map<std::string, Load> roots;
  RoutedNode node;
  bool all_nvlink = true;
  const double root_share = op == Collective::alltoall ? kRootComplexShare : kRootComplexRingShare;
  const auto flows = flows_of(op, gpus);
  for (const Flow& flow : flows) {
    const Route route = router.route(flow.src, flow.dst);
    if (route.path_class == PathClass::DIS)
      throw InvalidInput("group", router.topology().gpu_name(flow.src) + " and " + router.topology().gpu_name(flow.dst),
                         "no path joins them: describe the links between them in the cluster file");
    std::set<std::string> passed;
    double slot_GBps = 0;
    for (const int id : route.links) {
      const LinkInfo link = router.link(id);
      all_nvlink = all_nvlink && link.kind == LinkKind::nvlink;
      Load& load = links[id];
      load.bytes += flow.bytes;
      load.name = link.name;
      load.raw_us_per_byte = 1e-3 / link.GBps_per_direction;
      load.us_per_byte = load.raw_us_per_byte / share_of(link);
      if (link.kind == LinkKind::pcie) slot_GBps = std::max(slot_GBps, link.GBps_per_direction);
      for (const std::string& end : {link.src, link.dst})
        if (end.find(".numa") != std::string::npos) passed.insert(end);
    }
    if (slot_GBps <= 0) continue;
    node.crossing += passed.empty() ? 0 : 1.0 / static_cast<double>(flows.size());
    for (const std::string& root : passed) {
      Load& load = roots[root];
      load.bytes += flow.bytes;
      load.name = "root complex of " + root;
      load.us_per_byte = std::max(load.us_per_byte, 1e-3 / (root_share * slot_GBps));
    }
  }
  const auto consider = [&](const Load& load) {
    node.bound_us_per_byte = std::max(node.bound_us_per_byte, load.bytes * load.raw_us_per_byte);
    if (load.bytes * load.us_per_byte <= node.us_per_byte) return;
    node.us_per_byte = load.bytes * load.us_per_byte;
    node.bottleneck = load.name;
  };
  for (const auto& [id, load] : links) consider(load);
  for (const auto& [name, load] : roots) consider(load);
  const int n = static_cast<int>(gpus.size());
  node.floor_us =
      kFloor_us + (all_nvlink ? kNvlinkStep_us : kPcieStep_us) * (latency_steps(op, n) - latency_steps(op, 2));
  node.source = fmt::format("datasheet: raw rates of the links, {} of them reached over {}",
                            all_nvlink ? kNvlinkShare : kPcieShare, all_nvlink ? "NVLink" : "PCIe");
  if (!roots.empty()) node.source += fmt::format(", {} of a slot through a root complex (8 x L40S)", root_share);
  return node;
}

}  // namespace topomoe
