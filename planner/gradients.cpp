#include "planner/gradients.hpp"

#include <algorithm>
#include <cmath>

#include "planner/gradient_slack.hpp"

namespace topomoe {
namespace {

constexpr double kGradientBytes = 4;  // fp32, as Megatron-LM accumulates them
constexpr double kWorthIt = 2;        // a span this many times an empty operation. Assumed.

struct Backward {
  std::vector<BackwardLayer> layers;
  std::vector<Interval> idle;
  std::vector<GradientPiece> dense, experts;
  double end_s = 0, exposed_gather_s = 0;
};

// Adds [begin, end) to the idle spans, as part of the last one where they touch.
void add_idle(std::vector<Interval>& idle, double begin_s, double end_s) {
  if (end_s <= begin_s) return;
  if (!idle.empty() && begin_s <= idle.back().end_s)
    idle.back().end_s = end_s;
  else
    idle.push_back({begin_s, end_s});
}

Backward backward_of(const Model& m, const Layout& l, const StepCosts& c, std::span<const MoeTimes> kinds) {
  const int stage = c.reducing_stage;
  const bool first = stage == 0, last = stage == l.pp - 1;
  std::vector<int> order;
  if (last)
    for (int i = m.mtp_layers - 1; i >= 0; --i) order.push_back(m.layers + i);
  const std::vector<int> mine = layers_of_stage(l, m.layers, stage);
  order.insert(order.end(), mine.rbegin(), mine.rend());

  Backward b;
  const double tables = rank_parameters(m, l, {.stage = stage, .first = first, .last = last}).embedding;
  const double output = last ? logits_parameters(m) / l.tp : 0;
  b.dense.push_back({output * kGradientBytes, 0});
  double now = 0;
  for (const int layer : order) {
    const bool mtp = layer >= m.layers, is_moe = mtp || moe_layer(m, layer);
    const auto kind = static_cast<std::size_t>(!is_moe ? 0
                                               : mtp   ? mtp_kind(m)
                                                       : m.is_moe[static_cast<std::size_t>(layer)] - 1);
    const LayerParameters& p = mtp ? c.mtp_layer : is_moe ? c.moe_layer[kind] : c.dense_layer;
    const LayerBeside& beside = is_moe ? c.beside_moe[kind] : c.beside_dense;
    const MoeTimes& moe = kinds[kind];
    const double begin = now;
    // Weights of the next layer are gathered where the lane is idle first: as long as this layer's own took.
    double gather = c.gather_again_s > 0 ? p.gather_s : 0;
    const auto idle_beside = [&](double seconds) {
      const double taken = std::min(gather, seconds);
      gather -= taken;
      add_idle(b.idle, now + taken, now + seconds);
      now += seconds;
    };
    idle_beside(beside.before_s);
    if (is_moe) {
      now += (c.moe_forwards - 1) * moe.forward_s;
      for (const Interval& i : moe.idle) add_idle(b.idle, now + i.begin_s, now + i.end_s);
      b.experts.push_back({p.routed * kGradientBytes, now + moe.wgrad_s});
      now += moe.backward_s;
    }
    idle_beside(beside.after_s);
    b.exposed_gather_s += gather;
    b.dense.push_back({p.dense * kGradientBytes, now});
    b.layers.push_back({layer, is_moe, begin, now});
  }
  b.end_s = now;
  b.dense.push_back({(tables - output) * kGradientBytes, now});
  return b;
}

// What operations leave of the spans.
std::vector<Interval> left_of(std::span<const Interval> windows, std::span<const SlackOperation> operations) {
  std::vector<Interval> left;
  std::size_t next = 0;
  for (std::size_t w = 0; w < windows.size(); ++w) {
    double now = windows[w].begin_s;
    for (; next < operations.size() && operations[next].window == static_cast<int>(w); ++next) {
      if (operations[next].begin_s > now) left.push_back({now, operations[next].begin_s});
      now = operations[next].end_s;
    }
    if (now < windows[w].end_s) left.push_back({now, windows[w].end_s});
  }
  return left;
}

}  // namespace

PlacedGradients place_gradients(const Model& m, const Layout& l, const StepCosts& c, std::span<const MoeTimes> moe,
                                const StepCurves& curves) {
  const Backward b = backward_of(m, l, c, moe);
  PlacedGradients out;
  out.layers = b.layers, out.exposed_s = b.exposed_gather_s;
  struct Group {
    bool experts;
    const StepCurves::Reduction* reduction;
    const std::vector<GradientPiece>* pieces;
    double whole_s = 0;
  } groups[] = {{false, &curves.dense, &b.dense}, {true, &curves.experts, &b.experts}};
  for (Group& g : groups) {
    double bytes = 0;
    for (const GradientPiece& p : *g.pieces) bytes += p.bytes;
    g.whole_s = g.reduction->scatter.time_us(bytes) * 1e-6;
  }
  if (groups[1].whole_s > groups[0].whole_s) std::swap(groups[0], groups[1]);
  std::vector<Interval> free = b.idle;
  std::vector<int> used;  // spans
  for (const Group& g : groups) {
    if (g.reduction->ranks < 2) continue;
    const auto time_s = [&](double bytes) { return g.reduction->scatter.time_us(bytes) * 1e-6; };
    const double least = kWorthIt * time_s(1);
    std::erase_if(free, [&](const Interval& i) { return i.end_s - i.begin_s < least; });
    const SlackPlan plan = place_gradients(free, *g.pieces, time_s);
    for (const SlackOperation& op : plan.operations) {
      const auto after = std::upper_bound(b.layers.begin(), b.layers.end(), op.begin_s,
                                          [](double at, const BackwardLayer& layer) { return at < layer.begin_s; });
      const auto place = std::max<std::ptrdiff_t>(0, after - b.layers.begin() - 1);
      out.operations.push_back({g.experts, static_cast<int>(place), op.begin_s, op.end_s, op.bytes});
      const auto span = std::upper_bound(b.idle.begin(), b.idle.end(), op.begin_s,
                                         [](double at, const Interval& i) { return at < i.begin_s; });
      used.push_back(static_cast<int>(span - b.idle.begin()));
    }
    (g.experts ? out.exposed_expert_bytes : out.exposed_dense_bytes) = plan.exposed_bytes;
    out.exposed_s += plan.exposed_s;
    free = left_of(free, plan.operations);
  }
  std::sort(used.begin(), used.end());
  out.windows = static_cast<int>(std::unique(used.begin(), used.end()) - used.begin());
  std::stable_sort(out.operations.begin(), out.operations.end(),
                   [](const auto& x, const auto& y) { return x.begin_s < y.begin_s; });
  return out;
}

TimeBreakdown placed_step_time(const Model& m, const Layout& l, const StepCosts& c, std::span<const MoeTimes> moe,
                               const StepCurves& curves) {
  TimeBreakdown t = step_time(c, moe);
  if (c.gradients_s + c.gather_again_s <= 0) return t;
  const double exposed_s = place_gradients(m, l, c, moe, curves).exposed_s;
  t.gradients_ms = std::max(t.gradients_ms, 1e3 * (c.gradient_passes * exposed_s + c.gather_s));
  return t;
}

PredictedGradients predicted_gradients(const PlacedGradients& placed, const Layout& l, const StepCosts& c) {
  PredictedGradients out;
  const Role dense = l.dp > 1 ? Role::dp : Role::cp;
  out.stage = c.reducing_stage;
  out.windows = placed.windows;
  out.backward_us = placed.layers.empty() ? 0 : placed.layers.back().end_s * 1e6;
  out.exposed_us = placed.exposed_s * 1e6;
  // To the nanosecond: layers that differ by rounding alone are the same.
  const auto us = [](double seconds) { return std::round(seconds * 1e9) / 1e3; };
  std::size_t next = 0;
  for (std::size_t i = 0; i < placed.layers.size(); ++i) {
    const BackwardLayer& layer = placed.layers[i];
    GradientLayers mine{layer.layer, 1, us(layer.end_s - layer.begin_s), {}};
    for (; next < placed.operations.size() && placed.operations[next].place == static_cast<int>(i); ++next) {
      const PlacedGradients::Operation& op = placed.operations[next];
      mine.operations.push_back({op.experts ? Role::edp : dense, us(op.begin_s - layer.begin_s),
                                 us(op.end_s - layer.begin_s), std::round(op.bytes)});
      out.hidden_bytes += std::round(op.bytes);
    }
    if (!out.layers.empty() && out.layers.back().backward_us == mine.backward_us &&
        out.layers.back().operations == mine.operations)
      ++out.layers.back().layers;
    else
      out.layers.push_back(std::move(mine));
  }
  for (const auto& [role, bytes] :
       {std::pair{dense, placed.exposed_dense_bytes}, {Role::edp, placed.exposed_expert_bytes}})
    if (bytes >= 1) out.exposed.push_back({role, std::round(bytes)}), out.exposed_bytes += std::round(bytes);
  return out;
}

}  // namespace topomoe
