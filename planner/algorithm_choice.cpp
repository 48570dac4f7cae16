#include "planner/algorithm_choice.hpp"

#include "topomoe/error.hpp"

namespace topomoe {

std::string name(const Algorithm& a) {
  std::string text = std::string(name(a.split)) + " " + a.transport + " n=" + std::to_string(a.chunks);
  if (a.pieces != a.chunks) text += " r=" + std::to_string(a.pieces);
  return text;
}

const Schedule& ScheduleCache::get(const std::string& transport, const ScheduleRequest& request) {
  const auto found = known_.find({transport, request});
  if (found != known_.end()) return found->second;
  return known_.emplace(std::pair{transport, request}, build_schedule(transport, request)).first->second;
}

ScheduleRequest request_for(const Layout& l, const Algorithm& a) {
  return {a.split, l.tp, l.etp, l.ep, l.sequence_parallel, a.chunks, a.pieces};
}

std::vector<Algorithm> list_algorithms(const RankGroups& groups, const AlgorithmOptions& options) {
  const Layout& layout = groups.layout();
  std::vector<Algorithm> out;
  for (const Transport& t : transports()) {
    if (!options.transport.empty() && options.transport != t.name) continue;
    // Where nothing travels all transports are the same thing.
    if (layout.ep * layout.etp == 1 && !out.empty()) break;
    for (const TokenSplit split : {TokenSplit::sliced, TokenSplit::replicated}) {
      if (!options.split.empty() && options.split != name(split)) continue;
      // Without TP the two are the same thing.
      if (layout.tp == 1 && split == TokenSplit::replicated && options.split.empty()) continue;
      Algorithm a{.split = split, .transport = std::string(t.name)};
      if (!t.refuses(request_for(layout, a)).empty()) continue;
      // A transport in two levels needs two levels, equally filled.
      if (t.needs_even_nodes && !even_nodes(layout, groups.gpus_per_node())) continue;
      if (t.needs_two_nodes && nodes_spanned(layout, 0, groups.gpus_per_node()) < 2) continue;
      out.push_back(std::move(a));
    }
  }
  return out;
}

void price(Algorithm& a, LayerPricer& pricer, ScheduleCache& cache, const Layout& layout,
           const AlgorithmOptions& options) {
  const Schedule& s = cache.get(a.transport, request_for(layout, a));
  const PredictedPass forward = pricer.price(s, false);
  a.time_s = forward.time_us * 1e-6;
  a.bound_s = forward.bound_us * 1e-6;
  a.idle_s = 0;
  if (!options.train) return;
  if (options.recompute) a.time_s *= 2, a.bound_s *= 2;
  const PredictedPass backward = pricer.price(s, true);
  a.time_s += backward.time_us * 1e-6;
  a.bound_s += backward.bound_us * 1e-6;
  a.idle_s = pricer.last_inter_node_idle_s();
}

Algorithm best_chunks(Algorithm a, LayerPricer& pricer, ScheduleCache& cache, const Layout& layout,
                      double tokens_injected, const AlgorithmOptions& options, std::int64_t& priced) {
  constexpr int kChunks[] = {1, 2, 3, 4, 6, 8, 12, 16};
  Algorithm best;
  bool found = false;
  const auto consider = [&](int chunks, int pieces) {
    a.chunks = chunks, a.pieces = pieces;
    price(a, pricer, cache, layout, options);
    ++priced;
    const bool better = !found || a.time_s < best.time_s * (1 - 1e-9);
    if (better) best = a, found = true;
    return better;
  };
  if (options.chunks > 0) {
    consider(options.chunks, options.chunks);
    if (options.chunks > 1) consider(options.chunks, 1);
    return best;
  }
  // Experts chunk by chunk, or after the last chunk: many small GEMMs against overlap with them.
  for (const bool pieces : {true, false}) {
    int worse = 0;
    for (const int n : kChunks) {
      if (n > 1 && n > tokens_injected) break;  // each chunk has a token
      if (n == 1 && !pieces) continue;
      worse = consider(n, pieces ? n : 1) ? 0 : worse + 1;
      if (worse == 2) break;
    }
  }
  return best;
}

}  // namespace topomoe
