#include "planner/max_min.hpp"

#include <algorithm>
#include <functional>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr double kFull = 1 - 1e-12;  // of a capacity or a limit: rounding of a handful of sums
// Where fewer flows run, going over all of them in each round is faster than a heap (measured: 4 lanes).
constexpr std::size_t kFew = 8;
// A sum that shrank to this part of itself by subtraction has lost digits and is added up again.
constexpr double kLostDigits = 1e-4;

std::size_t at(int i) { return static_cast<std::size_t>(i); }

}  // namespace

void MaxMin::share(std::span<const Flow> flows, std::span<const int> active, std::span<const double> capacity,
                   std::vector<double>& rate) {
  rate.resize(flows.size());
  fixed_.resize(flows.size());
  load_.resize(capacity.size());
  rising_.resize(capacity.size());
  (active.size() <= kFew ? share_few(flows, active, capacity, rate) : share_many(flows, active, capacity, rate));
}

// Rounds over all flows; each round fills at least one resource or reaches one limit.
void MaxMin::share_few(std::span<const Flow> flows, std::span<const int> active, std::span<const double> capacity,
                       std::vector<double>& rate) {
  for (const int f : active) {
    fixed_[at(f)] = 0;
    for (const auto& [r, weight] : flows[at(f)].uses) load_[at(r)] = 0;
  }
  double level = 0;
  for (std::size_t open = active.size(); open > 0;) {
    for (const int f : active)
      for (const auto& [r, weight] : flows[at(f)].uses) rising_[at(r)] = 0;
    for (const int f : active)
      if (!fixed_[at(f)])
        for (const auto& [r, weight] : flows[at(f)].uses) rising_[at(r)] += weight;
    double step = std::numeric_limits<double>::infinity();
    for (const int f : active) {
      if (fixed_[at(f)]) continue;
      step = std::min(step, flows[at(f)].limit - level);
      for (const auto& [r, weight] : flows[at(f)].uses)
        if (rising_[at(r)] > 0) step = std::min(step, std::max(0.0, (capacity[at(r)] - load_[at(r)]) / rising_[at(r)]));
    }
    TOPOMOE_ASSERT(step < std::numeric_limits<double>::infinity());  // a flow without limit uses something
    level += step;
    for (const int f : active)
      if (!fixed_[at(f)])
        for (const auto& [r, weight] : flows[at(f)].uses) load_[at(r)] += weight * step;
    std::size_t fixed_now = 0;
    for (const int f : active) {
      if (fixed_[at(f)]) continue;
      bool full = level >= flows[at(f)].limit * kFull;
      for (const auto& [r, weight] : flows[at(f)].uses) full |= weight > 0 && load_[at(r)] >= capacity[at(r)] * kFull;
      if (full) rate[at(f)] = level, fixed_[at(f)] = 1, ++fixed_now;
    }
    TOPOMOE_ASSERT(fixed_now > 0);
    open -= fixed_now;
  }
}

// The same by resource: the one that fills at the lowest level is next. Fixing flows only raises the level at
// which another resource fills, so that a heap of stale levels is enough: what comes up is worked out again.
void MaxMin::share_many(std::span<const Flow> flows, std::span<const int> active, std::span<const double> capacity,
                        std::vector<double>& rate) {
  std::vector<double>&left = load_, &rising = rising_;  // capacity that fixed flows leave; weights of the others
  open_.assign(capacity.size(), 0);
  whole_.resize(capacity.size());
  by_limit_.clear();
  for (const int f : active) {
    fixed_[at(f)] = 0;
    if (flows[at(f)].limit < std::numeric_limits<double>::infinity()) by_limit_.push_back(f);
    for (const auto& [r, weight] : flows[at(f)].uses) {
      if (weight <= 0) continue;
      if (open_[at(r)]++ == 0) left[at(r)] = capacity[at(r)], rising[at(r)] = 0;
      rising[at(r)] += weight;
    }
  }
  std::sort(by_limit_.begin(), by_limit_.end(), [&](int a, int b) {
    return flows[at(a)].limit != flows[at(b)].limit ? flows[at(a)].limit < flows[at(b)].limit : a < b;
  });
  first_.assign(capacity.size() + 1, 0);
  heap_.clear();
  int total = 0;
  for (std::size_t r = 0; r < capacity.size(); ++r) {
    first_[r] = total;
    total += open_[r];
    if (open_[r] == 0) continue;
    whole_[r] = rising[r];
    heap_.emplace_back(left[r] / rising[r], static_cast<int>(r));
  }
  first_.back() = total;
  users_.resize(at(total));
  for (const int f : active)
    for (const auto& [r, weight] : flows[at(f)].uses)
      if (weight > 0) users_[at(first_[at(r)]++)] = f;  // ends where the next one begins
  std::make_heap(heap_.begin(), heap_.end(), std::greater<>());

  double level = 0;
  std::size_t limited = 0, open = active.size();
  const auto fix = [&](int f) {
    rate[at(f)] = level;
    fixed_[at(f)] = 1;
    --open;
    for (const auto& [r, weight] : flows[at(f)].uses) {
      if (weight <= 0) continue;
      left[at(r)] -= weight * level;
      --open_[at(r)];
      rising[at(r)] -= weight;
    }
  };
  const auto users_of = [&](int r) {
    const int begin = r == 0 ? 0 : first_[at(r) - 1];
    return std::span<const int>(users_).subspan(at(begin), at(first_[at(r)] - begin));
  };
  const auto add_up_again = [&](int r) {
    left[at(r)] = capacity[at(r)], rising[at(r)] = 0;
    int last = -1;
    for (const int f : users_of(r)) {
      if (std::exchange(last, f) == f) continue;  // a flow that names it twice stands there twice, side by side
      for (const auto& [other, weight] : flows[at(f)].uses)
        if (other == r && weight > 0) fixed_[at(f)] ? left[at(r)] -= weight * rate[at(f)] : rising[at(r)] += weight;
    }
  };
  while (open > 0) {
    while (limited < by_limit_.size() && fixed_[at(by_limit_[limited])]) ++limited;
    const double limit =
        limited < by_limit_.size() ? flows[at(by_limit_[limited])].limit : std::numeric_limits<double>::infinity();
    if (heap_.empty() || heap_.front().first >= limit) {
      TOPOMOE_ASSERT(limited < by_limit_.size());
      level = std::max(level, limit);
      fix(by_limit_[limited++]);
      continue;
    }
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    const auto [stale, r] = heap_.back();
    heap_.pop_back();
    if (open_[at(r)] == 0) continue;
    if (rising[at(r)] < kLostDigits * whole_[at(r)] || left[at(r)] < kLostDigits * capacity[at(r)]) add_up_again(r);
    const double fills = std::max(level, left[at(r)] / rising[at(r)]);
    if (fills > stale && ((!heap_.empty() && fills > heap_.front().first) || fills > limit)) {
      heap_.emplace_back(fills, r);
      std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
      continue;
    }
    level = fills;
    for (const int f : users_of(r))
      if (!fixed_[at(f)]) fix(f);
  }
}

}  // namespace topomoe
