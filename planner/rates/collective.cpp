#include "planner/rates/collective.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <numeric>
#include <shared_mutex>

#include "planner/rates/gpu_facts.hpp"
#include "planner/rates/machine_figures.hpp"
#include "planner/rates/network.hpp"
#include "planner/rates/node_collective.hpp"
#include "planner/rates/routed_node.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

CollectiveGroup regular_group(int ranks_per_node, int nodes) {
  if (ranks_per_node < 1 || nodes < 1 || ranks_per_node > 10'000'000 / nodes)
    throw InvalidInput("group", fmt::format("{} ranks on each of {} nodes", ranks_per_node, nodes),
                       "both must be at least 1, and their product at most 10^7");
  return {ranks_per_node * nodes, nodes, ranks_per_node, ranks_per_node, {}};
}

CollectiveGroup first_gpus(const Topology& topology, int gpus) {
  if (gpus < 1 || gpus > topology.gpu_count())
    throw InvalidInput("gpus", std::to_string(gpus), fmt::format("1 to {}", topology.gpu_count()));
  CollectiveGroup group{gpus, 0, 0, gpus, {}};
  for (int left = gpus; left > 0; ++group.nodes) {
    const int here = std::min(left, topology.gpus_in_node(group.nodes));
    group.most = std::max(group.most, here), group.fewest = std::min(group.fewest, here);
    left -= here;
  }
  return group;
}

CollectiveGroup group_of(const Topology& topology, const std::vector<int>& gpus) {
  std::map<int, std::vector<int>> by_node;
  for (const int gpu : gpus) {
    if (gpu < 0 || gpu >= topology.gpu_count())
      throw InvalidInput("group", std::to_string(gpu), fmt::format("GPUs are 0 to {}", topology.gpu_count() - 1));
    by_node[topology.node_of(gpu)].push_back(gpu);
  }
  if (gpus.empty()) throw InvalidInput("group", "empty", "name at least one GPU");
  const int all = static_cast<int>(gpus.size());
  CollectiveGroup group{all, static_cast<int>(by_node.size()), 0, all, {}};
  for (auto& [node, ranks] : by_node) {
    std::sort(ranks.begin(), ranks.end());
    if (std::adjacent_find(ranks.begin(), ranks.end()) != ranks.end())
      throw InvalidInput("group", std::to_string(*std::adjacent_find(ranks.begin(), ranks.end())), "names a GPU twice");
    const int here = static_cast<int>(ranks.size());
    if (here > group.most) group.gpus = ranks;
    group.most = std::max(group.most, here), group.fewest = std::min(group.fewest, here);
  }
  return group;
}

// ---------------------------------------------------------------- evaluation

double CollectiveCurve::node_us(double whole_bytes) const {
  if (!node_) return 0;
  if (one_node_) return in_us((*node_)(whole_bytes));
  return std::max(in_us((*node_)(whole_bytes * node_share_)) - node_floor_us_, 0.0) * node_work_;
}

double CollectiveCurve::bound_us(double send_bytes) const {
  double bound = 0;
  for (const Part& part : bounds_) bound = std::max(bound, whole(send_bytes) * part.us_per_byte);
  return bound;
}

double CollectiveCurve::time_us(double send_bytes) const {
  if (send_bytes <= 0) return 0;
  double flow = std::max(node_us(whole(send_bytes)), postings_us_);
  for (const Part& part : network_) flow = std::max(flow, whole(send_bytes) * part.us_per_byte);
  return std::max(latency_us_ + flow, bound_us(send_bytes));
}

Estimate CollectiveCurve::estimate(double send_bytes) const {
  const double node = node_us(whole(send_bytes));
  const double wait = one_node_ ? std::min(node_floor_us_, node) : latency_us_;
  double slowest = std::max(one_node_ ? node - wait : node, 0.0);
  std::string name = node_name_;
  if (postings_us_ > slowest) slowest = postings_us_, name = "posting of messages to the NIC";
  for (const Part& part : network_)
    if (whole(send_bytes) * part.us_per_byte > slowest)
      slowest = whole(send_bytes) * part.us_per_byte, name = part.name;
  if (wait > slowest) name = "latency";
  return estimate_of(time_us(send_bytes), error_, bound_us(send_bytes), source_, name);
}

// ---------------------------------------------------------------- building

struct CollectiveModel::State {
  Topology topology;
  Router router;
  std::vector<Calibration> calibrations;
  CalibrationMachine machine;
  GpuFacts facts;
  NetworkFigures network;
  std::shared_mutex mutex;
  std::map<std::pair<Collective, CollectiveGroup>, std::shared_ptr<const CollectiveCurve>> cache;

  State(const Topology& t, std::span<const Calibration> c)
      : topology(t),
        router(t),
        calibrations(c.begin(), c.end()),
        machine(machine_figures(t)),
        facts(gpu_facts(machine.gpu.name)) {}
  bool plane() const { return machine.interconnect == "nvswitch"; }
  NodeCurve node_curve(Collective op, int gpus) const {
    auto measured = measured_node_curve(calibrations, machine, op, gpus);
    return measured ? std::move(*measured) : datasheet_node_curve(machine, op, gpus);
  }
  // A small operation of two GPUs: launch, one hop, done.
  double least_us() const { return plane() ? node_curve(Collective::alltoall, 2).floor_us : 8; }
  double leaf_uplink_us_per_byte(int nodes) const;
};

// Bytes of S = 1 that an all-to-all sends through the uplinks of one leaf, over their rate; 0: all on one leaf.
double CollectiveModel::State::leaf_uplink_us_per_byte(int nodes) const {
  if (!topology.fabric || topology.fabric->uplink.GBps_per_direction <= 0) return 0;
  const Fabric& fabric = *topology.fabric;
  const int pod = std::max(1, fabric.hosts_per_leaf / std::max(1, topology.hosts_per_domain));
  if (nodes <= pod) return 0;
  const double gpus = 1.0 * topology.gpus_per_node() * pod / (fabric.rail_optimised ? std::max(1, fabric.rails) : 1);
  return gpus * (nodes - pod) / nodes * 1e-3 / fabric.uplink.GBps_per_direction;
}

CollectiveModel::CollectiveModel(const Topology& topology, std::span<const Calibration> calibrations)
    : state_(std::make_shared<State>(topology, calibrations)) {}

const Topology& CollectiveModel::topology() const { return state_->topology; }

CollectiveCurve CollectiveModel::curve(Collective op, const CollectiveGroup& group) const {
  const State& s = *state_;
  const int ranks = group.ranks, nodes = group.nodes, g = group.most, fewest = group.fewest;
  if (fewest < 1 || g > s.topology.gpus_per_node() || nodes < 1 || nodes > s.topology.node_count())
    throw InvalidInput(
        "group", fmt::format("{} nodes of up to {} GPUs", nodes, g),
        fmt::format("the cluster has {} nodes of {}", s.topology.node_count(), s.topology.gpus_per_node()));
  CollectiveCurve c;
  c.whole_per_send_ = whole_buffer_bytes(op, 1, ranks);
  c.one_node_ = nodes == 1;
  c.source_ = "one GPU: nothing moves";
  if (ranks == 1) return c;
  const double w = ranks, n = nodes;
  const bool all_reduce = op == Collective::all_reduce;

  if (g > 1 && s.plane()) {
    NodeCurve node = s.node_curve(op, g);
    c.node_ = std::make_shared<const SizeCurve>(std::move(node.curve));
    c.node_floor_us_ = node.floor_us, c.error_ = node.error, c.source_ = node.source;
  } else if (g > 1) {
    std::vector<int> gpus = group.gpus;
    if (gpus.empty()) gpus.resize(static_cast<std::size_t>(g)), std::iota(gpus.begin(), gpus.end(), 0);
    const RoutedNode node = routed_node(s.router, op, gpus);
    c.node_ = std::make_shared<const SizeCurve>(
        SizeCurve::from_rate(microseconds(node.floor_us), BytesPerSecond{1e6 / node.us_per_byte}, node.source));
    c.node_floor_us_ = node.floor_us, c.error_ = kDatasheetError, c.source_ = node.source;
    c.node_name_ = node.bottleneck;
    c.bounds_.push_back({node.bound_us_per_byte, node.bottleneck});
  }
  const double nvlink = s.machine.nvlink_GBps, nic = s.machine.nic_GBps;
  // What at least leaves (or enters) a GPU, however clever the algorithm; in the switch S of an all-reduce.
  const double least = op == Collective::send_recv ? 1 : all_reduce ? std::min(2 * (w - 1) / w, 1.0) : (w - 1) / w;
  const double through = s.facts.reduces_in_switch || !all_reduce ? least : 2 * (w - 1) / w;
  if (nodes == 1) {
    if (s.plane()) c.bounds_.push_back({through * 1e-3 / nvlink, "NVLink"});
    return c;
  }

  if (nic <= 0)
    throw InvalidInput(s.topology.name + ": nics", "none", "a group on several nodes needs NICs in the host template");
  const bool rings = op != Collective::alltoall && op != Collective::send_recv;
  const double floor = g > 1 ? c.node_floor_us_ : s.least_us();
  const double from_nic = 1e-3 / (s.network.nic_share * nic), raw_nic = 1e-3 / nic;
  double over_nic;  // of S = 1, per NIC share of one GPU
  if (rings) {
    over_nic = (all_reduce ? 2 : 1) * (w - 1) / w / fewest;
    const double step = g > 2 ? (floor - s.least_us()) / (latency_steps(op, g) - latency_steps(op, 2)) : 0.9;
    const double hops = all_reduce ? 2 : 1;
    const double ring = s.least_us() + hops * ((w - n) * std::max(step, 0.0) + n * s.network.ring_hop_us);
    const double tree = floor + 2 * std::log2(n) * s.network.tree_hop_us;
    c.latency_us_ = all_reduce ? std::min(ring, tree) : ring;
    if (g > 1 && !(all_reduce && s.facts.reduces_in_switch))
      c.node_work_ = work_of(op, ranks, false) / work_of(op, g, false);
    c.bounds_.push_back({(all_reduce ? 2 : 1) * (n - 1) / n / g * raw_nic, "NIC"});
    if (s.plane()) c.bounds_.push_back({least * 1e-3 / (nvlink + nic), "NVLink and NIC"});
  } else {
    over_nic = op == Collective::send_recv ? 1 : (w - fewest) / w;
    c.latency_us_ = floor + s.network.base_us;
    c.postings_us_ = op == Collective::send_recv ? 0 : s.network.posting_us * (w - fewest);
    const bool pxn = s.plane() && s.topology.fabric && s.topology.fabric->rail_optimised;
    // With PXN what leaves the node crosses NVLink first, g - 1 times in g: as much in all as if S stayed inside.
    c.node_share_ = op == Collective::send_recv ? 0 : pxn ? 1 : g / w;
    c.bounds_.push_back({over_nic * raw_nic, "NIC"});
    if (g > 1 && s.plane() && op == Collective::alltoall) c.bounds_.push_back({(g - 1) / w * 1e-3 / nvlink, "NVLink"});
    if (op == Collective::alltoall)
      if (const double uplink = s.leaf_uplink_us_per_byte(nodes); uplink > 0) {
        c.network_.push_back({uplink / s.network.nic_share, "uplinks of a leaf"});
        c.bounds_.push_back({uplink, "uplinks of a leaf"});
      }
  }
  c.network_.push_back({over_nic * from_nic, fmt::format("NIC ({:g} GB/s a GPU)", nic)});
  c.error_ = std::hypot(c.error_ >= kDatasheetError ? kDatasheetError : c.error_, s.network.error);
  const std::string inside = g > 1 ? "; inside the node " + c.source_ : "";
  c.source_ = fmt::format("datasheet: {} nodes, {} of the NIC's {:g} GB/s{}", nodes, s.network.nic_share, nic, inside);
  return c;
}

std::shared_ptr<const CollectiveCurve> CollectiveModel::cached(Collective op, const CollectiveGroup& group) const {
  const auto key = std::make_pair(op, group);
  {
    const std::shared_lock lock(state_->mutex);
    const auto at = state_->cache.find(key);
    if (at != state_->cache.end()) return at->second;
  }
  auto built = std::make_shared<const CollectiveCurve>(curve(op, group));
  const std::unique_lock lock(state_->mutex);
  return state_->cache.emplace(key, std::move(built)).first->second;
}

namespace {

void require_bytes(double send_bytes) {
  if (!std::isfinite(send_bytes) || send_bytes < 0)
    throw InvalidInput("bytes", fmt::format("{}", send_bytes), "a finite number that is not negative");
}

}  // namespace

Estimate CollectiveModel::estimate(Collective op, double send_bytes, const CollectiveGroup& group) const {
  require_bytes(send_bytes);
  return cached(op, group)->estimate(send_bytes);
}

double CollectiveModel::time_us(Collective op, double send_bytes, const CollectiveGroup& group) const {
  require_bytes(send_bytes);
  return cached(op, group)->time_us(send_bytes);
}

}  // namespace topomoe
