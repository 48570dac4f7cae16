#include "planner/compare.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "fmt/format.h"
#include "planner/plan/json.hpp"

namespace topomoe {
namespace {

class Rows {
 public:
  void text(const char* what, const std::string& first, const std::string& second) {
    PlanRow row;
    row.what = what, row.first_text = first, row.second_text = second;
    rows_.push_back(std::move(row));
  }
  void figure(const std::string& what, const char* unit, double first, double second) {
    PlanRow row;
    row.what = what, row.unit = unit, row.first = first, row.second = second;
    rows_.push_back(std::move(row));
  }
  // Named figures of both, in the first's order, then those that only the second has.
  using Named = std::vector<std::pair<std::string, double>>;
  void figures(const std::string& stem, const char* unit, const Named& first, const Named& second) {
    const auto value = [](const Named& list, const std::string& name) {
      const auto at = std::find_if(list.begin(), list.end(), [&](const auto& own) { return own.first == name; });
      return at == list.end() ? 0 : at->second;
    };
    for (const auto& [name, own] : first) figure(stem + name, unit, own, value(second, name));
    for (const auto& [name, own] : second)
      if (std::none_of(first.begin(), first.end(), [&, &n = name](const auto& f) { return f.first == n; }))
        figure(stem + name, unit, 0, own);
  }
  std::vector<PlanRow> take() { return std::move(rows_); }

 private:
  std::vector<PlanRow> rows_;
};

std::string cluster_of(const Plan& p) {
  return fmt::format("{}: {} hosts, {} GPUs", p.topology.name, p.topology.hosts, p.topology.gpus);
}
std::string job_of(const Plan& p) {
  return fmt::format("{} {}, sequence {}, global batch {}, {}, routing {}", p.model.name, to_string(p.job.phase),
                     p.job.sequence, p.job.global_batch, to_string(p.job.dtype), p.routing.name);
}
Rows::Named busy_of(const Plan& p) {
  Rows::Named list;
  for (const LinkClassLoad& load : p.loads) list.emplace_back(load.link_class, load.busy_us);
  return list;
}

std::string value_text(double value) {
  const int digits = value > 0 ? 3 - static_cast<int>(std::floor(std::log10(value))) : 0;  // four significant
  return fmt::format("{:.{}f}", value, std::clamp(digits, 0, 3));
}

}  // namespace

std::vector<PlanRow> compare_plans(const Plan& a, const Plan& b) {
  Rows rows;
  rows.text("cluster", cluster_of(a), cluster_of(b));
  rows.text("job", job_of(a), job_of(b));
  rows.text("layout", name(a.layout), name(b.layout));
  rows.text("algorithm", a.schedule.name, b.schedule.name);
  rows.figure("micro-batch", "sequences", a.job.micro_batch, b.job.micro_batch);
  rows.text("recompute", std::string(to_string(a.job.recompute)), std::string(to_string(b.job.recompute)));
  rows.figure("time", "ms", a.time.total_ms(), b.time.total_ms());
  rows.figure("time, low", "ms", a.low_ms, b.low_ms);
  rows.figure("time, high", "ms", a.high_ms, b.high_ms);
  rows.figure("time: MoE layers", "ms", a.time.moe_ms, b.time.moe_ms);
  rows.figure("time: attention and dense", "ms", a.time.attention_ms, b.time.attention_ms);
  rows.figure("time: bubble", "ms", a.time.bubble_ms, b.time.bubble_ms);
  rows.figure("time: gradients", "ms", a.time.gradients_ms, b.time.gradients_ms);
  rows.figure("time: other", "ms", a.time.other_ms, b.time.other_ms);
  const auto per_s = [](const Plan& p) { return tokens_per_step(p.job) / (p.time.total_ms() * 1e-3); };
  rows.figure("tokens a second", "tokens/s", per_s(a), per_s(b));
  rows.figure("model TFLOP/s a GPU", "TFLOP/s", a.model_TFLOPps_per_gpu, b.model_TFLOPps_per_gpu);
  rows.figure("MoE layer, forward", "us", a.forward.time_us, b.forward.time_us);
  rows.figure("MoE layer, backward", "us", a.backward.time_us, b.backward.time_us);
  rows.figures("busy in a layer: ", "us", busy_of(a), busy_of(b));
  double first_GiB = 0, second_GiB = 0;
  for (const auto& [bucket, GiB] : a.memory_GiB) first_GiB += GiB;
  for (const auto& [bucket, GiB] : b.memory_GiB) second_GiB += GiB;
  rows.figure("memory", "GiB", first_GiB, second_GiB);
  rows.figures("memory: ", "GiB", a.memory_GiB, b.memory_GiB);
  return rows.take();
}

std::string compare_text(const Plan& a, const Plan& b) {
  std::string text, equal;
  for (const PlanRow& row : compare_plans(a, b)) {
    if (row.first == row.second && row.first_text == row.second_text) {
      equal += (equal.empty() ? "" : ", ") + row.what;
    } else if (row.unit.empty()) {
      text += fmt::format("{:<28}{}\n{:<28}{}\n", row.what, row.first_text, "", row.second_text);
    } else {
      const std::string change = row.first > 0 ? fmt::format("{:+.1f}%", 100 * (row.second / row.first - 1)) : "new";
      text += fmt::format("{:<28}{:>10} {:>10}  {:<9} {:>8}\n", row.what, value_text(row.first), value_text(row.second),
                          row.unit, change);
    }
  }
  const double ms[] = {a.time.total_ms(), b.time.total_ms()};
  if (a.low_ms <= ms[1] && ms[1] <= a.high_ms && ms[0] != ms[1])
    text += fmt::format("the second's time lies within what is expected of the first, {:.1f} to {:.1f} ms\n", a.low_ms,
                        a.high_ms);
  if (!equal.empty()) text += "the same: " + equal + "\n";
  return text;
}

std::string compare_json(const Plan& a, const Plan& b) {
  ordered_json rows = ordered_json::array();
  for (const PlanRow& row : compare_plans(a, b)) {
    ordered_json j = {{"what", row.what}, {"unit", row.unit}};
    j["first"] = row.unit.empty() ? ordered_json(row.first_text) : ordered_json(row.first);
    j["second"] = row.unit.empty() ? ordered_json(row.second_text) : ordered_json(row.second);
    rows.push_back(std::move(j));
  }
  const ordered_json all = {{"schema", "topomoe.compare/1"}, {"rows", rows}};
  return all.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace topomoe
