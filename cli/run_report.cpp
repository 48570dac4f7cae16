#include "cli/run_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/run_drift.hpp"

namespace topomoe::cli {
namespace {

using nlohmann::ordered_json;

// Steps of one kind in one pass, added up.
struct KindRow {
  bool backward;
  StepKind kind;
  int steps = 0;
  double predicted_us = 0, measured_us = 0;  // on the plan's GPUs at full size; here, mean over ranks
};

std::vector<KindRow> rows_by_kind(const Plan& plan, const RunInfo& info, const RehearsalReport& report) {
  const RunPrediction of_plan{plan.forward, plan.backward, {}, {}}, &prediction = info.here ? *info.here : of_plan;
  std::vector<KindRow> rows;
  const auto row = [&](bool backward, StepKind kind) -> KindRow& {
    for (KindRow& r : rows)
      if (r.backward == backward && r.kind == kind) return r;
    return rows.emplace_back(KindRow{backward, kind});
  };
  for (const bool backward : {false, true}) {
    const auto& steps = backward ? plan.schedule.backward : plan.schedule.forward;
    const auto& predicted = (backward ? prediction.backward : prediction.forward).steps;
    for (std::size_t i = 0; i < steps.size(); ++i) {
      double measured_s = 0;
      bool ran = false;
      for (const RankTrace& t : report.ranks) {
        const auto& pass = backward ? t.backward : t.forward;
        if (i < pass.size()) measured_s += pass[i].end_s - pass[i].begin_s, ran = true;
      }
      if (!ran) continue;
      KindRow& r = row(backward, steps[i].kind);
      ++r.steps;
      if (i < predicted.size()) r.predicted_us += predicted[i].end_us - predicted[i].begin_us;
      r.measured_us += measured_s * 1e6 / static_cast<double>(report.ranks.size());
    }
  }
  return rows;
}

double predicted_us(const Plan& plan, const RunInfo& info) {
  const bool trains = plan.job.phase == Phase::train;
  return info.here ? info.here->forward.time_us + info.here->backward.time_us
                   : plan.forward.time_us + (trains ? plan.backward.time_us : 0);
}

const char* size_name(const LayerShape& s) { return s.dtype == DType::f32 ? "f32" : "bf16"; }

std::string best_ms(const RehearsalReport& report) {
  return fmt::format("{:.2f}", *std::min_element(report.seconds.begin(), report.seconds.end()) * 1e3);
}

}  // namespace

std::string report_text(const Plan& plan, const RunInfo& info, const RehearsalRequest& request,
                        const RehearsalReport& report) {
  const RehearsalSize& size = request.size;
  const bool trains = plan.job.phase == Phase::train;
  std::string out = fmt::format(
      "{}: one MoE layer of {}, {}, on {} {} ranks ({})\n", info.rehearsal ? "rehearsal" : "run", plan.model.name,
      trains ? "forward and backward" : "forward", plan.layout.world, info.backend, info.device);
  out += fmt::format("  plan      {} | {} | {}\n", plan.schedule.name, name(plan.layout), plan_hash(plan));
  out += fmt::format("  size      hidden {}, ffn {}, {} experts, top-{}, {} tokens a TP group, {}\n", size.shape.hidden,
                     size.shape.ffn, size.shape.experts, size.shape.top_k, size.tokens, size_name(size.shape));
  out += fmt::format("  scaled    {}\n",
                     size.note.empty() ? "nothing" : size.note + " (ranks, groups, chunks and steps are the plan's)");
  if (info.placement.remapped) out += "  ranks     re-ordered to where the plan has them\n";
  if (size.shape.capacity_factor > 0)
    out += fmt::format("  dropped   {} choices (token, expert): capacity factor {}\n", report.dropped(),
                       size.shape.capacity_factor);

  if (report.overflow_rounds > 0)
    out += fmt::format(
        "  overflow  {} further rounds: tokens did not fit the plan's buffers; bytes are not judged, "
        "steps are the last round's\n",
        report.overflow_rounds);

  out += fmt::format("\nbytes sent, all ranks{:>14}{:>16}{:>16}\n", "", "predicted", "measured");
  const auto line = [&](const char* what, double predicted, double measured) {
    out += fmt::format("  {:<33}{:>16.0f}{:>16.0f}  {}\n", what, predicted, measured,
                       predicted == measured         ? "equal"
                       : report.overflow_rounds == 0 ? "DIFFERENT"
                                                     : "cut anew each round");
  };
  line("payload inside nodes", report.predicted_payload.inside, report.counted_payload.inside);
  line("payload between nodes", report.predicted_payload.between, report.counted_payload.between);
  line("metadata inside nodes", report.predicted_metadata.inside, report.counted_metadata.inside);
  line("metadata between nodes", report.predicted_metadata.between, report.counted_metadata.between);
  out +=
      "  predicted: the schedule's size expressions on the counts that the router drew; measured: at the transport\n";

  out += fmt::format("\n{:<21}{:>14}{:>16}{:>16}\n", "time by step, us", "steps",
                     info.here ? "predicted here" : "plan's GPUs", "measured here");
  for (const KindRow& r : rows_by_kind(plan, info, report))
    out += fmt::format("  {:<4}{:<22}{:>7}{:>16.1f}{:>16.1f}\n", r.backward ? "bwd" : "fwd", name(r.kind), r.steps,
                       r.predicted_us, r.measured_us);
  out += fmt::format("  {:<33}{:>16.1f}{:>16.1f}\n", "layer, steps overlapped", predicted_us(plan, info),
                     report.seconds.back() * 1e6);
  if (report.seconds.size() > 1)
    out += fmt::format("  best of {} runs: {} ms\n", report.seconds.size(), best_ms(report));
  if (info.backend != "nccl" && !info.here)
    out += "  note: this is no GPU, and tensors are scaled; the times show what ran, not how fast a cluster is\n";

  if (!report.verified.empty()) {
    out += fmt::format("\nverified against double precision (largest difference / largest value, bound {:.0e})\n",
                       report.bound);
    for (const VerifiedTensor& t : report.verified)
      out += fmt::format("  {:<33}{:>16.2e}  {}\n", t.name, t.deviation.relative(),
                         t.deviation.relative() <= report.bound ? "ok" : "TOO FAR");
  }
  if (info.here) out += drift_text(drift_here(plan, *info.here, info.cluster->gpus_per_node(), report));
  return out;
}

std::string report_json(const Plan& plan, const RunInfo& info, const RehearsalRequest& request,
                        const RehearsalReport& report) {
  const RehearsalSize& size = request.size;
  const auto classes = [](const ClassBytes& b) {
    return ordered_json{{"inside_nodes_bytes", b.inside}, {"between_nodes_bytes", b.between}};
  };
  ordered_json out{{"schema", "topomoe.run/1"},   {"plan", plan_hash(plan)},   {"schedule", plan.schedule.name},
                   {"layout", name(plan.layout)}, {"backend", info.backend},   {"device", info.device},
                   {"rehearsal", info.rehearsal}, {"ranks", plan.layout.world}};
  out["size"] = {{"hidden", size.shape.hidden}, {"ffn", size.shape.ffn}, {"experts", size.shape.experts},
                 {"top_k", size.shape.top_k},   {"tokens", size.tokens}, {"dtype", size_name(size.shape)},
                 {"scaled", size.note}};
  out["not_executed"] = info.skipped;
  out["mismatches"] = info.placement.mismatches;
  out["remapped"] = info.placement.remapped;
  if (!info.placement.hosts.empty()) out["hosts"] = info.placement.hosts;
  out["dropped"] = report.dropped();
  out["overflow_rounds"] = report.overflow_rounds;
  out["payload"] = {{"predicted", classes(report.predicted_payload)}, {"measured", classes(report.counted_payload)}};
  out["metadata"] = {{"predicted", classes(report.predicted_metadata)}, {"measured", classes(report.counted_metadata)}};
  out["bytes_agree"] = report.overflow_rounds > 0 ? ordered_json(nullptr) : ordered_json(report.bytes_agree());
  out["steps"] = ordered_json::array();
  for (const KindRow& r : rows_by_kind(plan, info, report))
    out["steps"].push_back({{"pass", r.backward ? "backward" : "forward"},
                            {"kind", name(r.kind)},
                            {"steps", r.steps},
                            {"predicted_us", r.predicted_us},
                            {"measured_us", r.measured_us}});
  out["predicted_us"] = predicted_us(plan, info);
  out["measured_us"] = ordered_json::array();
  for (const double s : report.seconds) out["measured_us"].push_back(s * 1e6);
  out["verified"] = ordered_json::object();
  for (const VerifiedTensor& t : report.verified) out["verified"][t.name] = t.deviation.relative();
  out["bound"] = report.bound;
  if (!info.here) return out.dump(2) + "\n";
  out["drift"] = drift_json(drift_here(plan, *info.here, info.cluster->gpus_per_node(), report));
  return out.dump(2) + "\n";
}

}  // namespace topomoe::cli
