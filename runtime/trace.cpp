#include "runtime/trace.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

namespace topomoe {
namespace {

using nlohmann::ordered_json;

constexpr double kMicroseconds = 1e6;

ordered_json metadata(const char* what, int process, int thread, const char* key, const ordered_json& value) {
  ordered_json event{{"name", what}, {"ph", "M"}, {"pid", process}};
  if (thread >= 0) event["tid"] = thread;
  event["args"] = {{key, value}};
  return event;
}

struct Writer {
  std::string& out;
  bool first = true;
  void operator()(const ordered_json& event) {
    out += first ? "\n" : ",\n";
    out += event.dump(-1, ' ', true, ordered_json::error_handler_t::replace);
    first = false;
  }
};

void write_pass(Writer& write, int rank, double begin_s, const std::vector<StepTrace>& steps,
                const std::vector<Step>& schedule, const PredictedPass& predicted,
                std::array<double, kLaneCount>& lane_free_us) {
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const StepTrace& s = steps[i];
    double& free = lane_free_us[static_cast<std::size_t>(s.lane)];
    const double issued = (begin_s + s.begin_s) * kMicroseconds, begin = std::max(issued, free);
    const double end = std::max(begin, (begin_s + s.end_s) * kMicroseconds);
    free = end;
    ordered_json args{{"kind", name(s.kind)},
                      {"phase", i < schedule.size() ? name(schedule[i].phase) : ""},
                      {"chunk", s.chunk},
                      {"bytes", s.payload_bytes},
                      {"metadata_bytes", s.metadata_bytes}};
    if (i < predicted.steps.size()) {
      args["predicted_us"] = predicted.steps[i].end_us - predicted.steps[i].begin_us;
      args["predicted_bytes"] = predicted.steps[i].bytes;
      args["predicted_bottleneck"] = predicted.steps[i].bottleneck;
    }
    if (begin > issued) args["issued_us"] = issued;
    write({{"name", s.name},
           {"cat", s.backward ? "backward" : "forward"},
           {"ph", "X"},
           {"ts", begin},
           {"dur", end - begin},
           {"pid", rank},
           {"tid", static_cast<int>(s.lane)},
           {"args", std::move(args)}});
  }
}

}  // namespace

std::string write_trace(const Plan& plan, const RehearsalReport& report) {
  std::string out = R"({"displayTimeUnit":"ns","otherData":{"schema":"topomoe.trace/1","plan":)" +
                    ordered_json(plan_hash(plan)).dump() + R"(,"schedule":)" + ordered_json(plan.schedule.name).dump() +
                    R"(},"traceEvents":[)";
  Writer write{out};
  for (std::size_t r = 0; r < report.ranks.size(); ++r) {
    const int rank = static_cast<int>(r);
    const std::string on = r < plan.ranks.size() ? " as " + plan.ranks[r].host + " " + plan.ranks[r].bus_id : "";
    write(metadata("process_name", rank, -1, "name", "rank " + std::to_string(rank) + on));
    write(metadata("process_sort_index", rank, -1, "sort_index", rank));
    for (int lane = 0; lane < kLaneCount; ++lane) {
      write(metadata("thread_name", rank, lane, "name", name(static_cast<Lane>(lane))));
      write(metadata("thread_sort_index", rank, lane, "sort_index", lane));
    }
    std::array<double, kLaneCount> lane_free_us{};
    const RankTrace& t = report.ranks[r];
    write_pass(write, rank, t.forward_begin_s, t.forward, plan.schedule.forward, plan.forward, lane_free_us);
    write_pass(write, rank, t.backward_begin_s, t.backward, plan.schedule.backward, plan.backward, lane_free_us);
  }
  return out + "\n]}\n";
}

}  // namespace topomoe
