// What each exchange of a schedule costs alone, and what it puts on which links.
#include <algorithm>
#include <cmath>

#include "planner/price_parts.hpp"

namespace topomoe {

using namespace pricing;

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

namespace {

// Collectives are measured with equal messages. Unequal ones are priced as equal messages that load the slowest link as
// long: where this very shape was measured the slowest of all links, since the curve is that link's, and the others as
// far as the timeline goes; elsewhere the slowest of each class.
struct EqualMessages {
  double bytes = 0;       // of one
  double mean_share = 1;  // what links of the slowest one's class carry in the mean, of what it carries
};
template <class Volume>
EqualMessages as_equal_messages(const GroupLoad& load, const GroupLoad& alike, bool measured, Volume volume) {
  EqualMessages out;
  double slowest_s = 0, alike_s = 0;
  for (const GroupLoad::Class& a : alike.classes) alike_s = std::max(alike_s, a.units / (a.raw_GBps * 1e9));
  for (const GroupLoad::Class& k : load.classes) {
    const double raw_s = volume(k) / (k.raw_GBps * 1e9);
    if (raw_s > slowest_s) slowest_s = raw_s, out.mean_share = k.mean / k.units;
    const auto same = std::find_if(alike.classes.begin(), alike.classes.end(),
                                   [&](const GroupLoad::Class& a) { return a.name == k.name; });
    if (!measured && same != alike.classes.end() && same->units > 0)
      out.bytes = std::max(out.bytes, volume(k) / same->units);
  }
  if (measured && alike_s > 0) out.bytes = slowest_s / alike_s;
  return out;
}

// Among many nodes equal messages take longer than their links need (14% among 4, 2% among 2 in virtual clusters):
// each waits for others, now here, now there. Where one link is slower than the rest it waits for nobody: it takes
// what it would between two nodes, if the crowd behind it is done by then.
class ExchangeTime {
 public:
  ExchangeTime(const Machine& machine, const CollectiveCurve& all, std::span<const int> members, int gpus_per_node,
               double mean_share)
      : all_(all), mean_share_(mean_share) {
    if (!all.measured() || mean_share >= 1) return;
    const CollectiveGroup group = group_on_nodes(members, gpus_per_node);
    if (group.nodes <= 2 || group.most != group.fewest) return;
    const CollectiveCurve& two = machine.curve(Collective::alltoall, regular_group(group.most, 2));
    if (two.measured()) two_ = &two;
    in_two_ = 2.0 * (group.nodes - 1) / group.nodes;
  }
  double time_us(double bytes) const { return us(&CollectiveCurve::time_us, bytes); }
  double in_a_row_us(double bytes) const { return us(&CollectiveCurve::in_a_row_us, bytes); }

 private:
  double us(double (CollectiveCurve::*curve)(double) const, double bytes) const {
    const double crowd = (all_.*curve)(bytes);
    if (two_ == nullptr) return crowd;
    return std::min(crowd, std::max((all_.*curve)(bytes * mean_share_), (two_->*curve)(bytes * in_two_)));
  }
  const CollectiveCurve& all_;
  const CollectiveCurve* two_ = nullptr;
  double mean_share_, in_two_ = 0;
};

}  // namespace

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
  const auto volume = [&](const GroupLoad::Class& k) {
    return k.units * chunk_fraction(s, b, step.in[0]) * row_bytes(b);
  };
  double slowest_s = 0, raw_s = 0;
  for (const GroupLoad::Class& k : l.classes) {
    const double raw = volume(k) / (k.raw_GBps * 1e9), effective = raw / efficiency_of(e, k.name);
    c.uses.push_back({resource(k.name), effective, raw});
    if (effective > slowest_s) slowest_s = effective, c.bottleneck = k.link;
    // Curves speak of links as they are meant to be; a degraded one is slower than they say.
    const auto meant = machine_.meant_GBps.find(k.name);
    const bool degraded = meant != machine_.meant_GBps.end() && k.raw_GBps < 0.99 * meant->second;
    raw_s = std::max(raw_s, degraded ? effective : raw);
  }
  const bool gather = step.kind == StepKind::all_gather;
  const CollectiveCurve& all = curve(gather ? Collective::all_gather : Collective::alltoall, step.group);
  const EqualMessages message = as_equal_messages(l, traffic_.equal(groups_, step.group, me_), all.measured(), volume);
  const double send_bytes = gather ? message.bytes : message.bytes * static_cast<double>(members.size());
  const ExchangeTime time(machine_, all, members, groups_.gpus_per_node(), gather ? 1 : message.mean_share);
  // Chunks go in a row: the first takes what one alone takes, the others what they add; each is priced the mean.
  const double chunks = std::max(1.0, std::round(1 / chunk_fraction(s, b, step.in[0])));
  const auto cut = [&](int n) {
    const double us = time.time_us(send_bytes / n), more = (chunks * n - 1) * time.in_a_row_us(send_bytes / n);
    double whole_us = us + more;
    // Nor do they take longer than one of all their bytes, and as many empty ones: a row is timed a few times only.
    if (all.in_a_row_measured())
      whole_us = std::min(whole_us, time.time_us(send_bytes * chunks) + (chunks * n - 1) * all.in_a_row_us(1));
    return std::max(raw_s / n, whole_us / (chunks * n) * 1e-6);
  };
  c.alone_s = cut(1);
  if (bounding_) c.in_cuts_s = least_in_cuts(cut), c.one_cut_s = cut(kMostChunks);
  if (slowest_s < c.alone_s / 2) c.bottleneck = "latency";
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

}  // namespace topomoe
