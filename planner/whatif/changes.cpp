// Where along an axis of numbers the plan becomes another.

#include <algorithm>
#include <numeric>

#include "fmt/format.h"
#include "planner/whatif/whatif.hpp"

namespace topomoe {
namespace {

// What travels where. Not DP and EDP, which follow from the number of GPUs, nor how a stage is cut and run.
std::string layout_of(const Plan& p) {
  const Layout& l = p.layout;
  return fmt::format(
      "TP{} CP{} PP{}{} ETP{} EP{}{}{}", l.tp, l.cp, l.pp, l.zero == 1 ? "" : fmt::format(" ZeRO{}", l.zero), l.etp,
      l.ep, l.ep > 1 && l.expert_order == ExpertOrder::edp_inner ? " EDP inner" : "",
      p.job.recompute == Recompute::none ? "" : fmt::format(", recompute {}", to_string(p.job.recompute)));
}

// The place of a point in the cross product; point_at's inverse.
std::size_t index_of(const WhatIf& w, const WhatIfPoint& point) {
  std::size_t index = point.cluster;
  if (!w.degrade.empty() || !w.remove.empty()) index = 2 * index + (point.edited ? 1 : 0);
  for (std::size_t i = 0; i < w.settings.size(); ++i) index = index * w.settings[i].values.size() + point.values[i];
  return index;
}

// "nic.GBps 25, edited: "; of the axes other than `axis` that have more than one value.
std::string elsewhere(const WhatIf& w, const WhatIfPoint& point, std::size_t axis) {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  if (w.clusters.size() > 1) add(w.clusters[point.cluster].name);
  if (!w.degrade.empty() || !w.remove.empty()) add(point.edited ? "edited" : "as given");
  for (std::size_t i = 0; i < w.settings.size(); ++i)
    if (i != axis && w.settings[i].values.size() > 1)
      add(w.settings[i].key + " " + w.settings[i].values[point.values[i]]);
  return text.empty() ? "" : text + "; ";
}

}  // namespace

std::vector<WhatIfChange> find_changes(const WhatIf& w, const std::vector<WhatIfOutcome>& outcomes) {
  std::vector<WhatIfChange> changes;
  for (std::size_t axis = 0; axis < w.settings.size(); ++axis) {
    const Setting& setting = w.settings[axis];
    if (!numeric(setting.key)) continue;
    std::vector<std::size_t> upward(setting.values.size());
    std::iota(upward.begin(), upward.end(), std::size_t{0});
    std::stable_sort(upward.begin(), upward.end(), [&](std::size_t a, std::size_t b) {
      return std::stod(setting.values[a]) < std::stod(setting.values[b]);
    });
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
      WhatIfPoint point = point_at(w, i);
      if (point.values[axis] != upward.front()) continue;
      const std::string place = elsewhere(w, point, axis);
      for (std::size_t k = 0; k + 1 < upward.size(); ++k) {
        WhatIfChange c;
        c.key = setting.key;
        point.values[axis] = upward[k], c.from = index_of(w, point);
        point.values[axis] = upward[k + 1], c.to = index_of(w, point);
        const auto &a = outcomes[c.from], &b = outcomes[c.to];
        using Status = WhatIfOutcome::Status;
        if (a.status == Status::not_computed || b.status == Status::not_computed || (!a.plan && !b.plan)) continue;
        std::string was = a.plan ? layout_of(*a.plan) : name(a.status),
                    is = b.plan ? layout_of(*b.plan) : name(b.status);
        c.layout = was != is;
        c.algorithm = a.plan && b.plan && algorithms_name(*a.plan) != algorithms_name(*b.plan);
        if (!c.layout && !c.algorithm) continue;
        c.text = fmt::format("{}{} {} to {}: ", place, setting.key, setting.values[upward[k]],
                             setting.values[upward[k + 1]]);
        if (c.layout) c.text += was + " -> " + is;
        if (c.algorithm)
          c.text += fmt::format("{}{} -> {}", c.layout ? "; " : "", algorithms_name(*a.plan), algorithms_name(*b.plan));
        changes.push_back(std::move(c));
      }
    }
  }
  return changes;
}

}  // namespace topomoe
