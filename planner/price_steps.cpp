// What each step of a schedule costs alone, and which resources it asks for.
#include <algorithm>
#include <cmath>
#include <map>

#include "planner/price_parts.hpp"

namespace topomoe {
namespace {

using namespace pricing;

// The router's GEMM is a few hundred columns wide: a fraction of peak. Assumed.
constexpr double kSmallGemm = 0.3;

// The least of n t(1/n): what a step takes at best, cut as it may be.
template <class Time>
double least_in_cuts(Time time) {
  double least = time(1);
  for (const int n : kChunkCounts) least = std::min(least, n * time(n));
  return least;
}

}  // namespace

double LayerPricer::row_bytes(const Buffer& b) const {
  return topomoe::row_bytes(b,
                            {widths_.hidden, widths_.ffn_shard, widths_.top_k, widths_.experts, widths_.element_bytes});
}

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
    for (auto& c : out.classes) c.units *= each, c.mean *= each;
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
    for (auto& c : out.classes) c.units *= tokens_, c.mean *= tokens_;
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
  const bool gather = step.kind == StepKind::all_gather;
  const CollectiveCurve& time = curve(gather ? Collective::all_gather : Collective::alltoall, step.group);
  // Collectives are measured with equal messages. Unequal ones are priced as equal messages that load the slowest
  // link as long: where this very shape was measured the slowest of all links, since the curve is that link's, and
  // the others as far as the timeline goes; elsewhere the slowest of each class.
  const GroupLoad& alike = traffic_.equal(groups_, step.group, me_);
  double message = 0, slowest = 0, slowest_raw = 0, alike_raw = 0, mean_share = 1;
  for (const GroupLoad::Class& a : alike.classes) alike_raw = std::max(alike_raw, a.units / (a.raw_GBps * 1e9));
  for (std::size_t i = 0; i < l.classes.size(); ++i) {
    const auto& k = l.classes[i];
    const double volume = k.units * chunk_fraction(s, b, step.in[0]) * row_bytes(b), raw = volume / (k.raw_GBps * 1e9);
    const double effective = raw / efficiency_of(e, k.name);
    c.uses.push_back({resource(k.name), effective, raw});
    if (effective > slowest) slowest = effective, c.bottleneck = k.link;
    const auto same = std::find_if(alike.classes.begin(), alike.classes.end(),
                                   [&](const GroupLoad::Class& a) { return a.name == k.name; });
    if (!time.measured() && same != alike.classes.end() && same->units > 0)
      message = std::max(message, volume / same->units);
    if (raw > slowest_raw) slowest_raw = raw, mean_share = k.mean / k.units;
    // Curves speak of links as they are meant to be; a degraded one is slower than they say.
    const auto meant = machine_.meant_GBps.find(k.name);
    const bool degraded = meant != machine_.meant_GBps.end() && k.raw_GBps < 0.99 * meant->second;
    c.alone_s = std::max(c.alone_s, degraded ? effective : raw);
  }
  if (time.measured() && alike_raw > 0) message = slowest_raw / alike_raw;
  const double send_bytes = gather ? message : message * static_cast<double>(members.size());
  const double raw_s = c.alone_s;
  // Among many nodes equal messages take longer than their links need (14% among 4, 2% among 2 in virtual clusters):
  // each waits for others, now here, now there. Where one link is slower than the rest it waits for nobody: it takes
  // what it would between two nodes, if the crowd behind it is done by then.
  const CollectiveCurve* two = nullptr;
  double in_two = 0;
  if (time.measured() && !gather && mean_share < 1) {
    const CollectiveGroup shape = group_on_nodes(members, groups_.gpus_per_node());
    if (shape.nodes > 2 && shape.most == shape.fewest)
      two = &machine_.curve(Collective::alltoall, regular_group(shape.most, 2));
    if (two != nullptr && !two->measured()) two = nullptr;
    in_two = 2.0 * (shape.nodes - 1) / shape.nodes;
  }
  const auto unequal = [&](double (CollectiveCurve::*us)(double) const, double bytes) {
    const double crowd = (time.*us)(bytes);
    if (two == nullptr) return crowd;
    return std::min(crowd, std::max((time.*us)(bytes * mean_share), (two->*us)(bytes * in_two)));
  };
  // Chunks go in a row: the first takes what one alone takes, the others what they add; each is priced the mean.
  const double chunks = std::max(1.0, std::round(1 / chunk_fraction(s, b, step.in[0])));
  const auto cut = [&](int n) {
    const double us = unequal(&CollectiveCurve::time_us, send_bytes / n),
                 more = (chunks * n - 1) * unequal(&CollectiveCurve::in_a_row_us, send_bytes / n);
    double all = us + more;
    // Nor do they take longer than one of all their bytes, and as many empty ones: a row is timed a few times only.
    if (time.in_a_row_measured())
      all = std::min(all,
                     unequal(&CollectiveCurve::time_us, send_bytes * chunks) + (chunks * n - 1) * time.in_a_row_us(1));
    return std::max(raw_s / n, all / (chunks * n) * 1e-6);
  };
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
  const double moved =
      machine_.copies && c.bytes > 0 ? (*machine_.copies)(c.bytes).value : memory / (e.memory * e.in_step);
  const double computed = compute / (kSmallGemm * e.in_step);
  c.uses = {{kHbm, moved, c.bytes > e.cache_bytes ? memory : 0}, {kCompute, computed, compute}};
  c.alone_s = std::max(moved, computed) + e.launch.value;
  if (step.kind == StepKind::route) c.alone_s += e.host_sync.value;
  c.bottleneck = computed > moved ? "compute" : moved > e.launch.value ? "hbm" : "latency";
  return c;
}

}  // namespace topomoe
