// DeepEP's dispatch and combine: how long they take, from the rate at which SMs copy and NICs send.
//
// Model, normal kernels, T tokens a rank, P payload bytes of one token, d and D the distinct nodes and ranks that a
// token reaches, N nodes:
//   start + max(SM part, NIC part) + unevenness
//   SM part    T P (D c_D + d c_d) / SMs       every copy over NVLink and every node's copy passes SMs
//   NIC part   T P d (N-1)/N / (share x NIC)   one copy a node that is not the sender's own
//   unevenness b sqrt(T), up to some T         random routing fills some ranks and channels more than others
// Low latency: no copy is shared: start + max(T k P / NVLink part, T k P (N-1)/N / NIC).
// On one node c_D comes from the curve, and d = 0: nothing is sent on. Where only one node was measured c_d = c_D for a
// dispatch and 2 c_D for a combine.
// On another machine the start goes as 1 / clock. SMs that copy wait for NVLink: with a faster one their copies take as
// much less by the datasheet; a slower one holds up no SM, it is a bound of its own.
// Ignored: hot experts (d and D are of uniform routing, group-limited where asked), SMs that the rest of the step
// takes, buffer sizes. The kernels' notify part (counts) is given apart, as DeepEP's own test prints it.
#pragma once

#include <span>
#include <string_view>

#include "planner/rates/estimate.hpp"
#include "topomoe/calibration.hpp"
#include "topomoe/topology.hpp"

namespace topomoe {

enum class EpOperation { dispatch, combine };

struct EpRequest {
  EpOperation operation = EpOperation::dispatch;
  bool low_latency = false;
  double tokens = 0;  // of one rank
  int hidden = 7168, experts = 256, top_k = 8;
  int sms = 20;
  int ranks = 8, nodes = 1;
  double token_bytes = 0;  // 0: dispatch FP8 with a scale each 128 values, combine BF16
  // A token's experts lie on at most so many nodes, as DeepSeek-V3 routes and DeepEP's tests do; 0: no limit.
  int most_nodes = 0;
};

// Expected distinct groups that one token reaches, `experts` in `groups` equal groups, uniform; with a limit the groups
// of the best experts are kept.
double distinct_groups(int experts, int groups, int top_k, int most_groups = 0);

struct EpEstimate : Estimate {
  double notify_us = 0;  // beside time_us; 0: not known
};

// What the model is made of, fitted on the curves of one machine.
struct EpFigures {
  double start_us = 0;      // 0: this kernel was not measured
  double rank_copy_us = 0;  // c_D: SM microseconds a byte; low latency: microseconds a byte, all SMs together
  double node_copy_us = 0;  // c_d
  double uneven = 0, uneven_tokens = 1;
  double nic_share = 0;
  int measured_nodes = 1;  // the most that stood behind the figures
  double spread = 0;       // p90 of what they leave, relative
};

// Figures of one kernel from its curves in the calibration; nic_share 0: from these curves alone.
EpFigures fit_ep_figures(const Calibration&, EpOperation, bool low_latency, double nic_share = 0);
// Largest share of the NIC's rate that any curve of several nodes reaches; 0 where there is none.
double ep_nic_share(const Calibration&, EpOperation, bool low_latency);
// Of this machine over the one that the figures are of: what starts, and what SMs copy.
struct EpRatio {
  double start = 1, copies = 1;
};
// The formula above.
double ep_model_us(const EpFigures&, const CalibrationMachine&, const EpRatio&, const EpRequest&);

class DeepEpModel {
 public:
  // Figures and curves of the nearest calibration that has "dispatch" on one node. Throws InvalidInput where none has:
  // there is nothing to start from.
  DeepEpModel(const CalibrationMachine&, std::span<const Calibration>);
  EpEstimate estimate(const EpRequest&) const;
  const EpFigures& figures(EpOperation, bool low_latency) const;

 private:
  CalibrationMachine machine_;
  Calibration source_;
  EpRatio ratio_;
  bool same_machine_ = true;  // the very one
  bool same_rates_ = true;    // or one that differs in name only
  EpFigures figures_[2][2];
};

}  // namespace topomoe
