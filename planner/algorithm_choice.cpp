#include "planner/algorithm_choice.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

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
         (a.backward == a.forward ? "" : ", back " + words(a.backward)) + (a.fp8_dispatch ? ", fp8 out" : "");
}

const ScheduleCache::Entry& ScheduleCache::get(const std::string& transport, const ScheduleRequest& request) {
  const auto [at, fresh] = known_.try_emplace({transport, request});
  if (fresh) {
    Entry& e = at->second;
    e.schedule = build_schedule(transport, request);
    e.forward = pass_shape(e.schedule, false), e.backward = pass_shape(e.schedule, true);
  }
  return at->second;
}

ScheduleRequest request_for(const Layout& l, const Algorithm& a) {
  return {.split = a.split,
          .tp = l.tp,
          .etp = l.etp,
          .ep = l.ep,
          .sequence_parallel = l.sequence_parallel,
          .chunks = a.forward.chunks,
          .pieces = a.forward.pieces,
          .backward_chunks = a.backward.chunks,
          .backward_pieces = a.backward.pieces,
          .gated = a.gated,
          .fp8_dispatch = a.fp8_dispatch};
}

SharedPart shared_part(const Model& m, int kind) {
  if (moe_kind(m, kind).shared_ffn == 0) return SharedPart::none;
  return m.shared_gate == SharedGate::none ? SharedPart::added : SharedPart::mixed;
}

std::vector<Algorithm> list_algorithms(const RankGroups& groups, const AlgorithmOptions& options) {
  const Layout& layout = groups.layout();
  std::vector<Algorithm> out;
  for (const Transport& t : transports()) {
    if (!options.transport.empty() && options.transport != t.name) continue;
    if (!options.transports.empty()) {
      const auto allowed = options.transports.find(std::string(t.name));
      if (allowed == options.transports.end() || layout.ep > allowed->second) continue;
    }
    // Where nothing travels all transports are the same thing.
    if (layout.ep * layout.etp == 1 && !out.empty()) break;
    for (const TokenSplit split : {TokenSplit::sliced, TokenSplit::replicated}) {
      if (!options.split.empty() && options.split != name(split)) continue;
      // Without TP the two are the same thing.
      if (layout.tp == 1 && split == TokenSplit::replicated && options.split.empty()) continue;
      Algorithm a{.split = split,
                  .transport = std::string(t.name),
                  .gated = options.gated,
                  .fp8_dispatch = options.fp8_dispatch};
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

void price(Algorithm& a, LayerPricer& pricer, ScheduleCache& cache, const Layout& layout,
           const AlgorithmOptions& options) {
  const ScheduleCache::Entry& s = cache.get(a.transport, request_for(layout, a));
  const LayerPricer::Times forward = pricer.times(s.schedule, false, s.forward);
  a.forward_s = forward.time_s, a.forward_bound_s = forward.bound_s, a.forward_compute_s = forward.experts_s;
  a.network_s = forward.network_s;
  a.backward_s = a.backward_bound_s = a.backward_compute_s = a.idle_s = a.wgrad_s = 0;
  a.idle.clear();
  if (!options.train) return;
  LayerPricer::Times backward = pricer.times(s.schedule, true, s.backward);
  a.backward_s = backward.time_s, a.backward_bound_s = backward.bound_s, a.backward_compute_s = backward.experts_s;
  a.idle_s = backward.inter_node_idle_s, a.idle = std::move(backward.idle), a.wgrad_s = backward.wgrad_s,
  a.network_s += backward.network_s;
}

std::vector<Algorithm> price_chunks(Algorithm a, LayerPricer& pricer, ScheduleCache& cache, const Layout& layout,
                                    double tokens_injected, const AlgorithmOptions& options, std::int64_t& priced) {
  std::vector<Algorithm> all;
  std::size_t best = 0, forward = 0, backward = 0;
  // True where it is the fastest so far in either pass or in both together.
  const auto consider = [&](const Cut& there, const Cut& back) {
    a.forward = there, a.backward = back;
    price(a, pricer, cache, layout, options);
    ++priced;
    all.push_back(a);
    const std::size_t last = all.size() - 1;
    bool improved = last == 0;
    const auto keep = [&](std::size_t& kept, auto time) {
      if (time(a) < time(all[kept]) * (1 - 1e-9)) kept = last, improved = true;
    };
    keep(best, [](const Algorithm& x) { return x.time_s(1); });
    keep(forward, [](const Algorithm& x) { return x.forward_s; });
    keep(backward, [](const Algorithm& x) { return x.backward_s; });
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
      for (const int n : kChunkCounts) {
        if (n > 1 && n > tokens_injected) break;  // each chunk has a token
        if (n == 1 && !pieces) continue;
        const Cut cut{n, pieces ? n : 1};
        worse = consider(cut, cut) ? 0 : worse + 1;
        if (worse == 2) break;
      }
    }
  }
  const Cut there = all[forward].forward, back = all[backward].backward;
  if (options.train && !(there == back) && std::lcm(there.chunks, back.chunks) <= kMostUnits) consider(there, back);
  return all;
}

std::size_t choose(std::span<const Outcome> outcomes) {
  constexpr double kAlike = 1.01;
  double fastest = std::numeric_limits<double>::infinity();
  for (const Outcome& o : outcomes) fastest = std::min(fastest, o.step_ms);
  std::size_t best = outcomes.size();
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    if (outcomes[i].step_ms > fastest * kAlike) continue;
    const auto before = [&](const Outcome& a, const Outcome& b) {
      const double x = a.algorithm.network_s, y = b.algorithm.network_s;
      if (std::abs(x - y) > 0.01 * std::max(x, y)) return x < y;
      return a.step_ms < b.step_ms * (1 - 1e-9);
    };
    if (best == outcomes.size() || before(outcomes[i], outcomes[best])) best = i;
  }
  return best;
}

}  // namespace topomoe
