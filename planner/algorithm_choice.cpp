#include "planner/algorithm_choice.hpp"

#include <numeric>
#include <optional>

#include "topomoe/error.hpp"

namespace topomoe {

namespace {
// Tokens are counted in a common multiple of both passes' chunks; more than these are not worth their metadata.
constexpr int kMostUnits = 48;
}  // namespace

std::string name(const Algorithm& a) {
  const auto words = [](const Cut& c) {
    return "n=" + std::to_string(c.chunks) + (c.pieces != c.chunks ? " r=" + std::to_string(c.pieces) : "");
  };
  return std::string(name(a.split)) + " " + a.transport + " " + words(a.forward) +
         (a.backward == a.forward ? "" : ", back " + words(a.backward));
}

const Schedule& ScheduleCache::get(const std::string& transport, const ScheduleRequest& request) {
  const auto found = known_.find({transport, request});
  if (found != known_.end()) return found->second;
  return known_.emplace(std::pair{transport, request}, build_schedule(transport, request)).first->second;
}

ScheduleRequest request_for(const Layout& l, const Algorithm& a) {
  return {
      a.split,          l.tp, l.etp, l.ep, l.sequence_parallel, a.forward.chunks, a.forward.pieces, a.backward.chunks,
      a.backward.pieces};
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

double injected(const Layout& layout, TokenSplit split, double tokens_of_tp_group) {
  return split == TokenSplit::sliced ? tokens_of_tp_group / layout.tp : tokens_of_tp_group;
}

namespace {
double compute_s(const std::vector<Step>& steps, const PredictedPass& pass) {
  double sum = 0;
  for (std::size_t i = 0; i < steps.size(); ++i)
    if (steps[i].kind == StepKind::expert_forward || steps[i].kind == StepKind::expert_dgrad ||
        steps[i].kind == StepKind::expert_wgrad)
      sum += pass.steps[i].alone_us * 1e-6;
  return sum;
}
}  // namespace

void price(Algorithm& a, LayerPricer& pricer, ScheduleCache& cache, const Layout& layout,
           const AlgorithmOptions& options) {
  const Schedule& s = cache.get(a.transport, request_for(layout, a));
  const PredictedPass forward = pricer.price(s, false);
  a.forward_s = forward.time_us * 1e-6;
  a.forward_bound_s = forward.bound_us * 1e-6;
  a.forward_compute_s = compute_s(s.forward, forward);
  a.backward_s = a.backward_bound_s = a.idle_s = 0;
  if (!options.train) return;
  const PredictedPass backward = pricer.price(s, true);
  a.backward_s = backward.time_us * 1e-6;
  a.backward_bound_s = backward.bound_us * 1e-6;
  a.backward_compute_s = compute_s(s.backward, backward);
  a.idle_s = pricer.last_inter_node_idle_s();
}

Algorithm best_chunks(Algorithm a, LayerPricer& pricer, ScheduleCache& cache, const Layout& layout,
                      double tokens_injected, double forwards, const AlgorithmOptions& options, std::int64_t& priced) {
  constexpr int kChunks[] = {1, 2, 3, 4, 6, 8, 12, 16};
  std::optional<Algorithm> best, forward, backward;
  const auto consider = [&](const Cut& there, const Cut& back) {
    a.forward = there, a.backward = back;
    price(a, pricer, cache, layout, options);
    ++priced;
    const auto better = [](double x, double y) { return x < y * (1 - 1e-9); };
    bool improved = false;
    if (!best || better(a.time_s(forwards), best->time_s(forwards))) best = a, improved = true;
    if (!forward || better(a.forward_s, forward->forward_s)) forward = a, improved = true;
    if (!backward || better(a.backward_s, backward->backward_s)) backward = a, improved = true;
    return improved;
  };
  if (options.chunks > 0) {
    const int n = options.chunks;
    consider({n, n}, {n, n});
    if (n > 1) consider({n, 1}, {n, 1});
  } else {
    // Experts chunk by chunk, or after the last chunk: many small GEMMs against overlap with them.
    for (const bool pieces : {true, false}) {
      int worse = 0;
      for (const int n : kChunks) {
        if (n > 1 && n > tokens_injected) break;  // each chunk has a token
        if (n == 1 && !pieces) continue;
        const Cut cut{n, pieces ? n : 1};
        worse = consider(cut, cut) ? 0 : worse + 1;
        if (worse == 2) break;
      }
    }
  }
  if (options.train && !(forward->forward == backward->backward) &&
      std::lcm(forward->forward.chunks, backward->backward.chunks) <= kMostUnits)
    consider(forward->forward, backward->backward);
  return *best;
}

}  // namespace topomoe
