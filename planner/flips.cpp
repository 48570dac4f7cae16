#include "planner/flips.hpp"

#include <cmath>

namespace topomoe {
namespace {

Algorithm best_for(const FlipContext& c, const Layout& layout, int gpus_per_node, double tokens, std::int64_t& priced) {
  const RankGroups groups(layout, gpus_per_node);
  LayerPricer pricer(c.traffic, c.machine, groups, c.widths, c.popularity, tokens);
  Algorithm best;
  double best_ms = 0;
  for (const Algorithm& a : list_algorithms(groups, c.options)) {
    const double injected = a.split == TokenSplit::sliced ? tokens / layout.tp : tokens;
    Algorithm b = best_chunks(a, pricer, c.schedules, layout, injected, c.options, priced);
    const double ms = step_time(c.costs, b.time_s, b.idle_s).total_ms();
    if (best.transport.empty() || ms < best_ms) best = std::move(b), best_ms = ms;
  }
  return best;
}

}  // namespace

std::vector<Flip> find_flips(const FlipContext& c, const Layout& layout, int gpus_per_node, const Algorithm& chosen,
                             double tokens, std::int64_t& priced) {
  const auto same_way = [&](const Algorithm& a) { return a.split == chosen.split && a.transport == chosen.transport; };
  const auto same_cut = [&](const Algorithm& a) { return !same_way(a) || a.chunks > 1; };
  std::vector<Flip> flips;
  const auto bisect = [&](double low, double high, auto same) {  // same holds at high, not at low
    while (std::floor(high) - std::floor(low) > 1) {
      const double middle = std::floor((low + high) / 2);
      (same(best_for(c, layout, gpus_per_node, middle, priced)) ? high : low) = middle;
    }
    const Algorithm below = best_for(c, layout, gpus_per_node, low, priced);
    flips.push_back({"tokens per rank", std::ceil(high), name(below)});
  };
  bool cut_seen = chosen.chunks == 1 || c.options.chunks > 0;
  double high = tokens;
  for (double low = std::floor(tokens / 2); low >= 1; low = std::floor(low / 2)) {
    const Algorithm a = best_for(c, layout, gpus_per_node, low, priced);
    if (!cut_seen && !same_cut(a)) bisect(low, high, same_cut), cut_seen = true;
    if (!same_way(a)) {
      bisect(low, high, same_way);
      break;
    }
    high = low;
  }
  return flips;
}

}  // namespace topomoe
