// A run's lanes beside their curves, as `topomoe run` prints them, and the verdict.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "cli/run_prediction.hpp"
#include "runtime/drift.hpp"
#include "runtime/rehearsal.hpp"

namespace topomoe::cli {

Drift drift_here(const Plan& plan, const RunPrediction& here, int gpus_per_node, const RehearsalReport& report);
// A line a step and a lane, and what follows from them.
std::string drift_text(const Drift& drift);
nlohmann::ordered_json drift_json(const Drift& drift);

}  // namespace topomoe::cli
