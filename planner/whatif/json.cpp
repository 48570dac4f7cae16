// The answer as JSON, a line a point, and as a table.

#include <algorithm>
#include <cmath>

#include "fmt/format.h"
#include "planner/plan/json.hpp"
#include "planner/whatif/whatif.hpp"

namespace topomoe {
namespace {

using Status = WhatIfOutcome::Status;

ordered_json value_json(const std::string& key, const std::string& text) {
  if (!numeric(key)) return text;
  const double value = std::stod(text);
  if (value == std::floor(value)) return static_cast<std::int64_t>(value);  // 25, not 25.0
  return value;
}

constexpr std::size_t kMostChangesAsText = 12;

std::string run_name(const Plan& p) {
  std::string text = fmt::format("{}, micro-batch {}", name(p.layout), p.job.micro_batch);
  if (p.job.recompute != Recompute::none) text += fmt::format(", recompute {}", to_string(p.job.recompute));
  return text;
}

// Four significant digits, never an exponent: passes of 50 us and steps of minutes alike.
std::string figure(double v) {
  const int digits = v > 0 ? 3 - static_cast<int>(std::floor(std::log10(v))) : 0;
  return fmt::format("{:.{}f}", v, std::clamp(digits, 0, 6));
}

double memory_GiB(const Plan& p) {
  double sum = 0;
  for (const auto& [bucket, GiB] : p.memory_GiB) sum += GiB;
  return sum;
}

ordered_json pass_json(const PredictedPass& pass, const std::vector<Step>& steps) {
  ordered_json list = ordered_json::array();
  for (std::size_t i = 0; i < pass.steps.size() && i < steps.size(); ++i) {
    const PredictedStep& s = pass.steps[i];
    if (s.end_us > s.begin_us)
      list.push_back({{"name", s.name},
                      {"lane", name(steps[i].lane)},
                      {"begin_us", s.begin_us},
                      {"end_us", s.end_us},
                      {"bytes", s.bytes},
                      {"waits_for", s.bottleneck}});
  }
  return {{"time_us", pass.time_us}, {"bound_us", pass.bound_us}, {"bound_by", pass.bound_by}, {"steps", list}};
}

ordered_json load_json(const LinkClassLoad& l) {
  return {{"link_class", l.link_class},
          {"link", l.link},
          {"GBps_per_direction", l.GBps_per_direction},
          {"bytes", l.bytes},
          {"busy_us", l.busy_us}};
}

void add_plan(ordered_json& j, const Plan& p) {
  j["gpus"] = p.layout.world;
  j["layout"] = run_name(p);
  j["algorithm"] = algorithms_name(p);
  j["step_ms"] = p.time.total_ms();
  j["low_ms"] = p.low_ms;
  j["high_ms"] = p.high_ms;
  j["model_TFLOPps_per_gpu"] = p.model_TFLOPps_per_gpu;
  j["gpu_seconds_per_token"] = gpu_seconds_per_token(p, p.time.total_ms());
  j["gpu_seconds_per_token_low"] = gpu_seconds_per_token(p, p.low_ms);
  j["gpu_seconds_per_token_high"] = gpu_seconds_per_token(p, p.high_ms);
  j["time"] = {{"moe_ms", p.time.moe_ms},
               {"attention_ms", p.time.attention_ms},
               {"bubble_ms", p.time.bubble_ms},
               {"gradients_ms", p.time.gradients_ms},
               {"other_ms", p.time.other_ms}};
  const LinkClassLoad* busiest = busiest_link(p);
  j["bottleneck"] = busiest == nullptr ? ordered_json() : ordered_json(busiest->link);
  j["memory_GiB"] = memory_GiB(p);
  j["memory_limit_GiB"] = p.memory_limit_GiB;
  j["memory_stage"] = p.memory_stage;
  ordered_json buckets = ordered_json::object();
  for (const auto& [bucket, GiB] : p.memory_GiB) buckets[bucket] = GiB;
  j["memory_by_bucket_GiB"] = buckets;
  j["loads"] = ordered_json::array();
  for (const LinkClassLoad& l : p.loads) j["loads"].push_back(load_json(l));
  j["forward"] = pass_json(p.forward, p.schedule.forward);
  if (p.job.phase == Phase::train) j["backward"] = pass_json(p.backward, p.schedule.backward);
  j["note"] = p.topology.note;
  j["warnings"] = p.topology.warnings;
}

ordered_json axes_json(const WhatIf& w) {
  ordered_json clusters = ordered_json::array(), axes = ordered_json::array();
  for (const auto& cluster : w.clusters) clusters.push_back(cluster.name);
  axes.push_back({{"key", "cluster"}, {"values", clusters}});
  if (!w.degrade.empty() || !w.remove.empty()) axes.push_back({{"key", "edits"}, {"values", {"as given", "edited"}}});
  for (const Setting& setting : w.settings) {
    ordered_json values = ordered_json::array();
    for (const std::string& value : setting.values) values.push_back(value_json(setting.key, value));
    axes.push_back({{"key", setting.key}, {"values", values}});
  }
  return axes;
}

// What a point differs in, as text.
std::vector<std::string> cells_of(const WhatIf& w, const WhatIfPoint& point) {
  std::vector<std::string> cells;
  if (w.clusters.size() > 1) cells.push_back(w.clusters[point.cluster].name);
  if (!w.degrade.empty() || !w.remove.empty()) cells.push_back(point.edited ? "edited" : "as given");
  for (std::size_t i = 0; i < w.settings.size(); ++i) cells.push_back(w.settings[i].values[point.values[i]]);
  return cells;
}

std::vector<std::string> titles_of(const WhatIf& w) {
  std::vector<std::string> titles;
  if (w.clusters.size() > 1) titles.push_back("cluster");
  if (!w.degrade.empty() || !w.remove.empty()) titles.push_back("edits");
  for (const Setting& setting : w.settings) titles.push_back(setting.key);
  return titles;
}

std::string joined(const std::vector<std::string>& texts) {
  std::string all;
  for (const std::string& text : texts) all += (all.empty() ? "" : ", ") + text;
  return all;
}

// What makes steps of the points incomparable; empty where nothing does.
std::string different_work(const std::vector<WhatIfOutcome>& outcomes) {
  const Plan* first = nullptr;
  bool tokens = false, sequence = false, phase = false;
  for (const WhatIfOutcome& outcome : outcomes) {
    if (!outcome.plan) continue;
    if (first == nullptr) first = &*outcome.plan;
    const Job &a = first->job, &b = outcome.plan->job;
    tokens |= tokens_per_step(a) != tokens_per_step(b), sequence |= a.sequence != b.sequence,
        phase |= a.phase != b.phase;
  }
  std::vector<std::string> parts;
  if (phase) parts.emplace_back("phases differ");
  if (tokens) parts.emplace_back("tokens a step differ");
  if (sequence) parts.emplace_back("a token of a longer sequence attends to more");
  return joined(parts);
}

// What is the same at all points; the axes say the rest.
std::string headline(const WhatIf& w) {
  const auto swept = [&](const char* key) {
    return std::any_of(w.settings.begin(), w.settings.end(), [&](const Setting& s) { return s.key == key; });
  };
  std::vector<std::string> clusters, job;
  for (const auto& cluster : w.clusters)
    clusters.push_back(swept("hosts") || swept("gpus")
                           ? cluster.name
                           : fmt::format("{} ({} GPUs)", cluster.name, cluster.topology.gpu_count()));
  if (!swept("phase")) job.emplace_back(to_string(w.base.job.phase));
  if (!swept("sequence")) job.push_back(fmt::format("sequence {}", w.base.job.sequence));
  if (!swept("global_batch")) job.push_back(fmt::format("global batch {}", w.base.job.global_batch));
  if (!swept("dtype")) job.emplace_back(to_string(w.base.job.dtype));
  if (!swept("dispatch_dtype") && w.base.job.dispatch_dtype == DispatchDType::fp8) job.emplace_back("dispatch in fp8");
  if (!swept("routing")) job.push_back("routing " + w.base.routing.name);
  return w.base.model.name + " on " + joined(clusters) + "; " + joined(job);
}

}  // namespace

std::string what_if_json(const WhatIf& w, const std::vector<WhatIfOutcome>& outcomes) {
  const auto computed = std::count_if(outcomes.begin(), outcomes.end(),
                                      [](const WhatIfOutcome& o) { return o.status != Status::not_computed; });
  // Bytes that are not UTF-8 (names out of files) are replaced.
  const auto line = [](const ordered_json& j) {
    return j.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  };
  std::string text = "{\n  \"schema\": \"topomoe.whatif/1\",\n";
  text += "  \"question\": " + line(headline(w)) + ",\n";
  text += "  \"model\": " + line(w.base.model.name) + ",\n";
  text += "  \"phase\": " + line(to_string(w.base.job.phase)) + ",\n";
  text += "  \"degrade\": " + line(w.degrade) + ",\n";
  text += "  \"remove\": " + line(w.remove) + ",\n";
  text += "  \"axes\": " + line(axes_json(w)) + ",\n";
  ordered_json changes = ordered_json::array();
  for (const WhatIfChange& c : find_changes(w, outcomes))
    changes.push_back({{"key", c.key},
                       {"from_point", c.from},
                       {"to_point", c.to},
                       {"layout", c.layout},
                       {"algorithm", c.algorithm},
                       {"text", c.text}});
  text += "  \"changes\": " + line(changes) + ",\n";
  text += fmt::format("  \"points_computed\": {},\n  \"points\": [", computed);
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    const WhatIfPoint point = point_at(w, i);
    ordered_json j = {{"index", i}, {"settings", {{"cluster", w.clusters[point.cluster].name}}}};
    if (!w.degrade.empty() || !w.remove.empty()) j["settings"]["edits"] = point.edited ? "edited" : "as given";
    for (std::size_t k = 0; k < w.settings.size(); ++k)
      j["settings"][w.settings[k].key] = value_json(w.settings[k].key, w.settings[k].values[point.values[k]]);
    j["status"] = name(outcomes[i].status);
    j["reason"] = outcomes[i].reason;
    if (outcomes[i].plan) add_plan(j, *outcomes[i].plan);
    text += (i == 0 ? "\n    " : ",\n    ") + line(j);
  }
  return text + "\n  ]\n}\n";
}

std::string what_if_text(const WhatIf& w, const std::vector<WhatIfOutcome>& outcomes) {
  std::vector<std::string> titles = titles_of(w);
  const std::size_t own = titles.size();
  for (const char* title : {"step ms", "from", "to", "TFLOP/s", "GPU-s/Mtoken", "GiB", "busiest link"})
    titles.emplace_back(title);
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> ends;  // what comes after the columns: the plan, or why there is none
  const Plan *fastest = nullptr, *cheapest = nullptr;
  std::size_t fastest_at = 0, cheapest_at = 0;
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    rows.push_back(cells_of(w, point_at(w, i)));
    if (!outcomes[i].plan) {
      ends.push_back(name(outcomes[i].status));
      if (!outcomes[i].reason.empty()) ends.back() += ": " + outcomes[i].reason;
      continue;
    }
    const Plan& p = *outcomes[i].plan;
    const LinkClassLoad* busiest = busiest_link(p);
    for (const double ms : {p.time.total_ms(), p.low_ms, p.high_ms}) rows.back().push_back(figure(ms));
    rows.back().push_back(figure(p.model_TFLOPps_per_gpu));
    rows.back().push_back(figure(1e6 * gpu_seconds_per_token(p, p.time.total_ms())));
    rows.back().push_back(fmt::format("{:.1f}", memory_GiB(p)));
    rows.back().push_back(busiest == nullptr ? "none" : busiest->link);
    ends.push_back(run_name(p) + " | " + algorithms_name(p));
    const auto cost = [](const Plan& plan) { return gpu_seconds_per_token(plan, plan.time.total_ms()); };
    if (fastest == nullptr || p.time.total_ms() < fastest->time.total_ms()) fastest = &p, fastest_at = i;
    if (cheapest == nullptr || cost(p) < cost(*cheapest)) cheapest = &p, cheapest_at = i;
  }
  std::vector<std::size_t> widths;
  for (std::size_t c = 0; c < titles.size(); ++c) {
    widths.push_back(titles[c].size());
    for (const auto& row : rows)
      if (c < row.size()) widths[c] = std::max(widths[c], row[c].size());
  }
  std::string text = "what if: " + headline(w) + "\n";
  if (!w.degrade.empty()) text += "degraded where edited: " + joined(w.degrade) + "\n";
  if (!w.remove.empty()) text += "removed where edited: " + joined(w.remove) + "\n";
  const auto line = [&](const std::vector<std::string>& cells, const std::string& end) {
    for (std::size_t c = 0; c < cells.size(); ++c) {
      const bool left = c + 1 == titles.size();  // names to the left, figures to the right
      text += left ? fmt::format("{:<{}}  ", cells[c], widths[c]) : fmt::format("{:>{}}  ", cells[c], widths[c]);
    }
    text += end + "\n";
  };
  text += "\n";
  line(titles, "plan");
  for (std::size_t i = 0; i < rows.size(); ++i) line(rows[i], ends[i]);
  const auto where = [&](std::size_t i) {
    const std::vector<std::string> cells = cells_of(w, point_at(w, i));
    std::string at;
    for (std::size_t c = 0; c < own; ++c) at += fmt::format("{}{} {}", c == 0 ? "" : ", ", titles[c], cells[c]);
    return at;
  };
  const std::vector<WhatIfChange> changes = find_changes(w, outcomes);
  if (!changes.empty()) text += "\n";
  for (std::size_t i = 0; i < std::min(changes.size(), kMostChangesAsText); ++i)
    text += fmt::format("{}{}\n", i == 0 ? "changes  " : "         ", changes[i].text);
  if (changes.size() > kMostChangesAsText)
    text += fmt::format("         and {} more: in the JSON and on the page\n", changes.size() - kMostChangesAsText);
  if (outcomes.size() > 1 && fastest != nullptr) {
    const std::string differs = different_work(outcomes);
    if (differs.empty())
      text += fmt::format("\nfastest: {} ms with {}\n", figure(fastest->time.total_ms()), where(fastest_at));
    else
      text += fmt::format("\nsteps do different work ({}): compare GPU-seconds a token, not step times\n", differs);
    text += fmt::format("fewest GPU-seconds: {} a million tokens with {}\n",
                        figure(1e6 * gpu_seconds_per_token(*cheapest, cheapest->time.total_ms())), where(cheapest_at));
  }
  return text;
}

}  // namespace topomoe
