// What `topomoe run` prints: bytes and times, predicted against measured, and how far values are off.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/commands.hpp"
#include "cli/placement.hpp"
#include "cli/run_prediction.hpp"
#include "runtime/rehearsal.hpp"

namespace topomoe::cli {

struct RunInfo {
  std::string backend, device;
  bool rehearsal = true;             // no cluster was named: this machine stands in for it
  std::vector<std::string> skipped;  // what of the plan is not executed
  Placement placement;               // of processes
  // At the size that ran, on the cluster that was named; without it, times are the plan's, of its GPUs at full size.
  std::optional<RunPrediction> here;
  std::optional<Topology> cluster;  // that was named
};

std::string report_text(const Plan& plan, const RunInfo& info, const RehearsalRequest& request,
                        const RehearsalReport& report);
std::string report_json(const Plan& plan, const RunInfo& info, const RehearsalRequest& request,
                        const RehearsalReport& report);

}  // namespace topomoe::cli
