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
#include "planner/rates/same_machine.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

double CollectiveCurve::node_us(double whole_bytes) const {
  if (!node_) return 0;
  if (whole_) return in_us((*node_)(whole_bytes));
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

double CollectiveCurve::in_a_row_us(double send_bytes) const {
  if (!in_a_row_ || send_bytes <= 0) return time_us(send_bytes);
  // Outside of what was measured, both grow alike: what one alone waits for its slowest rank is a share of it. What a
  // short one in a row takes more, since it comes after the burst that a shaper lets pass, is not.
  const double bytes = whole(send_bytes), known = std::clamp(bytes, in_a_row_least_, in_a_row_most_);
  const double row_us = in_us((*in_a_row_)(known));
  const double us =
      known == bytes ? row_us : time_us(send_bytes) * std::min(1.0, row_us / time_us(known / whole_per_send_));
  return std::max(us, bound_us(send_bytes));
}

Estimate CollectiveCurve::estimate(double send_bytes) const {
  const double node = node_us(whole(send_bytes));
  const double wait = whole_ ? std::min(node_floor_us_, node) : latency_us_;
  double slowest = std::max(whole_ ? node - wait : node, 0.0);
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
  void add_node(CollectiveCurve&, Collective, const CollectiveGroup&) const;
  void add_bounds(CollectiveCurve&, Collective, const CollectiveGroup&) const;
  void add_network(CollectiveCurve&, Collective, const CollectiveGroup&) const;
  bool add_measured(CollectiveCurve&, Collective, const CollectiveGroup&) const;
};

// Bytes of S = 1 that an all-to-all sends through the uplinks of one leaf, over their rate; 0: all on one leaf.
double CollectiveModel::State::leaf_uplink_us_per_byte(int nodes) const {
  if (!topology.fabric || topology.fabric->uplink.GBps_per_direction <= 0) return 0;
  const Fabric& fabric = *topology.fabric;
  const int per_domain = std::max(1, topology.hosts_per_domain);
  int pod = std::max(1, fabric.hosts_per_leaf / per_domain);
  // Leaves of different sizes: the one that most pairs leave, p (nodes - p), of those that these nodes stand under.
  if (!fabric.leaf_hosts.empty()) {
    pod = nodes;
    for (int unit = 0, left = nodes; unit < static_cast<int>(fabric.leaf_hosts.size()) && left > 0; ++unit) {
      const int own = std::min(left, fabric.leaf_hosts[static_cast<std::size_t>(unit)] / per_domain);
      left -= own;
      if (own > 0 && own * (nodes - own) > pod * (nodes - pod)) pod = own;
    }
  }
  if (nodes <= pod) return 0;
  const double gpus =
      1.0 * topology.gpus_per_node() * pod / std::max(1, fabric.rail_optimised ? fabric.rails : fabric.planes);
  return gpus * (nodes - pod) / nodes * 1e-3 / fabric.uplink.GBps_per_direction;
}

CollectiveModel::CollectiveModel(const Topology& topology, std::span<const Calibration> calibrations)
    : state_(std::make_shared<State>(topology, calibrations)) {}

const Topology& CollectiveModel::topology() const { return state_->topology; }

// What one node of the group does by itself.
void CollectiveModel::State::add_node(CollectiveCurve& c, Collective op, const CollectiveGroup& group) const {
  if (group.most < 2) return;
  if (plane()) {
    NodeCurve node = node_curve(op, group.most);
    c.node_ = std::make_shared<const SizeCurve>(std::move(node.curve));
    c.node_floor_us_ = node.floor_us, c.error_ = node.error, c.source_ = node.source;
    return;
  }
  std::vector<int> gpus = group.gpus;
  if (gpus.empty()) gpus.resize(static_cast<std::size_t>(group.most)), std::iota(gpus.begin(), gpus.end(), 0);
  const RoutedNode node = routed_node(router, op, gpus);
  c.node_ = std::make_shared<const SizeCurve>(
      SizeCurve::from_rate(microseconds(node.floor_us), BytesPerSecond{1e6 / node.us_per_byte}, node.source));
  c.node_floor_us_ = node.floor_us, c.error_ = kDatasheetError, c.source_ = node.source;
  if (topology.host_template(0).nvlink == Presence::unknown) c.source_ += "; NVLink not known, taken as absent";
  c.node_name_ = node.bottleneck;
  c.bounds_.push_back({node.bound_us_per_byte, node.bottleneck});
}

// What at least passes NVLink and NICs at raw rates, however clever the algorithm.
void CollectiveModel::State::add_bounds(CollectiveCurve& c, Collective op, const CollectiveGroup& group) const {
  const double w = group.ranks, n = group.nodes, g = group.most, fewest = group.fewest;
  const bool all_reduce = op == Collective::all_reduce;
  // Leaves (or enters) a GPU; S of an all-reduce where the switch adds up, nearly twice that where it does not.
  const double through = op == Collective::send_recv ? 1 : all_reduce ? 2 * (w - 1) / w : (w - 1) / w;
  const double nvlink = 1e-3 / machine.nvlink_GBps, nic = 1e-3 / machine.nic_GBps;
  if (group.nodes == 1) {
    if (plane()) c.bounds_.push_back({(facts.reduces_in_switch ? std::min(through, 1.0) : through) * nvlink, "NVLink"});
    return;
  }
  if (op == Collective::alltoall || op == Collective::send_recv) {
    c.bounds_.push_back({op == Collective::send_recv ? nic : (w - fewest) / w * nic, "NIC"});
    if (op == Collective::send_recv) return;
    if (plane()) c.bounds_.push_back({(g - 1) / w * nvlink, "NVLink"});
    c.bounds_.push_back({leaf_uplink_us_per_byte(group.nodes), "uplinks of a leaf"});
    return;
  }
  c.bounds_.push_back({(all_reduce ? 2 : 1) * (n - 1) / n / g * nic, "NIC"});
  if (plane())
    c.bounds_.push_back({std::min(through, 1.0) * 1e-3 / (machine.nvlink_GBps + machine.nic_GBps), "NVLink and NIC"});
}

// Latency, NICs and fabric of a group on several nodes, beside the node's own part.
void CollectiveModel::State::add_network(CollectiveCurve& c, Collective op, const CollectiveGroup& group) const {
  const double w = group.ranks, n = group.nodes, fewest = group.fewest, nic = machine.nic_GBps;
  const int g = group.most;
  const double floor = g > 1 ? c.node_floor_us_ : least_us();
  double over_nic;  // of S = 1, over one GPU's share of the NICs
  if (op == Collective::alltoall || op == Collective::send_recv) {
    const bool exchange = op == Collective::alltoall;
    over_nic = exchange ? (w - fewest) / w : 1;
    c.latency_us_ = floor + network.base_us;
    c.postings_us_ = exchange ? network.posting_us * (w - fewest) : 0;
    const bool pxn = plane() && topology.fabric && topology.fabric->rail_optimised;
    // With PXN what leaves the node crosses NVLink first, g - 1 times in g: as much in all as if S stayed inside.
    c.node_share_ = !exchange ? 0 : pxn ? 1 : g / w;
    const double uplink = exchange ? leaf_uplink_us_per_byte(group.nodes) : 0;
    if (uplink > 0) c.network_.push_back({uplink / network.nic_share, "uplinks of a leaf"});
  } else {
    const bool all_reduce = op == Collective::all_reduce;
    const double ways = all_reduce ? 2 : 1;
    over_nic = ways * (w - 1) / w / fewest;
    const double step = g > 2 ? (floor - least_us()) / (latency_steps(op, g) - latency_steps(op, 2)) : 0.9;
    const double ring = least_us() + ways * ((w - n) * std::max(step, 0.0) + n * network.ring_hop_us);
    const double tree = floor + 2 * std::log2(n) * network.tree_hop_us;
    c.latency_us_ = all_reduce ? std::min(ring, tree) : ring;
    if (g > 1 && !(all_reduce && facts.reduces_in_switch))
      c.node_work_ = work_of(op, group.ranks, false) / work_of(op, g, false);
  }
  c.network_.push_back({over_nic * 1e-3 / (network.nic_share * nic), fmt::format("NIC ({:g} GB/s a GPU)", nic)});
  c.error_ = std::hypot(c.error_, network.error);
  const std::string inside = g > 1 ? "; inside the node " + c.source_ : "";
  c.source_ =
      fmt::format("datasheet: {} nodes, {} of the NIC's {:g} GB/s{}", group.nodes, network.nic_share, nic, inside);
}

// A curve of this very operation and shape on this very machine, the last given first.
bool CollectiveModel::State::add_measured(CollectiveCurve& c, Collective op, const CollectiveGroup& group) const {
  if (!group.gpus.empty() || group.most != group.fewest) return false;
  for (auto from = calibrations.rbegin(); from != calibrations.rend(); ++from) {
    if (from->machine.interconnect != machine.interconnect || ratio_between(from->machine, machine).distance > 0)
      continue;
    if (group.nodes > 1 && from->machine.nic_GBps != machine.nic_GBps) continue;
    bool found = false;
    for (const CalibrationCurve& curve : from->curves) {
      if (curve.operation != to_string(op) || curve.gpus != group.ranks || curve.nodes != group.nodes ||
          curve.size_unit != "buffer_bytes")
        continue;
      NodeCurve node = node_curve_of(curve, source_name(*from));
      if (!is_alone(curve)) {
        c.in_a_row_least_ = curve.knots.front().size, c.in_a_row_most_ = curve.knots.back().size;
        c.in_a_row_ = std::make_shared<const SizeCurve>(std::move(node.curve));
        continue;
      }
      found = c.measured_ = true;
      c.node_ = std::make_shared<const SizeCurve>(std::move(node.curve));
      c.node_floor_us_ = node.floor_us, c.error_ = node.error, c.source_ = node.source;
    }
    if (found) return true;
    c.in_a_row_ = nullptr;
  }
  return false;
}

CollectiveCurve CollectiveModel::curve(Collective op, const CollectiveGroup& group) const {
  const State& s = *state_;
  if (group.fewest < 1 || group.most > s.topology.gpus_per_node() || group.nodes < 1 ||
      group.nodes > s.topology.node_count())
    throw InvalidInput(
        "group", fmt::format("{} nodes of up to {} GPUs", group.nodes, group.most),
        fmt::format("the cluster has {} nodes of {}", s.topology.node_count(), s.topology.gpus_per_node()));
  CollectiveCurve c;
  c.whole_per_send_ = whole_buffer_bytes(op, 1, group.ranks);
  c.source_ = "one GPU: nothing moves";
  c.node_name_ = "none";
  if (group.ranks == 1) return c;
  if (group.nodes > 1 && s.machine.nic_GBps <= 0)
    throw InvalidInput(s.topology.name + ": nics", "none", "a group on several nodes needs NICs in the host template");
  c.node_name_ = "NVLink";
  s.add_node(c, op, group);
  s.add_bounds(c, op, group);
  if (s.add_measured(c, op, group)) return c;
  c.whole_ = group.nodes == 1;
  if (!c.whole_) s.add_network(c, op, group);
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
