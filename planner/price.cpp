#include "planner/price.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <map>

#include "planner/gradient_slack.hpp"
#include "planner/price_parts.hpp"

namespace topomoe {
namespace {

using namespace pricing;

// A timeline lets a flow end with 1e-9 of its work left (fluid.cpp), and adds up in another order than a bound.
constexpr double kOfRounding = 1 - 1e-8;

}  // namespace

LayerPricer::LayerPricer(TrafficModel& traffic, const Machine& machine, const RankGroups& groups,
                         const LayerWidths& widths, const RoutingOdds& odds, double tokens_of_tp_group)
    : traffic_(traffic),
      machine_(machine),
      groups_(groups),
      widths_(widths),
      tokens_(tokens_of_tp_group),
      odds_(odds),
      resources_{"compute", "hbm"} {
  const ExpectedCounts counts(groups, odds, 1, 1);
  uniform_ = counts.alike();
  me_ = groups.members(Role::ep, 0)[static_cast<std::size_t>(counts.busiest())];
}

int LayerPricer::resource(const std::string& name) {
  const auto it = std::find(resources_.begin(), resources_.end(), name);
  if (it != resources_.end()) return static_cast<int>(it - resources_.begin());
  resources_.push_back(name);
  return static_cast<int>(resources_.size()) - 1;
}

namespace {

std::uint64_t key_of(const Schedule& s, const Step& step) {
  Fingerprint key;
  key.put(static_cast<int>(step.kind)), key.put(static_cast<int>(step.group));
  const auto put_view = [&](const View& v) {
    if (v.buffer < 0) return key.put(-5);
    const Buffer& b = s.buffers[static_cast<std::size_t>(v.buffer)];
    const Chunks c = v.chunks.value_or(b.chunks);
    key.hash ^= view_key(s, v).hash * 31;
    key.put(static_cast<int>(b.columns) * 4 + static_cast<int>(b.element)), key.put(c.end - c.begin), key.put(s.chunks);
  };
  for (const View& v : step.in) put_view(v);
  key.put(-9);
  for (const View& v : step.out) put_view(v);
  if (step.kind == StepKind::index) {
    const IndexMap& map = s.maps[static_cast<std::size_t>(step.map)];
    put_view(map.from), put_view(map.to);
  }
  if (step.kind == StepKind::counts_exchange) key.put(static_cast<int>(step.slices.size())), key.put(s.chunks);
  return key.hash;
}

}  // namespace

PassShape pass_shape(const Schedule& s, bool backward, std::vector<std::uint8_t> chosen) {
  const auto& steps = backward ? s.backward : s.forward;
  PassShape shape;
  std::vector<int> lanes;
  const auto is_chosen = [&](int i) { return chosen.empty() || chosen[static_cast<std::size_t>(i)] != 0; };
  for (int i = 0; i < static_cast<int>(steps.size()); ++i) {
    const Step& step = steps[static_cast<std::size_t>(i)];
    shape.keys.push_back(key_of(s, step));
    // One that is left out stands in a queue of its own, so that it holds up no lane; who waits for it waits for what
    // it waits for, as in the executor.
    lanes.push_back(is_chosen(i) ? static_cast<int>(step.lane) : kLaneCount + i);
  }
  shape.order = flow_order(std::move(lanes),
                           [&](int i) { return std::span<const int>(steps[static_cast<std::size_t>(i)].after); });
  shape.chosen = std::move(chosen);
  return shape;
}

const LayerPricer::Cost& LayerPricer::cost(const Schedule& s, const Step& step, std::uint64_t key) {
  const auto [at, fresh] = (bounding_ ? bounding_costs_ : costs_).try_emplace(key);
  if (!fresh) return at->second;
  if (!counts_) expect(s);
  Cost& c = at->second = cost_of(s, step);
  if (c.alone_s > 0)
    for (const Use& u : c.uses)
      if (u.effective_s > 0) c.shares.emplace_back(u.resource, std::min(u.effective_s, c.alone_s) / c.alone_s);
  return c;
}

LayerPricer::Cost LayerPricer::cost_of(const Schedule& s, const Step& step) {
  switch (step.kind) {
    case StepKind::exchange:
    case StepKind::all_gather: return communication(s, step);
    case StepKind::counts_exchange: return counts(step, s.chunks);
    case StepKind::expert_forward:
    case StepKind::expert_dgrad:
    case StepKind::expert_wgrad: return experts(s, step);
    default: return memory_bound(s, step);
  }
}

void LayerPricer::expect(const Schedule& s) {
  const Layout& layout = groups_.layout();
  const double held = layout.sequence_parallel ? tokens_ / layout.tp : tokens_;
  counts_.emplace(groups_, odds_, held, injected_tokens(s, layout, tokens_));
}

LayerPricer::Bound LayerPricer::lower_bound(const Schedule& s, bool backward) {
  expect(s);
  // Chunks of one step are alike: their traffic is routed once, with the bytes of all.
  struct Traffic {
    const Step* step;
    double bytes = 0;  // of a row, times the share of chunks, summed
  };
  std::map<std::uint64_t, Traffic> traffic;
  double compute = 0, hbm = 0;
  for (const Step& step : backward ? s.backward : s.forward) {
    if (step.kind == StepKind::exchange || step.kind == StepKind::all_gather) {
      const Buffer& b = s.buffers[static_cast<std::size_t>(step.in[0].buffer)];
      Fingerprint key = view_key(s, step.in[0]);
      key.put(static_cast<int>(step.group));
      Traffic& t = traffic[key.hash];
      t.step = &step;
      t.bytes += row_bytes(b) * chunk_fraction(s, b, step.in[0]);
      continue;
    }
    for (const Use& u : cost(s, step, key_of(s, step)).uses) (u.resource == kCompute ? compute : hbm) += u.bound_s;
  }
  LinkLoads loads(traffic_.router());
  for (const auto& [key, t] : traffic) {
    const double part = 1 / chunk_fraction(s, s.buffers[static_cast<std::size_t>(t.step->in[0].buffer)], t.step->in[0]);
    const auto members = groups_.members(t.step->group, me_);
    if (members.size() < 2) continue;
    const double alike = uniform_ ? rows(s, t.step->in[0], members[0] == me_ ? members[1] : members[0]) : 0;
    traffic_.add(loads, groups_, t.step->group, me_, [&, step = t.step, bytes = t.bytes](int rank, int peer) {
      return bytes * part * (uniform_ ? alike : rows(s, step->in[0], rank, peer));
    });
  }
  counts_.reset();
  const Bottleneck link = loads.bottleneck();
  Bound bound{link.seconds, link.name};
  if (compute > bound.seconds) bound = {compute, "compute"};
  if (hbm > bound.seconds) bound = {hbm, "hbm"};
  return bound;
}

LayerPricer::LaneBound LayerPricer::lane_bound(const Schedule& s, bool backward, const PassShape& shape) {
  bounding_ = true;
  const auto& steps = backward ? s.backward : s.forward;
  struct OfLane {
    double busy_s = 0, before_s = std::numeric_limits<double>::infinity(), after_s = before_s;
  };
  std::array<OfLane, kLaneCount> lanes{};
  // Longest chains of single cuts before and after each step; those that a step waits for stand before it.
  std::vector<double> before(steps.size()), after(steps.size()), cut(steps.size());
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const Cost& c = cost(s, steps[i], shape.keys[i]);
    const bool whole = steps[i].kind == StepKind::route || steps[i].kind == StepKind::counts_exchange;
    cut[i] = whole ? c.alone_s : c.one_cut_s > 0 ? c.one_cut_s : c.alone_s / kMostChunks;
    for (const int on : steps[i].after)
      before[i] = std::max(before[i], before[static_cast<std::size_t>(on)] + cut[static_cast<std::size_t>(on)]);
    OfLane& lane = lanes[static_cast<std::size_t>(steps[i].lane)];
    lane.busy_s += c.in_cuts_s > 0 ? c.in_cuts_s : c.alone_s;
    lane.before_s = std::min(lane.before_s, before[i]);
  }
  for (std::size_t i = steps.size(); i-- > 0;) {
    for (const int on : steps[i].after)
      after[static_cast<std::size_t>(on)] = std::max(after[static_cast<std::size_t>(on)], after[i] + cut[i]);
    OfLane& lane = lanes[static_cast<std::size_t>(steps[i].lane)];
    lane.after_s = std::min(lane.after_s, after[i]);
  }
  counts_.reset(), bounding_ = false;
  LaneBound bound{0, lanes[static_cast<std::size_t>(Lane::inter_node)].busy_s};
  for (const OfLane& lane : lanes)
    if (lane.busy_s > 0) bound.time_s = std::max(bound.time_s, lane.before_s + lane.busy_s + lane.after_s);
  bound.time_s *= kOfRounding, bound.inter_node_s *= kOfRounding;
  return bound;
}

std::span<const Interval> LayerPricer::run(const Schedule& s, bool backward, const PassShape& shape) {
  const auto& steps = backward ? s.backward : s.forward;
  running_.clear(), flows_.clear();
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const bool over = !shape.chosen.empty() && shape.chosen[i] == 0;
    const Cost& c = over ? nothing_ : cost(s, steps[i], shape.keys[i]);
    running_.push_back(&c);
    flows_.push_back({c.alone_s, 1, c.shares});
  }
  counts_.reset();
  capacity_.assign(resources_.size(), 1.0);
  return fluid_(flows_, shape.order, capacity_);
}

LayerPricer::Times LayerPricer::times(const Schedule& s, bool backward, const PassShape& shape) {
  const auto intervals = run(s, backward, shape);
  const auto& steps = backward ? s.backward : s.forward;
  bound_.assign(resources_.size(), 0.0);
  Times out;
  std::vector<Interval> lane;
  double busy = 0;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    out.time_s = std::max(out.time_s, intervals[i].end_s);
    for (const Use& u : running_[i]->uses) bound_[static_cast<std::size_t>(u.resource)] += u.bound_s;
    if (steps[i].lane == Lane::inter_node) {
      busy += intervals[i].end_s - intervals[i].begin_s;
      if (backward) lane.push_back(intervals[i]);
    }
    if (steps[i].kind == StepKind::expert_wgrad) out.wgrad_s = std::max(out.wgrad_s, intervals[i].end_s);
    if (steps[i].kind == StepKind::expert_forward || steps[i].kind == StepKind::expert_dgrad ||
        steps[i].kind == StepKind::expert_wgrad)
      out.experts_s += running_[i]->alone_s;
  }
  out.bound_s = *std::max_element(bound_.begin(), bound_.end());
  for (std::size_t r = 0; r < bound_.size(); ++r)
    if (resources_[r] == "nic_out") out.network_s = bound_[r];
  out.inter_node_idle_s = std::max(0.0, out.time_s - busy);
  if (backward) out.idle = idle_windows(lane, 0, out.time_s);
  return out;
}

PredictedPass LayerPricer::price(const Schedule& s, bool backward, std::vector<std::uint8_t> chosen) {
  const PassShape shape = pass_shape(s, backward, std::move(chosen));
  const auto intervals = run(s, backward, shape);
  const auto& steps = backward ? s.backward : s.forward;
  PredictedPass pass;
  std::vector<double> bound(resources_.size());
  loads_.clear();
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const Interval at = intervals[i];
    pass.steps.push_back({steps[i].name, at.begin_s * 1e6, at.end_s * 1e6, running_[i]->alone_s * 1e6,
                          running_[i]->bytes, std::string(running_[i]->bottleneck)});
    pass.time_us = std::max(pass.time_us, at.end_s * 1e6);
    for (const Use& u : running_[i]->uses) bound[static_cast<std::size_t>(u.resource)] += u.bound_s;
    if (running_[i]->uses.empty() || (steps[i].kind != StepKind::exchange && steps[i].kind != StepKind::all_gather))
      continue;
    const GroupLoad& link_load = load(s, steps[i]);
    for (const Use& u : running_[i]->uses) {
      if (u.bound_s <= 0) continue;
      const std::string& name = resources_[static_cast<std::size_t>(u.resource)];
      auto row =
          std::find_if(loads_.begin(), loads_.end(), [&](const LinkClassLoad& l) { return l.link_class == name; });
      if (row == loads_.end()) {
        const auto k = std::find_if(link_load.classes.begin(), link_load.classes.end(),
                                    [&](const auto& c) { return c.name == name; });
        row = loads_.insert(loads_.end(), {name, k->link, k->raw_GBps, 0, 0});
      }
      row->bytes += u.bound_s * row->GBps_per_direction * 1e9;
      row->busy_us += u.effective_s * 1e6;
    }
  }
  for (std::size_t r = 0; r < bound.size(); ++r)
    if (bound[r] * 1e6 > pass.bound_us) pass.bound_us = bound[r] * 1e6, pass.bound_by = resources_[r];
  return pass;
}

}  // namespace topomoe
