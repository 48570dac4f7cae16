#include "runtime/trace.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "topomoe/planned_layer.hpp"

namespace topomoe {
namespace {

using nlohmann::ordered_json;

constexpr double kMicroseconds = 1e6;

using Free = std::array<double, kLaneCount>;  // when each lane is, in us

class Writer {
 public:
  Writer(const std::string& plan_hash, const std::string& schedule)
      : out_(R"({"displayTimeUnit":"ns","otherData":{"schema":"topomoe.trace/1","plan":)" +
             ordered_json(plan_hash).dump() + R"(,"schedule":)" + ordered_json(schedule).dump() +
             R"(},"traceEvents":[)") {}
  std::string end() { return std::move(out_) + "\n]}\n"; }

  void rank(int rank, const std::string& its_name) {
    metadata("process_name", rank, -1, "name", its_name);
    metadata("process_sort_index", rank, -1, "sort_index", rank);
    for (int lane = 0; lane < kLaneCount; ++lane) {
      metadata("thread_name", rank, lane, "name", name(static_cast<Lane>(lane)));
      metadata("thread_sort_index", rank, lane, "sort_index", lane);
    }
  }

  void pass(int rank, double begin_s, const std::vector<StepTrace>& steps, const std::vector<Step>& schedule,
            const PredictedPass& predicted, Free& lane_free_us, const std::string& schedule_name = "") {
    std::size_t next = 0;
    for (const StepTrace& s : steps) {
      while (next < schedule.size() && schedule[next].name != s.name) ++next;
      const std::size_t planned = next++;
      double& free = lane_free_us[static_cast<std::size_t>(s.lane)];
      const double issued = (begin_s + s.begin_s) * kMicroseconds, begin = std::max(issued, free);
      const double end = std::max(begin, (begin_s + s.end_s) * kMicroseconds);
      free = end;
      ordered_json args{{"kind", name(s.kind)},
                        {"phase", planned < schedule.size() ? name(schedule[planned].phase) : ""},
                        {"chunk", s.chunk},
                        {"bytes", s.payload_bytes},
                        {"metadata_bytes", s.metadata_bytes}};
      if (planned < predicted.steps.size()) {
        const PredictedStep& p = predicted.steps[planned];
        args["predicted_us"] = p.end_us - p.begin_us;
        args["predicted_bytes"] = p.bytes;
        args["predicted_bottleneck"] = p.bottleneck;
      }
      if (begin > issued) args["issued_us"] = issued;
      if (!schedule_name.empty()) args["schedule"] = schedule_name;
      event({{"name", s.name},
             {"cat", s.backward ? "backward" : "forward"},
             {"ph", "X"},
             {"ts", begin},
             {"dur", end - begin},
             {"pid", rank},
             {"tid", static_cast<int>(s.lane)},
             {"args", std::move(args)}});
    }
  }

 private:
  void metadata(const char* what, int process, int thread, const char* key, const ordered_json& value) {
    ordered_json all{{"name", what}, {"ph", "M"}, {"pid", process}};
    if (thread >= 0) all["tid"] = thread;
    all["args"] = {{key, value}};
    event(all);
  }
  void event(const ordered_json& event) {
    out_ += first_ ? "\n" : ",\n";
    out_ += event.dump(-1, ' ', true, ordered_json::error_handler_t::replace);
    first_ = false;
  }
  std::string out_;
  bool first_ = true;
};

std::string rank_name(const Plan& plan, int rank) {
  const auto r = static_cast<std::size_t>(rank);
  return "rank " + std::to_string(rank) +
         (r < plan.ranks.size() ? " as " + plan.ranks[r].host + " " + plan.ranks[r].bus_id : "");
}

const PredictedPass& predicted(const Plan& plan, int kind, bool backward) {
  if (kind == 0) return backward ? plan.backward : plan.forward;
  const PlannedKind& later = plan.later_kinds[static_cast<std::size_t>(kind) - 1];
  return backward ? later.backward : later.forward;
}

}  // namespace

std::string write_trace(const Plan& plan, const RehearsalReport& report) {
  Writer write(plan_hash(plan), plan.schedule.name);
  for (std::size_t r = 0; r < report.ranks.size(); ++r) {
    const int rank = static_cast<int>(r);
    write.rank(rank, rank_name(plan, rank));
    Free lane_free_us{};
    const RankTrace& t = report.ranks[r];
    write.pass(rank, t.forward_begin_s, t.forward, plan.schedule.forward, plan.forward, lane_free_us);
    write.pass(rank, t.backward_begin_s, t.backward, plan.schedule.backward, plan.backward, lane_free_us);
  }
  return write.end();
}

std::string write_trace(const Plan& plan, int rank, std::span<const TracedPass> passes) {
  Writer write(plan_hash(plan), plan.schedule.name);
  write.rank(rank, rank_name(plan, rank));
  Free lane_free_us{};
  for (const TracedPass& pass : passes) {
    const Plan& by = *pass.plan;
    const Schedule& schedule = schedule_of(by, pass.kind);
    const std::vector<StepTrace>& steps = pass.trace.steps;
    const double begin_s = std::chrono::duration<double>(pass.trace.began.time_since_epoch()).count();
    const bool backward = !steps.empty() && steps.front().backward;
    write.pass(rank, begin_s, steps, backward ? schedule.backward : schedule.forward,
               predicted(by, pass.kind, backward), lane_free_us, schedule.name);
  }
  return write.end();
}

}  // namespace topomoe
