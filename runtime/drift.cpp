#include "runtime/drift.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include "runtime/bench.hpp"

namespace topomoe {
namespace {

using Index = std::size_t;

// What a step took on its lane, and whether its predecessor there was still under way.
struct Taken {
  double us = 0;
  bool in_a_row = false;
};

std::vector<Taken> taken_by(const std::vector<StepTrace>& steps) {
  std::array<double, kLaneCount> free_s{};
  std::vector<Taken> out;
  for (const StepTrace& s : steps) {
    double& free = free_s[static_cast<Index>(s.lane)];
    const bool waited = s.begin_s < free;
    const double begin = std::max(s.begin_s, free);
    free = std::max(begin, s.end_s);
    out.push_back({(free - begin) * 1e6, waited});
  }
  return out;
}

// By step, medians over ranks; a step counts as in a row where most ranks saw it so.
std::vector<Taken> medians(const std::vector<RankTrace>& ranks, bool backward) {
  std::vector<std::vector<Taken>> of_rank;
  for (const RankTrace& t : ranks) of_rank.push_back(taken_by(backward ? t.backward : t.forward));
  Index steps = of_rank.empty() ? 0 : of_rank[0].size();
  for (const auto& one : of_rank) steps = std::min(steps, one.size());
  std::vector<Taken> out;
  for (Index i = 0; i < steps; ++i) {
    std::vector<double> us;
    Index waited = 0;
    for (const auto& one : of_rank) us.push_back(one[i].us), waited += one[i].in_a_row ? 1U : 0U;
    out.push_back({median(us), 2 * waited > of_rank.size()});
  }
  return out;
}

bool between_ranks(Lane lane) { return lane == Lane::intra_node || lane == Lane::inter_node; }

std::string_view words(Lane lane) { return lane == Lane::intra_node ? "intra-node" : "inter-node"; }

}  // namespace

Drift drift_of(const Schedule& schedule, const PredictedPass& forward, const PredictedPass& backward,
               const std::vector<RankTrace>& ranks) {
  Drift out;
  std::array<LaneDrift, kLaneCount> lanes{};
  std::array<bool, kLaneCount> used{};
  for (const bool back : {false, true}) {
    const auto& steps = back ? schedule.backward : schedule.forward;
    const auto& predicted = (back ? backward : forward).steps;
    const auto measured = medians(ranks, back);
    for (Index i = 0; i < std::min({steps.size(), predicted.size(), measured.size()}); ++i) {
      const Step& s = steps[i];
      const StepDrift& d = out.steps.emplace_back(
          StepDrift{s.name, s.kind, s.lane, back, predicted[i].end_us - predicted[i].begin_us, measured[i].us});
      LaneDrift& lane = lanes[static_cast<Index>(s.lane)];
      lane.lane = s.lane, lane.predicted_us += d.predicted_us, lane.measured_us += d.measured_us;
      used[static_cast<Index>(s.lane)] = true;
    }
  }
  for (Index i = 0; i < lanes.size(); ++i)
    if (used[i]) out.lanes.push_back(lanes[i]);
  return out;
}

std::string verdict(const Drift& drift) {
  const LaneDrift* worst = nullptr;
  bool judged = false;
  for (const LaneDrift& l : drift.lanes) {
    if (!between_ranks(l.lane) || l.predicted_us <= 0) continue;
    judged = true;
    if (std::abs(l.relative()) > kNoDrift && (!worst || std::abs(l.relative()) > std::abs(worst->relative())))
      worst = &l;
  }
  if (!judged) return "no lane between ranks was predicted: nothing to compare";
  if (!worst)
    return fmt::format("lanes between ranks are within {:.0f}% of their curves: the plan stands", 100 * kNoDrift);
  return fmt::format("the {} lane is {:.0f}% {} than its curve: re-plan", words(worst->lane),
                     100 * std::abs(worst->relative()), worst->relative() > 0 ? "slower" : "faster");
}

std::vector<CalibrationCurve> curves_of(const Schedule& schedule, const RankGroups& groups,
                                        const std::vector<RankTrace>& ranks) {
  // Of steps alike: operation, ranks, nodes, in a row.
  using Key = std::tuple<std::string, int, int, bool>;
  std::map<Key, std::vector<std::pair<double, double>>> points;  // bytes, us
  for (const bool back : {false, true}) {
    const auto& steps = back ? schedule.backward : schedule.forward;
    const auto measured = medians(ranks, back);
    for (Index i = 0; i < std::min(steps.size(), measured.size()); ++i) {
      const Step& s = steps[i];
      const bool gather = s.kind == StepKind::all_gather;
      if (s.metadata || (s.kind != StepKind::exchange && !gather)) continue;
      const auto members = groups.members(s.group, 0);
      const int size = static_cast<int>(members.size());
      if (size < 2) continue;
      std::set<int> nodes;
      for (const int m : members) nodes.insert(m / groups.gpus_per_node());
      if (size % static_cast<int>(nodes.size()) != 0) continue;
      double sent = 0;
      for (const RankTrace& t : ranks) sent += (back ? t.backward : t.forward)[i].payload_bytes;
      // To all others equally; the whole buffer has the rank's own part too.
      const double bytes = sent / static_cast<double>(ranks.size()) * size / (size - 1);
      if (bytes <= 0 || measured[i].us <= 0) continue;
      points[{gather ? "all_gather" : "alltoall", size, static_cast<int>(nodes.size()), measured[i].in_a_row}]
          .emplace_back(bytes, measured[i].us);
    }
  }
  std::vector<CalibrationCurve> out;
  for (auto& [key, all] : points) {
    CalibrationCurve curve{.operation = std::get<0>(key),
                           .gpus = std::get<1>(key),
                           .nodes = std::get<2>(key),
                           .dtype = "any",
                           .source = "steps of a running layer"};
    if (std::get<3>(key)) curve.parameters["in_a_row"] = 1;
    std::sort(all.begin(), all.end());
    std::vector<double> off;
    for (Index i = 0; i < all.size();) {
      Index end = i;
      std::vector<double> us;
      double bytes = 0;
      while (end < all.size() && all[end].first <= 1.1 * all[i].first)
        bytes += all[end].first, us.push_back(all[end].second), ++end;
      const double t = median(us);
      for (const double x : us) off.push_back(std::abs(x / t - 1));
      curve.knots.push_back({bytes / static_cast<double>(end - i), t});
      i = end;
    }
    std::sort(off.begin(), off.end());
    curve.spread = off[off.size() * 9 / 10];
    out.push_back(std::move(curve));
  }
  return out;
}

}  // namespace topomoe
