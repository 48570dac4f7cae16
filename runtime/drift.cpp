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

// A step on one rank's lane, since the ranks set off, and whether its predecessor there was still under way.
struct OnLane {
  double begin_s = 0, end_s = 0;
  bool in_a_row = false;
};

std::vector<OnLane> on_lanes(const std::vector<StepTrace>& steps, double pass_begin_s) {
  std::array<double, kLaneCount> free_s{};
  std::vector<OnLane> out;
  for (const StepTrace& s : steps) {
    double& free = free_s[static_cast<Index>(s.lane)];
    const bool waited = s.begin_s < free;
    const double begin = std::max(s.begin_s, free);
    free = std::max(begin, s.end_s);
    out.push_back({pass_begin_s + begin, pass_begin_s + free, waited});
  }
  return out;
}

bool communicates(const Step& s) {
  return s.kind == StepKind::exchange || s.kind == StepKind::all_gather || s.kind == StepKind::counts_exchange;
}

struct Taken {
  double us = 0;
  bool in_a_row = false;  // as most ranks saw it
};

// By step of a pass.
std::vector<Taken> taken(const Schedule& schedule, const RankGroups& groups, const std::vector<RankTrace>& ranks,
                         bool backward) {
  const auto& steps = backward ? schedule.backward : schedule.forward;
  std::vector<std::vector<OnLane>> of_rank;
  Index count = ranks.empty() ? 0 : steps.size();
  for (const RankTrace& t : ranks) {
    of_rank.push_back(on_lanes(backward ? t.backward : t.forward, backward ? t.backward_begin_s : t.forward_begin_s));
    count = std::min(count, of_rank.back().size());
  }
  std::vector<Taken> out;
  for (Index i = 0; i < count; ++i) {
    std::vector<double> us;
    Index waited = 0;
    for (Index r = 0; r < of_rank.size(); ++r) {
      waited += of_rank[r][i].in_a_row ? 1U : 0U;
      OnLane whole = of_rank[r][i];
      if (communicates(steps[i]))
        for (const int member : groups.members(steps[i].group, static_cast<int>(r))) {
          const OnLane& other = of_rank[static_cast<Index>(member)][i];
          whole.begin_s = std::max(whole.begin_s, other.begin_s), whole.end_s = std::max(whole.end_s, other.end_s);
        }
      us.push_back((whole.end_s - whole.begin_s) * 1e6);
    }
    out.push_back({median(us), 2 * waited > of_rank.size()});
  }
  return out;
}

std::string_view words(Lane lane) { return lane == Lane::intra_node ? "intra-node" : "inter-node"; }

// Of one repetition.
Drift drift_of_run(const Schedule& schedule, const RankGroups& groups, const PredictedPass& forward,
                   const PredictedPass& backward, const std::vector<RankTrace>& ranks) {
  Drift out;
  std::array<LaneDrift, kLaneCount> lanes{};
  std::array<bool, kLaneCount> used{};
  for (const bool back : {false, true}) {
    const auto& steps = back ? schedule.backward : schedule.forward;
    const auto& predicted = (back ? backward : forward).steps;
    const auto measured = taken(schedule, groups, ranks, back);
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

}  // namespace

bool between_ranks(Lane lane) { return lane == Lane::intra_node || lane == Lane::inter_node; }

Drift drift_of(const Schedule& schedule, const RankGroups& groups, const PredictedPass& forward,
               const PredictedPass& backward, const std::vector<std::vector<RankTrace>>& runs) {
  std::vector<Drift> each;
  for (const auto& ranks : runs) each.push_back(drift_of_run(schedule, groups, forward, backward, ranks));
  Drift out = each.at(0);
  out.repetitions = runs.size();
  const auto over_runs = [&](auto part, Index i) {
    std::vector<double> us;
    for (const Drift& one : each) us.push_back((one.*part)[i].measured_us);
    return us;
  };
  for (Index i = 0; i < out.steps.size(); ++i) out.steps[i].measured_us = median(over_runs(&Drift::steps, i));
  for (Index i = 0; i < out.lanes.size(); ++i) {
    std::vector<double> us = over_runs(&Drift::lanes, i);
    const double middle = out.lanes[i].measured_us = median(us);
    for (double& x : us) x = std::abs(x - middle);
    out.lanes[i].noise = middle > 0 ? 2 * median(us) / middle : 0;
  }
  return out;
}

std::string verdict(const Drift& drift) {
  const LaneDrift *worst = nullptr, *loudest = nullptr;  // the farthest off that drifted, and that did not
  bool judged = false;
  for (const LaneDrift& l : drift.lanes) {
    if (!between_ranks(l.lane) || !l.judged || l.predicted_us <= 0) continue;
    judged = true;
    if (std::abs(l.relative()) <= kNoDrift) continue;
    const LaneDrift*& so_far = l.drifted() ? worst : loudest;
    if (so_far == nullptr || l.off() > so_far->off()) so_far = &l;
  }
  if (!judged) return "no lane between ranks was predicted from a curve of its own: nothing to compare";
  const auto off = [](const LaneDrift& l) {
    return fmt::format("the {} lane is {:.0f}% {} than its curve", words(l.lane), 100 * std::abs(l.relative()),
                       l.relative() > 0 ? "slower" : "faster");
  };
  if (worst != nullptr && drift.repetitions < kRunsToJudge)
    return fmt::format(
        "{}, in {} repetition{}, whose noise is not known: repeat it {} times or more before re-planning", off(*worst),
        drift.repetitions, drift.repetitions == 1 ? "" : "s", kRunsToJudge + 1);
  if (worst != nullptr) return off(*worst) + ": re-plan";
  if (loudest != nullptr)
    return fmt::format("{}, but the curve spreads by {:.0f}% and the repetitions by {:.0f}%: the plan stands",
                       off(*loudest), 100 * loudest->curve_spread, 100 * loudest->noise);
  return fmt::format("lanes between ranks are within {:.0f}% of their curves: the plan stands", 100 * kNoDrift);
}

std::vector<CalibrationCurve> curves_of(const Schedule& schedule, const RankGroups& groups,
                                        const std::vector<RankTrace>& ranks) {
  // Of steps alike: operation, ranks, nodes, in a row.
  using Key = std::tuple<std::string, int, int, bool>;
  std::map<Key, std::vector<std::pair<double, double>>> points;  // bytes, us
  for (const bool back : {false, true}) {
    const auto& steps = back ? schedule.backward : schedule.forward;
    const auto measured = taken(schedule, groups, ranks, back);
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
