#include "planner/fluid.hpp"

#include <algorithm>
#include <functional>
#include <queue>
#include <tuple>
#include <utility>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr double kDone = 1e-9;       // of a flow's work: what rounding may leave
constexpr std::size_t kWorthIt = 8;  // fewer flows are not searched for symmetry

std::size_t at(int i) { return static_cast<std::size_t>(i); }

// Who waits for whom: `after`, and the predecessor in the queue. Those that flow f releases are
// released[first[f]] .. released[first[f + 1]].
struct Waiting {
  std::vector<int> for_how_many, first, released;
};

Waiting waiting(std::span<const Flow> flows) {
  Waiting w{std::vector<int>(flows.size()), std::vector<int>(flows.size() + 1), {}};
  std::vector<int> last;
  const auto each = [&](auto wait) {
    last.clear();
    for (int f = 0; f < static_cast<int>(flows.size()); ++f) {
      for (const int a : flows[at(f)].after) wait(f, a);
      const int queue = flows[at(f)].queue;
      if (queue < 0) continue;
      if (at(queue) >= last.size()) last.resize(at(queue) + 1, -1);
      if (const int on = std::exchange(last[at(queue)], f); on >= 0) wait(f, on);
    }
  };
  each([&](int f, int on) {
    TOPOMOE_ASSERT(on >= 0 && on < f);
    ++w.first[at(on)];
    ++w.for_how_many[at(f)];
  });
  int total = 0;
  for (int& n : w.first) total += n, n = total;  // ends; filling from the back turns them into begins
  w.released.resize(at(total));
  each([&](int f, int on) { w.released[at(--w.first[at(on)])] = f; });
  return w;
}

std::vector<Interval> run(std::span<const Flow> flows, std::span<const double> capacity) {
  std::vector<Interval> out(flows.size());
  Waiting w = waiting(flows);
  // Flows start in rounds over the queues, so that equal arguments give equal sums to the last bit.
  using Start = std::tuple<int, int, int>;  // round, queue, flow
  std::priority_queue<Start, std::vector<Start>, std::greater<>> ready;
  for (int f = 0; f < static_cast<int>(flows.size()); ++f)
    if (w.for_how_many[at(f)] == 0) ready.emplace(0, flows[at(f)].queue, f);
  std::vector<int> active;
  std::vector<double> left(flows.size(), 1.0), rate;  // left: fraction of the work
  MaxMin max_min(flows, capacity);
  double now = 0;
  std::size_t finished = 0;
  const auto finish = [&](int f, int round, int queue) {
    out[at(f)].end_s = now;
    ++finished;
    for (int i = w.first[at(f)]; i < w.first[at(f) + 1]; ++i)
      if (const int next = w.released[at(i)]; --w.for_how_many[at(next)] == 0)
        ready.emplace(flows[at(next)].queue > queue ? round : round + 1, flows[at(next)].queue, next);
  };
  while (true) {
    while (!ready.empty()) {  // flows of no work finish at once and may release others
      const auto [round, queue, f] = ready.top();
      ready.pop();
      out[at(f)].begin_s = now;
      if (flows[at(f)].work <= 0)
        finish(f, round, queue);
      else
        active.push_back(f);
    }
    if (finished == flows.size()) return out;
    TOPOMOE_ASSERT(!active.empty());
    max_min.share(active, rate);
    double next = std::numeric_limits<double>::infinity();
    for (const int f : active) next = std::min(next, left[at(f)] * flows[at(f)].work / rate[at(f)]);
    TOPOMOE_ASSERT(next < std::numeric_limits<double>::infinity());
    now += next;
    for (const int f : active) left[at(f)] -= next * rate[at(f)] / flows[at(f)].work;
    std::erase_if(active, [&](int f) {
      if (left[at(f)] > kDone) return false;
      finish(f, -1, std::numeric_limits<int>::max());
      return true;
    });
  }
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
