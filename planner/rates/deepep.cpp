#include "planner/rates/deepep.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "planner/curve.hpp"
#include "planner/rates/machine_figures.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// Of raw NVLink by copying SMs, where many SMs are given: 20 SMs reach 0.71 on H200. Assumed.
constexpr double kNvlinkShare = 0.8;
// Where no NIC was seen at work: what two nodes of H200 showed of ConnectX-7.
constexpr double kNicShare = 0.88;
// One round between nodes over what a node's own kernel takes; only where one node alone was measured. Assumed.
constexpr double kRdma_us = 5;
// planner_accuracy prints 9 and 21% median, 34 and 27% p90, for two nodes predicted from one; the same is expected
// from two nodes to many.
constexpr double kMoreNodesError = 0.30, kOtherShapeError = 0.15, kSameShapeError = 0.05;

std::string name_of(EpOperation op, bool low_latency) {
  return std::string(op == EpOperation::dispatch ? "dispatch" : "combine") + (low_latency ? "_low_latency" : "");
}

double payload_bytes(const EpRequest& r) {
  if (r.token_bytes > 0) return r.token_bytes;
  // FP8: one byte a value, and a scale of 4 bytes for each 128 of them.
  return r.operation == EpOperation::dispatch ? r.hidden + 4.0 * ((r.hidden + 127) / 128) : 2.0 * r.hidden;
}

double parameter(const CalibrationCurve& c, const char* name, double otherwise) {
  const auto at = c.parameters.find(name);
  return at == c.parameters.end() ? otherwise : at->second;
}

EpRequest request_of(const CalibrationCurve& c, EpOperation op, bool low_latency) {
  EpRequest r;
  r.operation = op, r.low_latency = low_latency;
  r.hidden = static_cast<int>(parameter(c, "hidden", 7168));
  r.experts = static_cast<int>(parameter(c, "experts", 256));
  r.top_k = static_cast<int>(parameter(c, "topk", 8));
  r.sms = static_cast<int>(parameter(c, "sms", 20));
  r.ranks = c.gpus, r.nodes = c.nodes;
  return r;
}

double start_of(const CalibrationCurve& c) {
  std::vector<double> small;
  for (std::size_t i = 0; i < std::min<std::size_t>(4, c.knots.size()); ++i) small.push_back(c.knots[i].time_us);
  std::sort(small.begin(), small.end());
  return 0.5 * (small[(small.size() - 1) / 2] + small[small.size() / 2]);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return 0.5 * (values[(values.size() - 1) / 2] + values[values.size() / 2]);
}

SizeCurve curve_of(const CalibrationCurve& c) {
  std::vector<SizeCurve::Knot> knots;
  for (const CalibrationKnot& k : c.knots) knots.push_back({k.size, k.time_us * 1e-6});
  return SizeCurve(std::move(knots), c.operation);
}

struct Reach {
  double nodes, ranks;
};
Reach reach_of(const EpRequest& r) {
  if (r.low_latency) return {0, 1.0 * r.top_k};
  const int limit = r.most_nodes > 0 && r.most_nodes < r.nodes ? r.most_nodes : 0;
  const double nodes = distinct_groups(r.experts, r.nodes, r.top_k, limit);
  if (limit == 0) return {nodes, distinct_groups(r.experts, r.ranks, r.top_k)};
  // Inside the nodes that are kept routing is taken as uniform over their experts.
  return {nodes, distinct_groups(r.experts / r.nodes * limit, r.ranks / r.nodes * limit, r.top_k)};
}

double off_node(const EpRequest& r) { return 1.0 * (r.nodes - 1) / r.nodes; }

// Bytes of one token that leave through the NIC.
double nic_bytes(const EpRequest& r, const Reach& reach) {
  return payload_bytes(r) * (r.low_latency ? r.top_k : reach.nodes) * off_node(r);
}

// Bytes of one token that cross NVLink: to other GPUs of the nodes it reaches; all choices in low latency.
double nvlink_bytes(const EpRequest& r, const Reach& reach) {
  const double g = 1.0 * r.ranks / r.nodes;
  return payload_bytes(r) * (r.low_latency ? r.top_k / (1.0 * r.nodes) : reach.ranks) * (g - 1) / g;
}

void require(const EpRequest& r) {
  const auto fail = [](const char* field, double value, const std::string& hint) {
    throw InvalidInput(field, fmt::format("{:g}", value), hint);
  };
  if (!std::isfinite(r.tokens) || r.tokens < 0 || r.tokens > 1e9) fail("tokens", r.tokens, "0 to 1e9");
  if (r.hidden < 1) fail("hidden", r.hidden, "at least 1");
  if (r.top_k < 1 || r.top_k > r.experts) fail("topk", r.top_k, fmt::format("1 to experts = {}", r.experts));
  if (r.sms < 1) fail("sms", r.sms, "at least 1");
  if (r.nodes < 1 || r.ranks < r.nodes || r.ranks % r.nodes != 0)
    fail("ranks", r.ranks, fmt::format("a multiple of {} nodes", r.nodes));
  if (r.experts % r.ranks != 0) fail("experts", r.experts, fmt::format("a multiple of {} ranks", r.ranks));
  if (r.most_nodes < 0) fail("nodes-per-token", r.most_nodes, "0 (no limit) or more");
  if (r.most_nodes > 0 && r.most_nodes < r.nodes && r.experts / r.nodes * r.most_nodes < r.top_k)
    fail("nodes-per-token", r.most_nodes, fmt::format("so many nodes hold fewer experts than topk = {}", r.top_k));
}

}  // namespace

double distinct_groups(int experts, int groups, int top_k, int most_groups) {
  // Probability that j distinct groups are met by drawing k of E experts: chain over draws. With j groups met after i
  // draws, (E/G) j - i of the E - i experts left lie in them.
  const double each = 1.0 * experts / groups;
  std::vector<double> met(static_cast<std::size_t>(std::min(groups, top_k)) + 1, 0.0);
  met[0] = 1;
  for (int i = 0; i < top_k; ++i)
    for (std::size_t j = met.size(); j-- > 0;) {
      const auto again = [&](std::size_t m) {
        return std::clamp((each * static_cast<double>(m) - i) / (experts - i), 0.0, 1.0);
      };
      met[j] = met[j] * again(j) + (j > 0 ? met[j - 1] * (1 - again(j - 1)) : 0);
    }
  // Kept are the groups of the best experts, so that the first `most_groups` distinct ones stay and no other is met.
  double expected = 0;
  for (std::size_t j = 0; j < met.size(); ++j)
    expected +=
        met[j] * (most_groups > 0 ? std::min<double>(most_groups, static_cast<double>(j)) : static_cast<double>(j));
  return expected;
}

double DeepEpModel::model_us(const Figures& f, const EpRequest& r, double d, double D) const {
  const Reach reach{d, D};
  const double nic = r.nodes > 1 ? nic_bytes(r, reach) * 1e-3 / (f.nic_share * machine_.nic_GBps) : 0;
  double copies = nvlink_bytes(r, reach) * f.rank_copy_us;  // low latency: all SMs, no count
  if (!r.low_latency) copies = payload_bytes(r) * (D * f.rank_copy_us + (r.nodes > 1 ? d * f.node_copy_us : 0)) / r.sms;
  const double nvlink = nvlink_bytes(r, reach) * 1e-3 / (kNvlinkShare * machine_.nvlink_GBps);
  const double each = std::max({nic, copies * latency_ratio_, nvlink});
  // Between a rank's own cost (multiplied by unevenness) and a pipeline to fill (which does not care): the cube root.
  return f.start_us * latency_ratio_ + r.tokens * each +
         f.uneven * std::sqrt(std::min(r.tokens, f.uneven_tokens)) * std::cbrt(each);
}

DeepEpModel::DeepEpModel(const CalibrationMachine& machine, std::span<const Calibration> all) : machine_(machine) {
  double nearest = 1e9;
  const auto has = [](const Calibration& c) {
    return std::any_of(c.curves.begin(), c.curves.end(), [](const CalibrationCurve& curve) {
      return curve.operation == "dispatch" && curve.nodes == 1 && curve.size_unit == "tokens";
    });
  };
  for (const Calibration& c : all)
    if (const double distance = ratio_between(c.machine, machine).distance; has(c) && distance <= nearest) {
      nearest = distance;
      source_ = c;
      latency_ratio_ = ratio_between(c.machine, machine).latency;
      same_machine_ = distance < 0.02 && std::abs(c.machine.nic_GBps - machine.nic_GBps) < 0.01 * machine.nic_GBps;
    }
  if (source_.name.empty())
    throw InvalidInput("calibration", "no curves of DeepEP's dispatch on one node",
                       "topomoe calibrate --from a DeepEP table, or leave the built-in ones in");
  if (machine.nvlink_GBps <= 0)
    throw InvalidInput("cluster", "no NVLink known", "DeepEP's kernels need it inside the node");
  const DeepEpModel at_source = [&] {
    DeepEpModel m = *this;
    m.machine_ = source_.machine, m.latency_ratio_ = 1;
    return m;
  }();

  double best_share = 0;
  for (const bool low_latency : {false, true})
    for (const EpOperation op : {EpOperation::dispatch, EpOperation::combine}) {
      Figures& f = figures_[static_cast<int>(op)][low_latency];
      std::vector<const CalibrationCurve*> one, several;
      for (const CalibrationCurve& c : source_.curves)
        if (c.operation == name_of(op, low_latency) && c.size_unit == "tokens")
          (c.nodes == 1 ? one : several).push_back(&c);
      if (one.empty()) continue;
      const CalibrationCurve& c = *one.front();
      const EpRequest r = request_of(c, op, low_latency);
      const Reach reach = reach_of(r);
      const double slope = (c.knots.back().time_us - start_of(c)) / c.knots.back().size;
      f.start_us = start_of(c) + (several.empty() && low_latency ? kRdma_us : 0);
      f.rank_copy_us = low_latency ? slope / nvlink_bytes(r, reach) : slope * r.sms / (payload_bytes(r) * reach.ranks);
      f.node_copy_us = f.rank_copy_us;
      f.nic_share = kNicShare, f.spread = kMoreNodesError;
      if (several.empty() || source_.machine.nic_GBps <= 0) continue;

      std::vector<double> starts, node_copies;
      double share = 0;
      const auto share_at_end = [&](const CalibrationCurve& m) {
        const EpRequest q = request_of(m, op, low_latency);
        return nic_bytes(q, reach_of(q)) * m.knots.back().size * 1e-3 / (m.knots.back().time_us - start_of(m)) /
               source_.machine.nic_GBps;
      };
      for (const CalibrationCurve* m : several) {
        starts.push_back(start_of(*m)), share = std::max(share, share_at_end(*m));
        f.measured_nodes = std::max(f.measured_nodes, m->nodes);
      }
      best_share = low_latency ? share : std::max(best_share, share);
      f.start_us = median(starts);
      f.nic_share = std::min(1.0, low_latency ? share : best_share);
      for (const CalibrationCurve* m : several) {
        const EpRequest q = request_of(*m, op, low_latency);
        // What the NIC holds up tells nothing of the SMs.
        if (low_latency || share_at_end(*m) > 0.8 * share) continue;
        const Reach to = reach_of(q);
        const double cost = (m->knots.back().time_us - start_of(*m)) / m->knots.back().size * q.sms / payload_bytes(q);
        node_copies.push_back((cost - f.rank_copy_us * to.ranks) / to.nodes);
      }
      if (!node_copies.empty()) f.node_copy_us = std::max(0.0, median(node_copies));

      // Unevenness: for each number of tokens up to which it grows, the median of what is left; the best of them.
      const auto errors_with = [&](const Figures& figures) {
        std::vector<double> errors;
        for (const CalibrationCurve* m : several)
          for (const CalibrationKnot& k : m->knots) {
            EpRequest q = request_of(*m, op, low_latency);
            q.tokens = k.size;
            const Reach to = reach_of(q);
            errors.push_back(std::abs(std::log(at_source.model_us(figures, q, to.nodes, to.ranks) / k.time_us)));
          }
        std::sort(errors.begin(), errors.end());
        return errors;
      };
      double least = 1e9;
      for (double most = 256; most <= 16384; most *= 2) {
        Figures tried = f;
        tried.uneven = 1, tried.uneven_tokens = most;
        Figures even = f;
        even.uneven = 0;
        std::vector<double> left;
        for (const CalibrationCurve* m : several)
          for (const CalibrationKnot& k : m->knots) {
            EpRequest q = request_of(*m, op, low_latency);
            q.tokens = k.size;
            const Reach to = reach_of(q);
            const double without = at_source.model_us(even, q, to.nodes, to.ranks);
            const double unit = at_source.model_us(tried, q, to.nodes, to.ranks) - without;
            if (k.size >= 64 && k.size <= most) left.push_back((k.time_us - without) / unit);
          }
        tried.uneven = left.empty() ? 0 : std::max(0.0, median(left));
        const auto errors = errors_with(tried);
        double sum = 0;
        for (const double e : errors) sum += e;
        if (sum >= least) continue;
        least = sum;
        f.uneven = tried.uneven, f.uneven_tokens = most;
        f.spread = std::expm1(errors[9 * (errors.size() - 1) / 10]);
      }
    }
}

const DeepEpModel::Figures& DeepEpModel::figures(EpOperation op, bool low_latency) const {
  return figures_[static_cast<int>(op)][low_latency];
}

EpEstimate DeepEpModel::estimate(const EpRequest& r) const {
  require(r);
  const Figures& f = figures(r.operation, r.low_latency);
  const std::string operation = name_of(r.operation, r.low_latency);
  if (f.start_us <= 0)
    throw InvalidInput("calibration " + source_.name, "no curve of " + operation, "import a DeepEP table that has it");
  if (r.nodes > 1 && machine_.nic_GBps <= 0)
    throw InvalidInput("cluster", "no NIC known", "give the host template its \"nics\"");
  const Reach reach = reach_of(r);
  const double nic_bound = r.tokens * nic_bytes(r, reach) * 1e-3 / std::max(machine_.nic_GBps, 1e-9);
  const double bound =
      std::max(r.nodes > 1 ? nic_bound : 0, r.tokens * nvlink_bytes(r, reach) * 1e-3 / machine_.nvlink_GBps);

  const CalibrationCurve *exact = nullptr, *one = nullptr, *notify = nullptr;
  const std::string notify_name = operation + "_notify";
  for (const CalibrationCurve& c : source_.curves) {
    const EpRequest q = request_of(c, r.operation, r.low_latency);
    if (c.operation == notify_name && (!notify || std::abs(c.nodes - r.nodes) < std::abs(notify->nodes - r.nodes)))
      notify = &c;
    if (c.operation != operation || q.ranks / q.nodes != r.ranks / r.nodes || q.top_k != r.top_k) continue;
    if (c.nodes == 1 && r.nodes == 1) one = &c;
    if (q.nodes == r.nodes && q.experts == r.experts && (q.sms == r.sms || r.low_latency) &&
        (r.most_nodes == 0 || r.most_nodes >= r.nodes))
      exact = &c;
  }
  double time = 0, error = 0;
  std::string source;
  if (const CalibrationCurve* c = exact ? exact : one; c && same_machine_) {
    const EpRequest q = request_of(*c, r.operation, r.low_latency);
    // As many bytes as this request has, of the shape that was measured; beyond the start more SMs copy faster.
    const double tokens = r.tokens * payload_bytes(r) * reach.ranks / (payload_bytes(q) * reach_of(q).ranks);
    const double faster = r.low_latency || r.sms == q.sms ? 1 : 1.0 * q.sms / r.sms;
    const double measured = in_us(curve_of(*c)(tokens)), start = std::min(start_of(*c), measured);
    const double nvlink = r.tokens * nvlink_bytes(r, reach) * 1e-3 / (kNvlinkShare * machine_.nvlink_GBps);
    time = faster == 1 ? measured : start + std::max((measured - start) * faster, nvlink);
    const bool same = faster == 1 && tokens == r.tokens;
    error = same ? std::max(kSameShapeError, c->spread) : kOtherShapeError;
    source = fmt::format("{}: {} {}, {} GPUs on {} nodes{}", same ? "measured" : "scaled", source_.name, operation,
                         c->gpus, c->nodes, same ? "" : fmt::format(", {} SMs", q.sms));
  } else {
    time = model_us(f, r, reach.nodes, reach.ranks);
    error = r.nodes > f.measured_nodes ? kMoreNodesError : std::max(kOtherShapeError, f.spread);
    if (!same_machine_) error = std::hypot(error, kOtherShapeError);
    source =
        fmt::format("scaled: {} {} of up to {} nodes, {:.2f} of the NIC, d = {:.2f} nodes and D = {:.2f} ranks a token",
                    source_.name, operation, f.measured_nodes, f.nic_share, reach.nodes, reach.ranks);
  }
  const double start = f.start_us * latency_ratio_;
  const double nic = nic_bound / f.nic_share;
  std::string bottleneck = r.low_latency ? "NVLink" : "SMs that copy";
  if (r.nodes > 1 && nic > 0.5 * (time - start)) bottleneck = "NIC";
  if (r.tokens <= 0 || time < 2 * start) bottleneck = "latency";
  EpEstimate e;
  static_cast<Estimate&>(e) = estimate_of(time, error, bound, std::move(source), std::move(bottleneck));
  if (notify && r.nodes > 1) e.notify_us = in_us(curve_of(*notify)(std::max(r.tokens, 1.0)));
  return e;
}

}  // namespace topomoe
