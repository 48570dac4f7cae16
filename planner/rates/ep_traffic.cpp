#include "planner/rates/ep_traffic.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

double parameter(const CalibrationCurve& c, const char* name, double otherwise) {
  const auto at = c.parameters.find(name);
  return at == c.parameters.end() ? otherwise : at->second;
}

double off_node(const EpRequest& r) { return 1.0 * (r.nodes - 1) / r.nodes; }

}  // namespace

std::string ep_operation_name(EpOperation op, bool low_latency) {
  return std::string(op == EpOperation::dispatch ? "dispatch" : "combine") + (low_latency ? "_low_latency" : "");
}

double ep_payload_bytes(const EpRequest& r) {
  if (r.token_bytes > 0) return r.token_bytes;
  // FP8: one byte a value, and a scale of 4 bytes for each 128 of them.
  return r.operation == EpOperation::dispatch ? r.hidden + 4.0 * ((r.hidden + 127) / 128) : 2.0 * r.hidden;
}

EpRequest ep_request_of(const CalibrationCurve& c, EpOperation op, bool low_latency) {
  EpRequest r;
  r.operation = op, r.low_latency = low_latency;
  r.hidden = static_cast<int>(parameter(c, "hidden", 7168));
  r.experts = static_cast<int>(parameter(c, "experts", 256));
  r.top_k = static_cast<int>(parameter(c, "topk", 8));
  r.sms = static_cast<int>(parameter(c, "sms", 20));
  r.ranks = c.gpus, r.nodes = c.nodes;
  return r;
}

double ep_start_us(const CalibrationCurve& c) {
  std::vector<double> small;
  for (std::size_t i = 0; i < std::min<std::size_t>(4, c.knots.size()); ++i) small.push_back(c.knots[i].time_us);
  std::sort(small.begin(), small.end());
  return 0.5 * (small[(small.size() - 1) / 2] + small[small.size() / 2]);
}

EpReach ep_reach(const EpRequest& r) {
  if (r.low_latency) return {0, 1.0 * r.top_k};
  const int limit = r.most_nodes > 0 && r.most_nodes < r.nodes ? r.most_nodes : 0;
  const double nodes = distinct_groups(r.experts, r.nodes, r.top_k, limit);
  if (limit == 0) return {nodes, distinct_groups(r.experts, r.ranks, r.top_k)};
  // Inside the nodes that are kept routing is taken as uniform over their experts.
  return {nodes, distinct_groups(r.experts / r.nodes * limit, r.ranks / r.nodes * limit, r.top_k)};
}

// Bytes of one token that leave through the NIC.
double ep_nic_bytes(const EpRequest& r, const EpReach& reach) {
  return ep_payload_bytes(r) * (r.low_latency ? r.top_k : reach.nodes) * off_node(r);
}

// Bytes of one token that cross NVLink: to other GPUs of the nodes it reaches; all choices in low latency.
double ep_nvlink_bytes(const EpRequest& r, const EpReach& reach) {
  const double g = 1.0 * r.ranks / r.nodes;
  return ep_payload_bytes(r) * (r.low_latency ? r.top_k / (1.0 * r.nodes) : reach.ranks) * (g - 1) / g;
}

void require_ep_request(const EpRequest& r) {
  const auto fail = [](const char* field, double value, const std::string& hint) {
    throw InvalidInput(field, fmt::format("{:g}", value), hint);
  };
  if (!std::isfinite(r.tokens) || r.tokens < 0 || r.tokens > 1e9) fail("tokens", r.tokens, "0 to 1e9");
  if (r.hidden < 1) fail("hidden", r.hidden, "at least 1");
  if (r.experts < 1) fail("experts", r.experts, "at least 1");
  if (r.top_k < 1 || r.top_k > r.experts) fail("topk", r.top_k, fmt::format("1 to experts = {}", r.experts));
  if (r.sms < 1) fail("sms", r.sms, "at least 1");
  if (r.nodes < 1 || r.ranks < r.nodes || r.ranks % r.nodes != 0)
    fail("ranks", r.ranks, fmt::format("a multiple of {} nodes", r.nodes));
  if (r.experts % r.ranks != 0) fail("experts", r.experts, fmt::format("a multiple of {} ranks", r.ranks));
  if (r.most_nodes < 0) fail("nodes-per-token", r.most_nodes, "0 (no limit) or more");
  if (r.most_nodes > 0 && r.most_nodes < r.nodes && r.experts / r.nodes * r.most_nodes < r.top_k)
    fail("nodes-per-token", r.most_nodes, fmt::format("so many nodes hold fewer experts than topk = {}", r.top_k));
}

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

}  // namespace topomoe
