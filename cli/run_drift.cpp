#include "cli/run_drift.hpp"

#include <fmt/format.h>

namespace topomoe::cli {

using nlohmann::ordered_json;

Drift drift_here(const Plan& plan, const RunPrediction& here, int gpus_per_node, const RehearsalReport& report) {
  const RankGroups groups(plan.layout, gpus_per_node);
  Drift drift = drift_of(plan.schedule, groups, here.forward, here.backward, report.runs);
  for (LaneDrift& lane : drift.lanes) {
    const auto at = static_cast<std::size_t>(lane.lane);
    lane.curve_spread = here.spread[at];
    // A last round's steps are of a part of the tokens, predictions of all of them.
    lane.judged = report.overflow_rounds == 0 && !here.carried[at];
  }
  return drift;
}

std::string drift_text(const Drift& drift) {
  std::string out = fmt::format("\n{:<40}{:>14}{:>14}{:>9}\n", "drift, us", "predicted", "measured", "");
  const auto line = [&](const std::string& what, double predicted, double measured, const std::string& more) {
    const std::string off = predicted > 0 ? fmt::format("{:+.0f}%", 100 * (measured / predicted - 1)) : "";
    out += fmt::format("  {:<38}{:>14.1f}{:>14.1f}{:>9}{}\n", what, predicted, measured, off, more);
  };
  for (const StepDrift& s : drift.steps)
    line(fmt::format("{} {:<11}{}", s.backward ? "bwd" : "fwd", name(s.lane), s.name), s.predicted_us, s.measured_us,
         "");
  for (const LaneDrift& l : drift.lanes)
    line(fmt::format("all {}", name(l.lane)), l.predicted_us, l.measured_us,
         between_ranks(l.lane)
             ? fmt::format("  curve within {:.0f}%, repetitions within {:.0f}%", 100 * l.curve_spread, 100 * l.noise)
             : "");
  return out + fmt::format("  of {} repetitions\n  {}\n", drift.repetitions, verdict(drift));
}

ordered_json drift_json(const Drift& drift) {
  ordered_json out{{"repetitions", drift.repetitions}};
  out["steps"] = ordered_json::array();
  for (const StepDrift& s : drift.steps)
    out["steps"].push_back({{"pass", s.backward ? "backward" : "forward"},
                            {"step", s.name},
                            {"lane", name(s.lane)},
                            {"predicted_us", s.predicted_us},
                            {"measured_us", s.measured_us}});
  out["lanes"] = ordered_json::array();
  for (const LaneDrift& l : drift.lanes)
    out["lanes"].push_back({{"lane", name(l.lane)},
                            {"predicted_us", l.predicted_us},
                            {"measured_us", l.measured_us},
                            {"curve_spread", l.curve_spread},
                            {"noise", l.noise}});
  out["verdict"] = verdict(drift);
  return out;
}

}  // namespace topomoe::cli
