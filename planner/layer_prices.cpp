#include "planner/layer_prices.hpp"

#include <algorithm>

namespace topomoe {

LayerPrices::LayerPrices(const Model& model, int kind, DType dtype, const Machine& machine, TrafficModel& traffic,
                         const RoutingOdds& odds, const AlgorithmOptions& options, ScheduleCache& schedules)
    : model_(model),
      kind_(kind),
      dtype_(dtype),
      machine_(machine),
      traffic_(traffic),
      odds_(odds),
      options_(options),
      schedules_(schedules) {}

LayerWidths LayerPrices::widths(const Layout& l) const {
  const MoeKind k = moe_kind(model_, kind_);
  return {static_cast<double>(model_.hidden), static_cast<double>(k.expert_ffn) / l.etp, static_cast<double>(k.experts),
          static_cast<double>(k.top_k),       static_cast<double>(size_of(dtype_)),      model_.gated_ffn ? 3 : 2};
}

LayerPrices::Key LayerPrices::key(const Layout& l, double tokens) const {
  const bool strided = l.expert_order == ExpertOrder::edp_inner && l.ep > 1;
  return {l.tp, l.etp, l.ep, strided ? l.edp : 1, l.sequence_parallel, tokens};
}

LayerPrices::Entry::Entry(LayerPrices& all, const Layout& layout, double tokens)
    : groups(layout, all.traffic_.router().topology().gpus_per_node()),
      pricer(all.traffic_, all.machine_, groups, all.widths(layout), all.odds_, tokens),
      one(list_algorithms(groups, all.options_)) {}

LayerPrices::Entry& LayerPrices::entry(const Layout& layout, double tokens) {
  const auto [at, fresh] = known_.try_emplace(key(layout, tokens), *this, layout, tokens);
  Entry& e = at->second;
  if (!fresh) return e;
  for (Algorithm& a : e.one) {
    price(a, e.pricer, schedules_, layout, options_);
    ++timelines_;
    if (options_.chunks > 0) continue;  // the lanes' bound knows only the numbers that are tried
    const ScheduleCache::Entry& s = schedules_.get(a.transport, request_for(layout, a));
    a.forward_bound_s = std::max(a.forward_bound_s, e.pricer.lane_bound(s.schedule, false, s.forward).time_s);
    if (!options_.train) continue;
    const LayerPricer::LaneBound back = e.pricer.lane_bound(s.schedule, true, s.backward);
    a.backward_bound_s = std::max(a.backward_bound_s, back.time_s);
    a.idle_bound_s = a.backward_bound_s - back.inter_node_s;
  }
  e.pricer.forget_bounds();
  return e;
}

const std::vector<Algorithm>& LayerPrices::in_one_chunk(const Layout& layout, double tokens) {
  return entry(layout, tokens).one;
}

std::vector<Algorithm> LayerPrices::in_chunks(Entry& e, const Layout& layout, double tokens, const Algorithm& a) {
  return price_chunks(a, e.pricer, schedules_, layout, injected(layout, a.split, tokens), options_, timelines_);
}

namespace {
const Algorithm& fastest(const std::vector<Algorithm>& all, double forwards) {
  return *std::min_element(all.begin(), all.end(), [&](const Algorithm& x, const Algorithm& y) {
    return x.time_s(forwards) < y.time_s(forwards) * (1 - 1e-9);
  });
}
}  // namespace

const Algorithm& LayerPrices::refined(const Layout& layout, double tokens, std::size_t algorithm, double forwards) {
  Entry& e = entry(layout, tokens);
  const auto [at, fresh] = e.refined.try_emplace(algorithm);
  if (fresh) at->second = in_chunks(e, layout, tokens, e.one[algorithm]);
  return fastest(at->second, forwards);
}

Algorithm LayerPrices::best_of(const Layout& layout, double tokens, const Algorithm& like, double forwards) {
  const RankGroups groups(layout, traffic_.router().topology().gpus_per_node());
  LayerPricer pricer(traffic_, machine_, groups, widths(layout), odds_, tokens);
  return fastest(
      price_chunks(like, pricer, schedules_, layout, injected(layout, like.split, tokens), options_, timelines_),
      forwards);
}

const Schedule& LayerPrices::schedule(const Layout& layout, const Algorithm& a) {
  return schedules_.get(a.transport, request_for(layout, a)).schedule;
}

}  // namespace topomoe
