// What DeepEP's kernels move for one token, and how a measured curve says it. Internal to planner/rates.
#pragma once

#include <string>

#include "planner/rates/deepep.hpp"

namespace topomoe {

// The curve's operation: "dispatch", "combine_low_latency".
std::string ep_operation_name(EpOperation, bool low_latency);
// The request that a curve is measured at, but for its tokens.
EpRequest ep_request_of(const CalibrationCurve&, EpOperation, bool low_latency);
double ep_payload_bytes(const EpRequest&);

// Distinct nodes and ranks that a token's copies go to; low latency: every choice is a copy.
struct EpReach {
  double nodes, ranks;
};
EpReach ep_reach(const EpRequest&);
double ep_nic_bytes(const EpRequest&, const EpReach&);     // of one token, out of a GPU's share of the NICs
double ep_nvlink_bytes(const EpRequest&, const EpReach&);  // of one token, to other GPUs of the nodes it reaches

// Median of the four smallest sizes.
double ep_start_us(const CalibrationCurve&);

// InvalidInput names the field that makes no sense.
void require_ep_request(const EpRequest&);

}  // namespace topomoe
