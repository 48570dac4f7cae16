// The keys of --set, what values each takes, and what each does to a request.

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "fmt/format.h"
#include "planner/layout_space.hpp"
#include "planner/schedules/build.hpp"
#include "planner/whatif/edits.hpp"
#include "planner/whatif/whatif.hpp"

namespace topomoe {
namespace {

enum class Takes { rate, count, text };
enum class Of { cluster, gpu, job, layout };

struct Key {
  const char* name;
  Takes takes;
  Of of;
};

// In the order in which they are listed to people.
constexpr std::array kKeys{
    Key{"nic.GBps", Takes::rate, Of::cluster}, Key{"nvlink.GBps", Takes::rate, Of::cluster},
    Key{"hosts", Takes::count, Of::cluster},   Key{"gpus", Takes::count, Of::gpu},
    Key{"hbm.GBps", Takes::rate, Of::gpu},     Key{"bf16.TFLOPps", Takes::rate, Of::gpu},
    Key{"memory_GiB", Takes::rate, Of::job},   Key{"phase", Takes::text, Of::job},
    Key{"sequence", Takes::count, Of::job},    Key{"global_batch", Takes::count, Of::job},
    Key{"micro_batch", Takes::count, Of::job}, Key{"dtype", Takes::text, Of::job},
    Key{"recompute", Takes::text, Of::job},    Key{"sequence_parallel", Takes::text, Of::job},
    Key{"routing", Takes::text, Of::job},      Key{"target", Takes::text, Of::job},
    Key{"split", Takes::text, Of::job},        Key{"transport", Takes::text, Of::job},
    Key{"chunks", Takes::count, Of::job},      Key{"tp", Takes::count, Of::layout},
    Key{"ep", Takes::count, Of::layout},       Key{"etp", Takes::count, Of::layout},
    Key{"pp", Takes::count, Of::layout},       Key{"vpp", Takes::count, Of::layout},
    Key{"cp", Takes::count, Of::layout},       Key{"dp", Takes::count, Of::layout},
    Key{"edp", Takes::count, Of::layout},
};

const Key& find_key(const std::string& name) {
  const auto key = std::find_if(kKeys.begin(), kKeys.end(), [&](const Key& k) { return name == k.name; });
  if (key == kKeys.end()) throw InvalidInput("--set", name.empty() ? "no key" : name, "known are " + setting_keys());
  return *key;
}

// Beyond these a figure is a slip of the keyboard, and products of several might overflow.
constexpr double kMostRate = 1e9;
constexpr int kMostCount = 10'000'000;

double number_from(const std::string& field, const std::string& text) {
  double value = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || rest != text.data() + text.size() || !(value > 0 && value <= kMostRate))
    throw InvalidInput(field, text, fmt::format("a number above 0, at most {:g}", kMostRate));
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

// All but what changes the cluster's links and hosts.
void apply(PlanRequest& r, const Key& key, const std::string& text) {
  const std::string field = std::string("--set ") + key.name;
  const std::string name = key.name;
  const auto gpus = [&](auto change) {
    for (HostTemplate& host : r.topology.templates) {
      change(host.gpu, number_from(field, text));
      host.gpu.source = Source::assumed, host.gpu.source_note = field + "=" + text;
    }
  };
  if (key.takes == Takes::text)
    set_text(r, name, text, field);
  else if (key.of == Of::layout)
    r.fix.push_back(fmt::format("{}={}", name, count_from(field, text)));
  else if (name == "memory_GiB")
    r.memory_GiB = number_from(field, text);
  else if (name == "hbm.GBps")
    gpus([](GpuSpec& gpu, double value) { gpu.hbm_GBps = value; });
  else if (name == "bf16.TFLOPps")
    gpus([](GpuSpec& gpu, double value) { gpu.bf16_TFLOPps = value; });
  else if (name == "gpus")
    r.topology = resize_hosts(r.topology, count_from(field, text), &r.topology_note);
  else
    set_count(r, name, count_from(field, text));
}

// Layout dimensions that --fix already holds.
bool fixed(const PlanRequest& r, const std::string& key) {
  const auto constraints = parse_constraints(r.fix, {});
  return constraints.fix.count(key) != 0;
}

}  // namespace

std::string setting_keys() {
  std::string text;
  const auto list = [&](std::initializer_list<Of> of, const char* whose) {
    const char* comma = text.empty() ? "" : "; ";
    for (const Key& key : kKeys)
      if (std::find(of.begin(), of.end(), key.of) != of.end()) text += comma + std::string(key.name), comma = ", ";
    text += whose;
  };
  list({Of::cluster, Of::gpu}, " (of the cluster)");
  list({Of::job}, " (of the job)");
  list({Of::layout}, " (of the layout)");
  return text;
}

bool numeric(const std::string& key) { return find_key(key).takes != Takes::text; }

Setting parse_setting(const std::string& text) {
  const auto equals = text.find('=');
  if (equals == std::string::npos) throw InvalidInput("--set", text, "KEY=VALUE[,VALUE]; known are " + setting_keys());
  Setting setting{text.substr(0, equals), {}};
  const Key& key = find_key(setting.key);
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
  std::vector<std::string> set;
  for (std::size_t i = 0; i < w.settings.size(); ++i) {
    const Key& key = find_key(w.settings[i].key);
    const std::string& value = w.settings[i].values[point.values[i]];
    if (key.of == Of::cluster)
      set.push_back(w.settings[i].key + "=" + value);
    else if (w.settings[i].key == "routing")
      request.routing = w.routings.at(value);
    else
      apply(request, key, value);
  }
  const std::vector<std::string> none;
  request.topology = edited(request.topology, set, point.edited ? w.degrade : none, point.edited ? w.remove : none);
  return request;
}

}  // namespace topomoe
