// What `topomoe run` prints: bytes and times, predicted against measured, and how far values are off.
#pragma once

#include <string>
#include <vector>

#include "cli/commands.hpp"
#include "runtime/rehearsal.hpp"

namespace topomoe::cli {

struct RunInfo {
  std::string backend, device;
  bool rehearsal = true;             // no cluster was named: this machine stands in for it
  std::vector<std::string> skipped;  // what of the plan is not executed
};

std::string report_text(const Plan& plan, const RunInfo& info, const RehearsalRequest& request,
                        const RehearsalReport& report);
std::string report_json(const Plan& plan, const RunInfo& info, const RehearsalRequest& request,
                        const RehearsalReport& report);

}  // namespace topomoe::cli
