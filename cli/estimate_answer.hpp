// What `topomoe estimate` is asked, and the model that answers it.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "planner/rates/estimate.hpp"
#include "topomoe/calibration.hpp"
#include "topomoe/topology.hpp"

namespace topomoe::cli {

struct EstimateOptions {
  std::string operation, cluster, bytes, dtype;
  std::vector<std::string> calibrations;
  bool no_builtin = false, low_latency = false, host_curves = false;
  int gpus = 0;
  double m = 0, n = 0, k = 0, tokens = 0, measured_us = 0;
  bool has_measured = false, has_experts = false;
  std::string phase = "prefill";
  int hidden = 7168, top_k = 8, experts = 256, sms = 20, ffn = 2048, ep = 1, tp = 1, nodes_per_token = -1;
};

// What was asked, in words, and the answer.
struct Answer {
  std::string question;
  Estimate estimate;
  double notify_us = 0;
  // moe_ffn: what a plan of that phase says of the experts, by which kernel.
  double experts_us = 0, in_step_us = 0;
  std::string kernel;
};

// Throws InvalidInput by flag.
Answer answer_of(const EstimateOptions& options, const Topology& topology, std::span<const Calibration> calibrations);
double positive(double value, const char* flag);

}  // namespace topomoe::cli
