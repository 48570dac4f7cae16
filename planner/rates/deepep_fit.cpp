// DeepEP's figures from measured curves, one after the other: each from the points that show it.
#include <algorithm>
#include <cmath>
#include <vector>

#include "planner/rates/deepep.hpp"
#include "planner/rates/ep_traffic.hpp"

namespace topomoe {
namespace {

// Where no NIC was seen at work: what two nodes of H200 showed of ConnectX-7.
constexpr double kNicShare = 0.88;
// Where one node alone was measured: how often SMs touch what is sent to a node, in units of a rank's copy. A dispatch
// copies it into the send buffer; forwarding it reads it once for all ranks, which c_D counts. A combine writes the
// node's sum into the send buffer, and its receiver reads and adds it. (Measured on two nodes: 0.9 and 2.4.)
constexpr double kDispatchPasses = 1, kCombinePasses = 2;
// One round between nodes over what a node's own low-latency kernel takes; only where one node alone was measured.
// Assumed.
constexpr double kRdma_us = 5;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return 0.5 * (values[(values.size() - 1) / 2] + values[values.size() / 2]);
}

struct Curves {
  std::vector<const CalibrationCurve*> one, several;  // on one node, on more
};

Curves curves_of(const Calibration& c, EpOperation op, bool low_latency) {
  Curves found;
  for (const CalibrationCurve& curve : c.curves)
    if (curve.operation == ep_operation_name(op, low_latency) && curve.size_unit == "tokens")
      (curve.nodes == 1 ? found.one : found.several).push_back(&curve);
  return found;
}

// Microseconds a token at the largest size, beyond the start.
double slope_of(const CalibrationCurve& c) { return (c.knots.back().time_us - ep_start_us(c)) / c.knots.back().size; }

double nic_share_of(const CalibrationCurve& c, EpOperation op, bool low_latency, double nic_GBps) {
  const EpRequest r = ep_request_of(c, op, low_latency);
  return ep_nic_bytes(r, ep_reach(r)) * 1e-3 / slope_of(c) / nic_GBps;
}

// Calls with each measured point of the curves, as a request and its time.
template <class Each>
void each_point(const std::vector<const CalibrationCurve*>& curves, EpOperation op, bool low_latency, Each each) {
  for (const CalibrationCurve* c : curves) {
    EpRequest r = ep_request_of(*c, op, low_latency);
    for (const CalibrationKnot& k : c->knots) {
      r.tokens = k.size;
      each(r, k.time_us);
    }
  }
}

// For each number of tokens up to which unevenness grows: the median of what is left without it; the best of them.
void fit_unevenness(EpFigures& f, const Curves& curves, const CalibrationMachine& machine, EpOperation op,
                    bool low_latency) {
  double least = 1e300;
  EpFigures best = f;
  for (double most = 256; most <= 16384; most *= 2) {
    EpFigures even = f, unit = f;
    even.uneven = 0, unit.uneven = 1, unit.uneven_tokens = most;
    std::vector<double> left, errors;
    each_point(curves.several, op, low_latency, [&](const EpRequest& r, double time_us) {
      const double without = ep_model_us(even, machine, {}, r);
      if (r.tokens >= 64 && r.tokens <= most)
        left.push_back((time_us - without) / (ep_model_us(unit, machine, {}, r) - without));
    });
    EpFigures tried = unit;
    tried.uneven = left.empty() ? 0 : std::max(0.0, median(left));
    double sum = 0;
    each_point(curves.several, op, low_latency, [&](const EpRequest& r, double time_us) {
      errors.push_back(std::abs(std::log(ep_model_us(tried, machine, {}, r) / time_us)));
      sum += errors.back();
    });
    if (sum >= least) continue;
    least = sum;
    std::sort(errors.begin(), errors.end());
    tried.spread = std::expm1(errors[9 * (errors.size() - 1) / 10]);
    best = tried;
  }
  f = best;
}

}  // namespace

double ep_nic_share(const Calibration& c, EpOperation op, bool low_latency) {
  double share = 0, sum = 0;
  const Curves curves = curves_of(c, op, low_latency);
  if (c.machine.nic_GBps <= 0 || curves.several.empty()) return 0;
  for (const CalibrationCurve* curve : curves.several) {
    const double one = nic_share_of(*curve, op, low_latency, c.machine.nic_GBps);
    share = std::max(share, one), sum += one;
  }
  // Normal kernels with few SMs do not fill the NIC, the most shows what it can; low-latency ones always do, and their
  // short tables scatter.
  return std::min(1.0, low_latency ? sum / static_cast<double>(curves.several.size()) : share);
}

EpFigures fit_ep_figures(const Calibration& c, EpOperation op, bool low_latency, double nic_share) {
  EpFigures f;
  const Curves curves = curves_of(c, op, low_latency);
  if (curves.one.empty()) return f;
  const CalibrationCurve& node = *curves.one.front();
  const EpRequest r = ep_request_of(node, op, low_latency);
  const EpReach reach = ep_reach(r);
  f.start_us = ep_start_us(node);
  f.rank_copy_us = low_latency ? slope_of(node) / ep_nvlink_bytes(r, reach)
                               : slope_of(node) * r.sms / (ep_payload_bytes(r) * reach.ranks);
  f.node_copy_us = f.rank_copy_us * (op == EpOperation::dispatch ? kDispatchPasses : kCombinePasses);
  if (nic_share <= 0) nic_share = ep_nic_share(c, op, low_latency);
  f.nic_share = nic_share > 0 ? nic_share : kNicShare;
  if (curves.several.empty() || c.machine.nic_GBps <= 0) {
    if (low_latency) f.start_us += kRdma_us;
    return f;
  }
  std::vector<double> starts, node_copies;
  for (const CalibrationCurve* m : curves.several) {
    starts.push_back(ep_start_us(*m));
    f.measured_nodes = std::max(f.measured_nodes, m->nodes);
    // What the NIC holds up tells nothing of the SMs.
    if (low_latency || nic_share_of(*m, op, low_latency, c.machine.nic_GBps) > 0.8 * f.nic_share) continue;
    const EpRequest q = ep_request_of(*m, op, low_latency);
    const EpReach to = ep_reach(q);
    node_copies.push_back((slope_of(*m) * q.sms / ep_payload_bytes(q) - f.rank_copy_us * to.ranks) / to.nodes);
  }
  f.start_us = median(starts);
  if (!node_copies.empty()) f.node_copy_us = std::max(0.0, median(node_copies));
  fit_unevenness(f, curves, c.machine, op, low_latency);
  return f;
}

}  // namespace topomoe
