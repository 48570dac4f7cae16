#include "planner/fluid.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr double kDone = 1e-9;       // of a flow's work: what rounding may leave
constexpr std::size_t kWorthIt = 8;  // fewer flows are not searched for symmetry

std::size_t at(int i) { return static_cast<std::size_t>(i); }

}  // namespace

FlowOrder flow_order(std::vector<int> queue, const std::function<std::span<const int>(int flow)>& after) {
  const auto count = static_cast<int>(queue.size());
  FlowOrder o{std::move(queue), std::vector<int>(at(count)), std::vector<int>(at(count) + 1), {}};
  std::vector<int> last;
  const auto each = [&](auto wait) {
    last.clear();
    for (int f = 0; f < count; ++f) {
      for (const int a : after(f)) wait(f, a);
      const int q = o.queue[at(f)];
      if (q < 0) continue;
      if (at(q) >= last.size()) last.resize(at(q) + 1, -1);
      if (const int on = std::exchange(last[at(q)], f); on >= 0) wait(f, on);
    }
  };
  each([&](int f, int on) {
    TOPOMOE_ASSERT(on >= 0 && on < f);
    ++o.first[at(on)];
    ++o.waits_for[at(f)];
  });
  int total = 0;
  for (int& n : o.first) total += n, n = total;  // ends; filling from the back turns them into begins
  o.released.resize(at(total));
  each([&](int f, int on) { o.released[at(--o.first[at(on)])] = f; });
  return o;
}

void FluidRun::finish(const FlowOrder& order, int f, int round, int queue) {
  out_[at(f)].end_s = now_;
  ++finished_;
  for (int i = order.first[at(f)]; i < order.first[at(f) + 1]; ++i) {
    const int next = order.released[at(i)];
    if (--waits_for_[at(next)] > 0) continue;
    const int its = order.queue[at(next)];
    ready_.push_back({its > queue ? round : round + 1, its, next});
    std::push_heap(ready_.begin(), ready_.end(), std::greater<>());
  }
}

std::span<const Interval> FluidRun::operator()(std::span<const FlowView> flows, const FlowOrder& order,
                                               std::span<const double> capacity) {
  out_.assign(flows.size(), {});
  left_.assign(flows.size(), 1.0);  // fraction of the work
  waits_for_ = order.waits_for;
  active_.clear(), ready_.clear();
  max_min_.reset(flows, capacity);
  now_ = 0, finished_ = 0;
  // Flows start in rounds over the queues, so that equal arguments give equal sums to the last bit.
  for (int f = 0; f < static_cast<int>(flows.size()); ++f)
    if (waits_for_[at(f)] == 0) ready_.push_back({0, order.queue[at(f)], f});
  std::make_heap(ready_.begin(), ready_.end(), std::greater<>());
  while (true) {
    while (!ready_.empty()) {  // flows of no work finish at once and may release others
      std::pop_heap(ready_.begin(), ready_.end(), std::greater<>());
      const auto [round, queue, f] = ready_.back();
      ready_.pop_back();
      out_[at(f)].begin_s = now_;
      if (flows[at(f)].work <= 0)
        finish(order, f, round, queue);
      else
        active_.push_back(f);
    }
    if (finished_ == flows.size()) return out_;
    TOPOMOE_ASSERT(!active_.empty());
    max_min_.share(active_, rate_);
    double next = std::numeric_limits<double>::infinity();
    for (const int f : active_) next = std::min(next, left_[at(f)] * flows[at(f)].work / rate_[at(f)]);
    TOPOMOE_ASSERT(next < std::numeric_limits<double>::infinity());
    now_ += next;
    for (const int f : active_) left_[at(f)] -= next * rate_[at(f)] / flows[at(f)].work;
    std::erase_if(active_, [&](int f) {
      if (left_[at(f)] > kDone) return false;
      finish(order, f, -1, std::numeric_limits<int>::max());
      return true;
    });
  }
}

namespace {

std::vector<Interval> run(std::span<const Flow> flows, std::span<const double> capacity) {
  std::vector<int> queue;
  queue.reserve(flows.size());
  for (const Flow& f : flows) queue.push_back(f.queue);
  const FlowOrder order = flow_order(std::move(queue), [&](int f) { return std::span<const int>(flows[at(f)].after); });
  const std::vector<FlowView> seen = views(flows);
  FluidRun runs;
  const auto out = runs(seen, order, capacity);
  return {out.begin(), out.end()};
}

}  // namespace

std::vector<Interval> run_fluid(std::span<const Flow> flows, std::span<const double> capacity) {
  const auto free =
      std::count_if(flows.begin(), flows.end(), [](const Flow& f) { return f.queue < 0 && f.after.empty(); });
  if (free < static_cast<std::ptrdiff_t>(kWorthIt)) return run(flows, capacity);
  const FlowClasses classes = flow_classes(flows, capacity);
  const auto of_class = run(classes.flows, classes.capacity);
  std::vector<Interval> out(flows.size());
  for (std::size_t f = 0; f < flows.size(); ++f) out[f] = of_class[at(classes.of_flow[f])];
  return out;
}

double fluid_bound(std::span<const Flow> flows, std::span<const double> capacity) {
  std::vector<double> volume(capacity.size()), end(flows.size()), queue_end;
  double bound = 0;
  for (std::size_t f = 0; f < flows.size(); ++f) {
    double rate = flows[f].limit, begin = 0;
    for (const auto& [r, weight] : flows[f].uses) {
      if (weight <= 0) continue;
      rate = std::min(rate, capacity[at(r)] / weight);
      volume[at(r)] += weight * flows[f].work;
    }
    for (const int a : flows[f].after) begin = std::max(begin, end[at(a)]);
    const int queue = flows[f].queue;
    if (queue >= 0 && at(queue) >= queue_end.size()) queue_end.resize(at(queue) + 1);
    if (queue >= 0) begin = std::max(begin, queue_end[at(queue)]);
    end[f] = begin + (flows[f].work > 0 ? flows[f].work / rate : 0);
    if (queue >= 0) queue_end[at(queue)] = end[f];
    bound = std::max(bound, end[f]);
  }
  for (std::size_t r = 0; r < volume.size(); ++r) bound = std::max(bound, volume[r] / capacity[r]);
  return bound;
}

}  // namespace topomoe
