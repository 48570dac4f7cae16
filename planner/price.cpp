#include "planner/price.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <map>

#include "planner/gradient_slack.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr int kCompute = 0, kHbm = 1;
// The router's GEMM is a few hundred columns wide: a fraction of peak. Assumed.
constexpr double kSmallGemm = 0.3;

// Rows grow with the number of chunks; prices are worked out for all chunks at once and scaled.
double chunk_fraction(const Schedule& s, const Buffer& b, const View& v) {
  if (b.symbol == Symbol::held) return 1;
  const Chunks c = v.chunks.value_or(b.chunks);
  return static_cast<double>(c.end - c.begin) / s.chunks;
}

// A timeline lets a flow end with 1e-9 of its work left (fluid.cpp), and adds up in another order than a bound.
constexpr double kOfRounding = 1 - 1e-8;
constexpr int kMostChunks = kChunkCounts[std::size(kChunkCounts) - 1];

// The least of n t(1/n): what a step takes at best, cut as it may be.
template <class Time>
double least_in_cuts(Time time) {
  double least = time(1);
  for (const int n : kChunkCounts) least = std::min(least, n * time(n));
  return least;
}

// FNV-1a over small integers: what tells views apart, without a string a question.
struct Fingerprint {
  std::uint64_t hash = 0xcbf29ce484222325U;
  void put(int value) { hash = (hash ^ static_cast<std::uint32_t>(value + 1)) * 0x100000001b3U; }
  void put(const std::optional<RankSet>& set) {
    put(set ? static_cast<int>(set->base) : 9);
    if (set)
      for (const Role r : set->spread) put(static_cast<int>(r));
    put(-7);
  }
};

}  // namespace

namespace {

double injected_tokens(const Schedule& s, const Layout& layout, double of_tp_group) {
  if (s.intake == Intake::tp_slice) return of_tp_group / layout.tp;
  return s.intake == Intake::as_held && layout.sequence_parallel ? of_tp_group / layout.tp : of_tp_group;
}

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

double LayerPricer::row_bytes(const Buffer& b) const {
  return topomoe::row_bytes(b,
                            {widths_.hidden, widths_.ffn_shard, widths_.top_k, widths_.experts, widths_.element_bytes});
}

namespace {

// What rows of a view depend on, apart from ranks and chunks.
Fingerprint view_key(const Schedule& s, const View& view) {
  const Buffer& b = s.buffers[static_cast<std::size_t>(view.buffer)];
  Fingerprint key;
  key.put(static_cast<int>(s.intake) * 8 + static_cast<int>(b.symbol));
  key.put(b.sources), key.put(b.dests), key.put(view.sources), key.put(view.dests);
  key.put(b.blocks ? static_cast<int>(*b.blocks) : 20), key.put(b.split ? static_cast<int>(b.split->role) : 20);
  key.put(view.split ? static_cast<int>(view.split->role) : 20);
  key.put(view.block ? static_cast<int>(*view.block) : 20);
  return key;
}

}  // namespace

double LayerPricer::rows(const Schedule& s, const View& view, int rank, int peer) {
  const Buffer& b = s.buffers[static_cast<std::size_t>(view.buffer)];
  Fingerprint key = view_key(s, view);
  key.put(rank), key.put(peer);
  const auto found = rows_.find(key.hash);
  double all = 0;
  if (found != rows_.end()) {
    all = found->second;
  } else {
    Buffer one = b;
    View v = view;
    one.chunks = {0, 1};
    if (v.chunks) v.chunks = Chunks{0, 1};
    all = rows_of(one, v, groups_, *counts_, rank, peer);
    rows_.emplace(key.hash, all);
  }
  return all * chunk_fraction(s, b, view);
}

const GroupLoad& LayerPricer::load(const Schedule& s, const Step& step) {
  const View& view = step.in[0];
  Fingerprint key = view_key(s, view);
  key.put(static_cast<int>(step.group));
  if (const auto found = loads_of_.find(key.hash); found != loads_of_.end()) return found->second;
  const auto members = groups_.members(step.group, me_);
  const double part = 1 / chunk_fraction(s, s.buffers[static_cast<std::size_t>(view.buffer)], view);
  GroupLoad out;
  if (uniform_ && members.size() > 1) {  // all pairs alike
    out = traffic_.equal(groups_, step.group, me_);
    const double each = part * rows(s, view, me_, members[0] == me_ ? members[1] : members[0]);
    for (auto& c : out.classes) c.units *= each;
  } else {
    // Ranks differ by the experts they hold, that is by their place in the EP group. Rows grow with tokens, so that
    // what a token puts on links serves micro-batches of any size.
    const Layout& l = groups_.layout();
    Fingerprint what = key;
    for (const int of_layout :
         {l.tp, l.etp, l.ep, l.edp, static_cast<int>(l.expert_order), l.sequence_parallel ? 1 : 0})
      what.put(of_layout);
    what.put(odds_.experts()), what.put(odds_.top_k());  // kinds of MoE layers differ in these
    Buffer all = s.buffers[static_cast<std::size_t>(view.buffer)];
    View v = view;
    all.chunks = {0, 1};
    if (v.chunks) v.chunks = Chunks{0, 1};
    // Of one token, so that the last bit does not depend on which micro-batch asked first.
    const ExpectedCounts one(groups_, odds_, l.sequence_parallel ? 1.0 / l.tp : 1, injected_tokens(s, l, 1));
    out = traffic_.weighted(groups_, step.group, me_, what.hash,
                            [&](int rank, int peer) { return rows_of(all, v, groups_, one, rank, peer); });
    for (auto& c : out.classes) c.units *= tokens_;
  }
  return loads_of_.emplace(key.hash, std::move(out)).first->second;
}

const CollectiveCurve& LayerPricer::curve(Collective op, Role group) {
  const CollectiveCurve*& known = curves_[{op, group}];
  if (known == nullptr)
    known = &machine_.curve(op, group_on_nodes(groups_.members(group, me_), groups_.gpus_per_node()));
  return *known;
}

LayerPricer::Cost LayerPricer::communication(const Schedule& s, const Step& step) {
  Cost c;
  const auto members = groups_.members(step.group, me_);
  if (members.size() < 2) return c;
  const GroupLoad& l = load(s, step);
  const Efficiency& e = machine_.efficiency;
  const Buffer& b = s.buffers[static_cast<std::size_t>(step.in[0].buffer)];
  for (const int peer : members) {
    if (peer == me_) continue;
    const double n = rows(s, step.in[0], peer) * row_bytes(b);
    c.bytes += uniform_ ? n * l.peers : n;
    if (uniform_) break;
  }
  // Collectives are measured with equal messages. Unequal ones are priced as equal messages that load the slowest
  // link as much.
  const GroupLoad& alike = traffic_.equal(groups_, step.group, me_);
  double message = 0, slowest = 0;
  for (std::size_t i = 0; i < l.classes.size(); ++i) {
    const auto& k = l.classes[i];
    const double volume = k.units * chunk_fraction(s, b, step.in[0]) * row_bytes(b), raw = volume / (k.raw_GBps * 1e9);
    const double effective = raw / efficiency_of(e, k.name);
    c.uses.push_back({resource(k.name), effective, raw});
    if (effective > slowest) slowest = effective, c.bottleneck = k.link;
    const auto same = std::find_if(alike.classes.begin(), alike.classes.end(),
                                   [&](const GroupLoad::Class& a) { return a.name == k.name; });
    if (same != alike.classes.end() && same->units > 0) message = std::max(message, volume / same->units);
    // Curves speak of links as they are meant to be; a degraded one is slower than they say.
    const auto meant = machine_.meant_GBps.find(k.name);
    const bool degraded = meant != machine_.meant_GBps.end() && k.raw_GBps < 0.99 * meant->second;
    c.alone_s = std::max(c.alone_s, degraded ? effective : raw);
  }
  const bool gather = step.kind == StepKind::all_gather;
  const double send_bytes = gather ? message : message * static_cast<double>(members.size());
  const CollectiveCurve& time = curve(gather ? Collective::all_gather : Collective::alltoall, step.group);
  const double raw_s = c.alone_s;
  const auto cut = [&](int n) { return std::max(raw_s / n, time.time_us(send_bytes / n) * 1e-6); };
  c.alone_s = cut(1);
  if (bounding_) c.in_cuts_s = least_in_cuts(cut), c.one_cut_s = cut(kMostChunks);
  if (slowest < c.alone_s / 2) c.bottleneck = "latency";
  c.uses.push_back({kCompute, c.alone_s * e.communication_sms / machine_.sms, 0});
  return c;
}

LayerPricer::Cost LayerPricer::counts(const Step& step, int chunks) {
  Cost c;
  c.bytes = 4 * widths_.experts * chunks * static_cast<double>(step.slices.size());
  c.alone_s = machine_.efficiency.host_sync.value;
  if (groups_.size(step.group) > 1) c.alone_s += curve(Collective::alltoall, step.group).time_us(c.bytes) * 1e-6;
  c.bottleneck = "latency";
  return c;
}

// Rows of each of my experts, of `rows` in all.
std::vector<double> LayerPricer::rows_by_expert(double rows) const {
  std::vector<double> out;
  double sum = 0;
  for (const int copy : counts_->placement().held_by(groups_.index_in(Role::ep, me_))) {
    out.push_back(counts_->count(Symbol::pairs, 0, me_, copy));
    sum += out.back();
  }
  for (double& r : out) r *= sum > 0 ? rows / sum : 0;
  return out;
}

double LayerPricer::ffn_s(std::span<const double> by_expert, StepKind kind) const {
  const FfnPass pass = kind == StepKind::expert_forward ? FfnPass::forward
                       : kind == StepKind::expert_dgrad ? FfnPass::dgrad
                                                        : FfnPass::wgrad;
  return machine_.compute
             ->expert_ffn(by_expert, widths_.hidden, widths_.ffn_shard, widths_.matrices, machine_.expert_kernel, pass)
             .time_us *
         1e-6 / machine_.efficiency.in_step;
}

LayerPricer::Cost LayerPricer::experts(const Schedule& s, const Step& step) {
  const double n = rows(s, step.in[0], me_), local = widths_.experts / groups_.size(Role::ep);
  const double flops = 2.0 * widths_.matrices * n * widths_.hidden * widths_.ffn_shard;
  const double weights = widths_.matrices * widths_.hidden * widths_.ffn_shard * local;
  // Each weight is read once (an expert without rows is not); wgrad reads and writes fp32 gradients.
  const double element = machine_.weight_bytes > 0 ? machine_.weight_bytes : widths_.element_bytes;
  const double weight_bytes = weights * (step.kind == StepKind::expert_wgrad ? 8 : element) * std::min(1.0, n / local);
  double bytes = weight_bytes;
  for (const auto* views : {&step.in, &step.out})
    for (const View& v : *views) bytes += rows(s, v, me_) * row_bytes(s.buffers[static_cast<std::size_t>(v.buffer)]);
  Cost c;
  const double compute = flops / machine_.flops.value, memory = bytes / machine_.hbm.value;
  const double effective_memory = memory / (machine_.efficiency.memory * machine_.efficiency.in_step);
  c.bytes = bytes;
  const auto cut = [&](int parts) {
    return std::max({ffn_s(rows_by_expert(n / parts), step.kind), compute / parts, memory / parts});
  };
  c.alone_s = cut(1);
  if (bounding_) c.in_cuts_s = least_in_cuts(cut), c.one_cut_s = cut(kMostChunks);
  c.uses = {
      {kCompute, std::max(compute, std::min(c.alone_s, c.alone_s * compute / std::max(memory, compute))), compute},
      {kHbm, effective_memory, bytes > machine_.efficiency.cache_bytes ? memory : 0}};
  c.bottleneck = effective_memory > 0.9 * c.alone_s ? "hbm" : "compute";
  return c;
}

// Everything that only moves rows through memory. Index maps are built on the host from ids that are there.
LayerPricer::Cost LayerPricer::memory_bound(const Schedule& s, const Step& step) {
  Cost c;
  for (const auto* views : {&step.in, &step.out})
    for (const View& v : *views) c.bytes += rows(s, v, me_) * row_bytes(s.buffers[static_cast<std::size_t>(v.buffer)]);
  if (step.kind == StepKind::index) {
    const IndexMap& map = s.maps[static_cast<std::size_t>(step.map)];
    c.bytes = 16 * (rows(s, map.from, me_) + rows(s, map.to, me_));
  }
  double flops = 0;
  if (step.kind == StepKind::route || step.kind == StepKind::route_backward)
    flops = (step.kind == StepKind::route ? 2 : 4) * rows(s, step.in[0], me_) * widths_.hidden * widths_.experts;
  const Efficiency& e = machine_.efficiency;
  const double memory = c.bytes / machine_.hbm.value, compute = flops / machine_.flops.value;
  const double moved = memory / (e.memory * e.in_step), computed = compute / (kSmallGemm * e.in_step);
  c.uses = {{kHbm, moved, c.bytes > e.cache_bytes ? memory : 0}, {kCompute, computed, compute}};
  c.alone_s = std::max(moved, computed) + e.launch.value;
  if (step.kind == StepKind::route) c.alone_s += e.host_sync.value;
  c.bottleneck = computed > moved ? "compute" : moved > e.launch.value ? "hbm" : "latency";
  return c;
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

PassShape pass_shape(const Schedule& s, bool backward) {
  const auto& steps = backward ? s.backward : s.forward;
  PassShape shape;
  std::vector<int> lanes;
  for (const Step& step : steps) shape.keys.push_back(key_of(s, step)), lanes.push_back(static_cast<int>(step.lane));
  shape.order = flow_order(std::move(lanes),
                           [&](int i) { return std::span<const int>(steps[static_cast<std::size_t>(i)].after); });
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
    const Cost& c = cost(s, steps[i], shape.keys[i]);
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

PredictedPass LayerPricer::price(const Schedule& s, bool backward) {
  const PassShape shape = pass_shape(s, backward);
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
    if (steps[i].kind != StepKind::exchange && steps[i].kind != StepKind::all_gather) continue;
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
