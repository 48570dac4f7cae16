// The keys of --set, what values each takes, and what each does to a request.

#include <algorithm>
#include <charconv>
#include <cmath>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "planner/layout_space.hpp"
#include "planner/schedules/build.hpp"
#include "planner/whatif/whatif.hpp"
#include "topology/set_figure.hpp"

namespace topomoe {
namespace {

enum class Takes { rate, count, text };
enum class Of { cluster, resize, job, layout };

struct Key {
  std::string name;
  Takes takes;
  Of of;
};

// Beside these there are the figures of the cluster that an edit can set. In the order in which people see them.
const std::vector<Key>& own_keys() {
  static const std::vector<Key> keys{
      {"gpus", Takes::count, Of::resize},      {"memory_GiB", Takes::rate, Of::job},
      {"phase", Takes::text, Of::job},         {"sequence", Takes::count, Of::job},
      {"global_batch", Takes::count, Of::job}, {"micro_batch", Takes::count, Of::job},
      {"dtype", Takes::text, Of::job},         {"dispatch_dtype", Takes::text, Of::job},
      {"recompute", Takes::text, Of::job},     {"sequence_parallel", Takes::text, Of::job},
      {"routing", Takes::text, Of::job},       {"target", Takes::text, Of::job},
      {"split", Takes::text, Of::job},         {"transport", Takes::text, Of::job},
      {"chunks", Takes::count, Of::job},       {"tp", Takes::count, Of::layout},
      {"ep", Takes::count, Of::layout},        {"etp", Takes::count, Of::layout},
      {"pp", Takes::count, Of::layout},        {"vpp", Takes::count, Of::layout},
      {"cp", Takes::count, Of::layout},        {"dp", Takes::count, Of::layout},
      {"edp", Takes::count, Of::layout},
  };
  return keys;
}

Key find_key(const std::string& name) {
  for (const Key& key : own_keys())
    if (key.name == name) return key;
  for (const std::string& figure : figure_keys())
    if (figure == name) return {name, name.starts_with("hosts") ? Takes::count : Takes::rate, Of::cluster};
  throw InvalidInput("--set", name.empty() ? "no key" : name, "known are " + setting_keys());
}

// Beyond these a figure is a slip of the keyboard, and products of several might overflow.
constexpr double kMostRate = 1e9;
constexpr int kMostCount = 10'000'000;

double number_from(const std::string& field, const std::string& text) {
  double value = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool may_be_0 = field.ends_with("_us");
  if (error != std::errc() || rest != text.data() + text.size() || !(value >= 0 && value <= kMostRate) ||
      (value == 0 && !may_be_0))
    throw InvalidInput(field, text,
                       fmt::format("a number {} 0, at most {:g}", may_be_0 ? "not below" : "above", kMostRate));
  return value;
}

int count_from(const std::string& field, const std::string& text) {
  int value = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || rest != text.data() + text.size() || value < 1 || value > kMostCount)
    throw InvalidInput(field, text, fmt::format("a positive integer, at most {}", kMostCount));
  return value;
}

void set_text(PlanRequest& r, const std::string& key, const std::string& text, const std::string& field) {
  if (key == "phase") r.job.phase = phase_from(text, field);
  if (key == "dtype") r.job.dtype = dtype_from(text, field);
  if (key == "dispatch_dtype") r.job.dispatch_dtype = dispatch_dtype_from(text, field);
  if (key == "recompute") r.job.recompute = recompute_from(text, field);
  if (key == "sequence_parallel") r.job.sequence_parallel = sequence_parallel_from(text, field);
  if (key == "target") r.target = target_limits(text).name;
  if (key == "transport") r.transport = find_transport(text).name;
  if (key != "split") return;
  if (text != "sliced" && text != "replicated") throw InvalidInput(field, text, "sliced or replicated");
  r.split = text;
}

void set_count(PlanRequest& r, const std::string& key, int value) {
  if (key == "sequence") r.job.sequence = value;
  if (key == "global_batch") r.job.global_batch = value;
  if (key == "micro_batch") r.job.micro_batch = value;
  if (key == "chunks") r.chunks = value;
}

// All but figures of the cluster, and routing.
void apply(PlanRequest& r, const Key& key, const std::string& text) {
  const std::string field = "--set " + key.name;
  if (key.takes == Takes::text)
    set_text(r, key.name, text, field);
  else if (key.of == Of::layout)
    r.fix.push_back(fmt::format("{}={}", key.name, count_from(field, text)));
  else if (key.name == "memory_GiB")
    r.memory_GiB = number_from(field, text);
  else if (key.of == Of::resize)
    r.topology = resize_hosts(r.topology, count_from(field, text), &r.topology_note);
  else
    set_count(r, key.name, count_from(field, text));
}

// Layout dimensions that --fix already holds.
bool fixed(const PlanRequest& r, const std::string& key) {
  const auto constraints = parse_constraints(r.fix, {});
  return constraints.fix.count(key) != 0;
}

}  // namespace

std::string setting_keys() {
  std::string text = fmt::format("{}, gpus (of the cluster); ", fmt::join(figure_keys(), ", "));
  const auto list = [&](Of of, const char* whose) {
    const char* comma = "";
    for (const Key& key : own_keys())
      if (key.of == of) text += comma + key.name, comma = ", ";
    text += whose;
  };
  list(Of::job, " (of the job); ");
  list(Of::layout, " (of the layout)");
  return text;
}

bool numeric(const std::string& key) { return find_key(key).takes != Takes::text; }

Setting parse_setting(const std::string& text) {
  const auto equals = text.find('=');
  if (equals == std::string::npos) throw InvalidInput("--set", text, "KEY=VALUE[,VALUE]; known are " + setting_keys());
  Setting setting{text.substr(0, equals), {}};
  const Key key = find_key(setting.key);
  const std::string field = "--set " + setting.key;
  for (std::size_t at = equals + 1; at <= text.size();) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    const std::string value = text.substr(at, comma - at);
    at = comma + 1;
    if (value.empty()) throw InvalidInput(field, "an empty value", "KEY=VALUE[,VALUE], as nic.GBps=25,50");
    PlanRequest scratch;
    if (key.takes == Takes::rate) number_from(field, value);
    if (key.takes == Takes::count) count_from(field, value);
    if (key.takes == Takes::text) set_text(scratch, setting.key, value, field);
    if (std::find(setting.values.begin(), setting.values.end(), value) != setting.values.end())
      throw InvalidInput(field, value, "is listed twice");
    setting.values.push_back(value);
  }
  return setting;
}

std::size_t point_count(const WhatIf& w) {
  if (w.clusters.empty()) throw InvalidInput("--cluster", "none", "name at least one");
  std::size_t count = w.clusters.size();
  if (!w.degrade.empty() || !w.remove.empty()) count *= 2;
  for (std::size_t i = 0; i < w.settings.size(); ++i) {
    const Setting& setting = w.settings[i];
    for (std::size_t j = 0; j < i; ++j)
      if (w.settings[j].key == setting.key)
        throw InvalidInput("--set " + setting.key, "given twice", "one list: " + setting.key + "=VALUE,VALUE");
    if (find_key(setting.key).of == Of::layout && fixed(w.base, setting.key))
      throw InvalidInput("--set " + setting.key, "also in --fix", "give one of them");
    if (setting.values.empty()) throw InvalidInput("--set " + setting.key, "no value", "give at least one");
    count *= setting.values.size();  // at most 10^4 times what one command line holds: no overflow
    if (count > kMostPoints)
      throw InvalidInput("--set", fmt::format("more than {} points", kMostPoints), "fewer values, or several sweeps");
  }
  return count;
}

WhatIfPoint point_at(const WhatIf& w, std::size_t index) {
  WhatIfPoint point;
  point.values.resize(w.settings.size());
  for (std::size_t i = w.settings.size(); i-- > 0;) {
    point.values[i] = index % w.settings[i].values.size();
    index /= w.settings[i].values.size();
  }
  if (!w.degrade.empty() || !w.remove.empty()) point.edited = index % 2 == 1, index /= 2;
  point.cluster = index;
  return point;
}

PlanRequest request_at(const WhatIf& w, const WhatIfPoint& point) {
  PlanRequest request = w.base;
  request.topology = w.clusters[point.cluster].topology;
  request.topology_note = w.clusters[point.cluster].note;
  std::vector<Edit> edits;
  for (std::size_t i = 0; i < w.settings.size(); ++i) {
    const Key key = find_key(w.settings[i].key);
    const std::string& value = w.settings[i].values[point.values[i]];
    if (key.of == Of::cluster)
      edits.push_back(parse_set(w.settings[i].key + "=" + value));
    else if (w.settings[i].key == "routing")
      request.routing = w.routings.at(value);
    else
      apply(request, key, value);
  }
  if (point.edited) {
    for (const std::string& text : w.degrade) edits.push_back(parse_degrade(text));
    for (const std::string& text : w.remove) edits.push_back(parse_remove(text));
  }
  request.topology = edit(request.topology, edits);
  return request;
}

}  // namespace topomoe
