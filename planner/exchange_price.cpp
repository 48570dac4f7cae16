#include "planner/exchange_price.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "planner/plan/schedule_part.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

const Topology& checked(const Topology& topology, const ExchangeOffer& offer) {
  if (topology.gpu_count() != offer.layout.world || topology.gpus_per_node() != offer.gpus_per_node)
    throw InvalidInput(
        "cluster",
        fmt::format("{}: {} ranks, {} on a node", topology.name, topology.gpu_count(), topology.gpus_per_node()),
        fmt::format("the job has {}, {} on a host", offer.layout.world, offer.gpus_per_node));
  return topology;
}

}  // namespace

ExchangePricer::ExchangePricer(const Topology& topology, std::span<const Calibration> calibrations,
                               const ExchangeOffer& offer)
    : groups_(offer.layout, offer.gpus_per_node),
      router_(checked(topology, offer)),
      traffic_(router_),
      machine_(machine_of(topology, offer.dtype, calibrations)),
      odds_(offer.popularity, static_cast<int>(offer.widths.top_k)),
      pricer_(traffic_, machine_, groups_, offer.widths, odds_, offer.tokens) {}

PredictedPass ExchangePricer::price(const Schedule& schedule) {
  return pricer_.price(schedule, false, steps_of(schedule, Part::exchange));
}

const CollectiveCurve* ExchangePricer::curve(const Step& step) const {
  if (step.kind != StepKind::exchange && step.kind != StepKind::all_gather) return nullptr;
  const auto members = groups_.members(step.group, 0);
  if (members.size() < 2) return nullptr;
  return &machine_.curve(step.kind == StepKind::all_gather ? Collective::all_gather : Collective::alltoall,
                         group_on_nodes(members, groups_.gpus_per_node()));
}

bool ExchangePricer::measured(const Step& step) const {
  const CollectiveCurve* of = curve(step);
  return of == nullptr || of->measured();
}

double ExchangePricer::spread(const Step& step) const {
  const CollectiveCurve* of = curve(step);
  return of == nullptr ? 0 : of->error();
}

std::vector<std::string> ExchangePricer::sources(const Schedule& schedule) const {
  std::vector<std::string> out;
  const auto chosen = steps_of(schedule, Part::exchange);
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const Step& step = schedule.forward[i];
    const CollectiveCurve* of = chosen[i] == 0 ? nullptr : curve(step);
    if (of == nullptr) continue;
    const Collective op = step.kind == StepKind::all_gather ? Collective::all_gather : Collective::alltoall;
    const std::string line = fmt::format("{} over {}: {}", to_string(op), to_string(step.group), of->source());
    if (std::find(out.begin(), out.end(), line) == out.end()) out.push_back(line);
  }
  return out;
}

std::vector<ExchangeCandidate> exchange_candidates(const Layout& layout, int gpus_per_node, double tokens,
                                                   std::span<const int> chunks) {
  std::vector<ExchangeCandidate> out;
  const RankGroups groups(layout, gpus_per_node);
  // With one rank of an EP group on a node two_level's first hop goes nowhere, and the second is flat's.
  const bool one_a_node = even_nodes(layout, gpus_per_node) && groups.size(Role::node) == 1;
  for (const Algorithm& a : list_algorithms(groups, {}))
    for (const int n : chunks)
      if (one_a_node && a.transport == "two_level")
        continue;
      else if (n == 1 || n <= injected(layout, a.split, tokens))
        out.push_back({a.split, a.transport, n});
  return out;
}

std::size_t pick(std::span<const double> predicted_us, std::span<const int> chunks,
                 std::span<const std::string> algorithms) {
  constexpr double kAlike = 1.05, kNoWorse = 1.01;
  constexpr int kUsual = 8;
  const double fastest = *std::min_element(predicted_us.begin(), predicted_us.end());
  const auto away = [&](std::size_t i) { return std::abs(std::log2(1.0 * chunks[i] / kUsual)); };
  const auto costs = [&](std::size_t i) {  // more than the same in one piece
    for (std::size_t one = 0; one < chunks.size(); ++one)
      if (chunks[one] == 1 && algorithms[one] == algorithms[i]) return predicted_us[i] > kNoWorse * predicted_us[one];
    return false;
  };
  std::size_t best = predicted_us.size();
  for (std::size_t i = 0; i < predicted_us.size(); ++i) {
    if (predicted_us[i] > fastest * kAlike || (predicted_us[i] > fastest && costs(i))) continue;
    if (best == predicted_us.size() || away(i) < away(best) ||
        (away(i) == away(best) && predicted_us[i] < predicted_us[best]))
      best = i;
  }
  return best;
}

}  // namespace topomoe
