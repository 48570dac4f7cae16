#include "planner/rates/deepep.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "planner/curve.hpp"
#include "planner/rates/ep_traffic.hpp"
#include "planner/rates/machine_figures.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// Of raw NVLink by copying SMs, where many SMs are given: 20 SMs reach 0.71 on H200. Assumed.
constexpr double kNvlinkShare = 0.8;
// Other SMs, other NVLink, kernels tuned anew: on GB200 users report 169 GB/s a GPU with 24 SMs (DeepEP's issue 394)
// and its authors' hybrid kernels 351 to 513 (its pull request 420), this scaling 520. Assumed.
constexpr double kOtherMachineError = 0.5;
// Two nodes predicted from one: planner_accuracy prints 9% (dispatch) and 13% (combine) median, a third in the 90th
// percentile. From two nodes to many less is expected: four and eight are within 6% of what DeepEP's authors publish.
constexpr double kManyFromOneError = 0.35, kMoreNodesError = 0.30, kOtherShapeError = 0.15, kSameShapeError = 0.05;

SizeCurve curve_of(const CalibrationCurve& c) {
  std::vector<SizeCurve::Knot> knots;
  for (const CalibrationKnot& k : c.knots) knots.push_back({k.size, k.time_us * 1e-6});
  return SizeCurve(std::move(knots), c.operation);
}

double nvlink_us(const EpRequest& r, const CalibrationMachine& m) {
  return ep_nvlink_bytes(r, ep_reach(r)) * 1e-3 / (kNvlinkShare * m.nvlink_GBps);
}

double nic_us(const EpRequest& r, const CalibrationMachine& m, double share) {
  return r.nodes > 1 ? ep_nic_bytes(r, ep_reach(r)) * 1e-3 / (share * m.nic_GBps) : 0;
}

}  // namespace

double ep_model_us(const EpFigures& f, const CalibrationMachine& machine, const EpRatio& ratio, const EpRequest& r) {
  const EpReach reach = ep_reach(r);
  const double sent_on = r.nodes > 1 ? reach.nodes * f.node_copy_us : 0;
  const double copies = r.low_latency ? ep_nvlink_bytes(r, reach) * f.rank_copy_us
                                      : ep_payload_bytes(r) * (reach.ranks * f.rank_copy_us + sent_on) / r.sms;
  const double each = std::max({nic_us(r, machine, f.nic_share), copies * ratio.copies, nvlink_us(r, machine)});
  // Between a rank's own cost, which unevenness multiplies, and a pipeline to fill, which does not care: cube root.
  return f.start_us * ratio.start + r.tokens * each +
         f.uneven * std::sqrt(std::min(r.tokens, f.uneven_tokens)) * std::cbrt(each);
}

DeepEpModel::DeepEpModel(const CalibrationMachine& machine, std::span<const Calibration> all) : machine_(machine) {
  const auto has = [](const Calibration& c) {
    return std::any_of(c.curves.begin(), c.curves.end(), [](const CalibrationCurve& curve) {
      return curve.operation == "dispatch" && curve.nodes == 1 && curve.size_unit == "tokens";
    });
  };
  double nearest = 1e300;
  for (const Calibration& c : all) {
    const MachineRatio ratio = ratio_between(c.machine, machine);
    if (!has(c) || ratio.distance > nearest) continue;
    const bool same_nic = std::abs(c.machine.nic_GBps - machine.nic_GBps) < 0.01 * machine.nic_GBps;
    nearest = ratio.distance, source_ = c;
    ratio_ = {ratio.latency, ratio.latency / std::max(1.0, ratio.bandwidth)};
    same_machine_ = ratio.distance == 0 && same_nic;
    same_rates_ = ratio.distance < 0.02 && same_nic;
  }
  if (source_.name.empty())
    throw InvalidInput("calibration", "no curves of DeepEP's dispatch on one node",
                       "topomoe calibrate --from a DeepEP table, or leave the built-in ones in");
  if (machine.nvlink_GBps <= 0)
    throw InvalidInput("cluster", "no NVLink known", "DeepEP's kernels need it inside the node");
  for (const bool low_latency : {false, true}) {
    // Both directions share the NIC: the better of the two shows what it can.
    const double share = std::max(ep_nic_share(source_, EpOperation::dispatch, low_latency),
                                  ep_nic_share(source_, EpOperation::combine, low_latency));
    for (const EpOperation op : {EpOperation::dispatch, EpOperation::combine})
      figures_[static_cast<int>(op)][low_latency] = fit_ep_figures(source_, op, low_latency, share);
  }
}

const EpFigures& DeepEpModel::figures(EpOperation op, bool low_latency) const {
  return figures_[static_cast<int>(op)][low_latency];
}

EpEstimate DeepEpModel::estimate(const EpRequest& r) const {
  require_ep_request(r);
  const EpFigures& f = figures(r.operation, r.low_latency);
  const std::string operation = ep_operation_name(r.operation, r.low_latency);
  if (f.start_us <= 0)
    throw InvalidInput("calibration " + source_.name, "no curve of " + operation, "import a DeepEP table that has it");
  if (r.nodes > 1 && machine_.nic_GBps <= 0)
    throw InvalidInput("cluster", "no NIC known", "give the host template its \"nics\"");
  const EpReach reach = ep_reach(r);
  const double nvlink_bound = r.tokens * ep_nvlink_bytes(r, reach) * 1e-3 / machine_.nvlink_GBps;
  const double bound = std::max(r.tokens * nic_us(r, machine_, 1), nvlink_bound);

  const CalibrationCurve *exact = nullptr, *one = nullptr, *notify = nullptr;
  const bool unlimited = r.most_nodes == 0 || r.most_nodes >= r.nodes;
  for (const CalibrationCurve& c : source_.curves) {
    const EpRequest q = ep_request_of(c, r.operation, r.low_latency);
    if (c.operation == operation + "_notify" &&
        (!notify || std::abs(c.nodes - r.nodes) < std::abs(notify->nodes - r.nodes)))
      notify = &c;
    if (c.operation != operation || q.ranks / q.nodes != r.ranks / r.nodes || q.top_k != r.top_k) continue;
    if (q.nodes == 1 && r.nodes == 1) one = &c;
    if (q.nodes == r.nodes && q.experts == r.experts && (q.sms == r.sms || r.low_latency) && unlimited) exact = &c;
  }
  double time = 0, error = 0;
  std::string source;
  const double start = f.start_us * ratio_.start;
  if (const CalibrationCurve* c = exact ? exact : one; c && (same_rates_ || r.nodes == 1)) {
    const EpRequest q = ep_request_of(*c, r.operation, r.low_latency);
    // As many bytes as this request has, of the shape that was measured; beyond the start more SMs copy faster.
    const double tokens = r.tokens * ep_payload_bytes(r) * reach.ranks / (ep_payload_bytes(q) * ep_reach(q).ranks);
    const double slower = (r.low_latency ? 1 : 1.0 * q.sms / r.sms) * ratio_.copies;
    const double measured = in_us(curve_of(*c)(tokens)), launched = std::min(ep_start_us(*c), measured);
    time = slower == 1 && same_rates_
               ? measured
               : launched * ratio_.start + std::max((measured - launched) * slower, r.tokens * nvlink_us(r, machine_));
    // Points near the start scatter: where nothing is slower, no time is longer.
    if (slower <= 1) time = std::min(time, measured * ratio_.start);
    const bool same = same_machine_ && slower == 1 && std::abs(tokens - r.tokens) < 1e-9 * tokens;
    error = same ? std::max(kSameShapeError, c->spread) : kOtherShapeError;
    source =
        fmt::format("{}: {} {}, {} GPUs on {} node{}{}", same ? "measured" : "scaled", source_.name, operation, c->gpus,
                    c->nodes, c->nodes == 1 ? "" : "s", r.low_latency ? "" : fmt::format(", {} SMs", q.sms));
  } else {
    time = ep_model_us(f, machine_, ratio_, r);
    error = std::max(kOtherShapeError, f.spread);
    if (r.nodes > f.measured_nodes) error = f.measured_nodes == 1 ? kManyFromOneError : kMoreNodesError;
    source = fmt::format("scaled: {} {} of up to {} nodes, {:.2f} of the NIC", source_.name, operation,
                         f.measured_nodes, f.nic_share);
    if (!r.low_latency)
      source += fmt::format(", {:.2f} nodes and {:.2f} ranks reached by a token", reach.nodes, reach.ranks);
  }
  if (!same_rates_) error = std::hypot(error, kOtherMachineError);
  std::string bottleneck = r.low_latency ? "NVLink" : "SMs that copy";
  if (r.tokens * nic_us(r, machine_, f.nic_share) > 0.5 * (time - start)) bottleneck = "NIC";
  if (r.tokens <= 0 || time < 2 * start) bottleneck = "latency";
  EpEstimate e;
  static_cast<Estimate&>(e) = estimate_of(time, error, bound, std::move(source), std::move(bottleneck));
  if (notify && r.nodes > 1) e.notify_us = in_us(curve_of(*notify)(std::max(r.tokens, 1.0)));
  return e;
}

}  // namespace topomoe
