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

// Of a flow in a call: still rising, at its rate, or not active.
constexpr char kOpen = 0, kFixed = 1, kAway = 2;

std::size_t at(int i) { return static_cast<std::size_t>(i); }

}  // namespace

std::vector<FlowView> views(std::span<const Flow> flows) {
  std::vector<FlowView> out;
  out.reserve(flows.size());
  for (const Flow& f : flows) out.push_back({f.work, f.limit, f.uses});
  return out;
}

void MaxMin::reset(std::span<const FlowView> flows, std::span<const double> capacity) {
  flows_ = flows, capacity_ = capacity;
  load_.assign(capacity.size(), 0);
  rising_.assign(capacity.size(), 0);
  fixed_.assign(flows.size(), kAway);
  uses_.clear(), first_use_.clear();
}

void MaxMin::share(std::span<const int> active, std::vector<double>& rate) {
  rate.resize(flows_.size());
  active.size() <= kFew ? share_few(active, rate) : share_many(active, rate);
}

// Rounds over all flows; each round fills at least one resource or reaches one limit.
void MaxMin::share_few(std::span<const int> active, std::vector<double>& rate) {
  for (const int f : active) {
    fixed_[at(f)] = kOpen;
    for (const auto& [r, weight] : flows_[at(f)].uses) load_[at(r)] = 0;
  }
  double level = 0;
  for (std::size_t open = active.size(); open > 0;) {
    for (const int f : active)
      for (const auto& [r, weight] : flows_[at(f)].uses) rising_[at(r)] = 0;
    for (const int f : active)
      if (fixed_[at(f)] == kOpen)
        for (const auto& [r, weight] : flows_[at(f)].uses) rising_[at(r)] += weight;
    double step = std::numeric_limits<double>::infinity();
    for (const int f : active) {
      if (fixed_[at(f)] != kOpen) continue;
      step = std::min(step, flows_[at(f)].limit - level);
      for (const auto& [r, weight] : flows_[at(f)].uses)
        if (rising_[at(r)] > 0)
          step = std::min(step, std::max(0.0, (capacity_[at(r)] - load_[at(r)]) / rising_[at(r)]));
    }
    TOPOMOE_ASSERT(step < std::numeric_limits<double>::infinity());  // a flow without limit uses something
    level += step;
    for (const int f : active)
      if (fixed_[at(f)] == kOpen)
        for (const auto& [r, weight] : flows_[at(f)].uses) load_[at(r)] += weight * step;
    std::size_t fixed_now = 0;
    for (const int f : active) {
      if (fixed_[at(f)] != kOpen) continue;
      bool full = level >= flows_[at(f)].limit * kFull;
      for (const auto& [r, weight] : flows_[at(f)].uses) full |= weight > 0 && load_[at(r)] >= capacity_[at(r)] * kFull;
      if (full) rate[at(f)] = level, fixed_[at(f)] = kFixed, ++fixed_now;
    }
    TOPOMOE_ASSERT(fixed_now > 0);
    open -= fixed_now;
  }
  for (const int f : active) fixed_[at(f)] = kAway;
}

void MaxMin::pack() {
  first_use_.assign(1, 0);
  first_user_.assign(capacity_.size() + 1, 0);
  for (const FlowView& f : flows_) {
    const auto mine = static_cast<std::size_t>(first_use_.back());
    for (const auto& [r, weight] : f.uses) {
      if (weight <= 0) continue;
      const auto known = std::find_if(uses_.begin() + static_cast<std::ptrdiff_t>(mine), uses_.end(),
                                      [r = r](const Use& use) { return use.resource == r; });
      if (known != uses_.end()) {
        known->weight += weight;
      } else {
        uses_.push_back({r, weight});
        ++first_user_[at(r) + 1];
      }
    }
    first_use_.push_back(static_cast<int>(uses_.size()));
  }
  for (std::size_t r = 0; r < capacity_.size(); ++r) first_user_[r + 1] += first_user_[r];
  users_.resize(uses_.size());
  std::vector<int> next = first_user_;
  for (std::size_t f = 0; f < flows_.size(); ++f)
    for (int u = first_use_[f]; u < first_use_[f + 1]; ++u)
      users_[at(next[at(uses_[at(u)].resource)]++)] = static_cast<int>(f);
  whole_.resize(capacity_.size());
}

// The same by resource: the one that fills at the lowest level is next. Fixing flows only raises the level at
// which another resource fills, so that a heap of stale levels is enough: what comes up is worked out again.
void MaxMin::share_many(std::span<const int> active, std::vector<double>& rate) {
  if (first_use_.empty()) pack();
  std::vector<double>&left = load_, &rising = rising_;  // capacity that fixed flows leave; weights of the others
  const auto uses_of = [&](int f) {
    return std::span<const Use>(uses_).subspan(at(first_use_[at(f)]), at(first_use_[at(f) + 1] - first_use_[at(f)]));
  };
  const auto users_of = [&](int r) {
    return std::span<const int>(users_).subspan(at(first_user_[at(r)]),
                                                at(first_user_[at(r) + 1] - first_user_[at(r)]));
  };
  open_.assign(capacity_.size(), 0);
  rising.assign(capacity_.size(), 0);
  left.assign(capacity_.begin(), capacity_.end());
  by_limit_.clear();
  for (const int f : active) {
    fixed_[at(f)] = kOpen;
    if (flows_[at(f)].limit < std::numeric_limits<double>::infinity()) by_limit_.push_back(f);
    for (const auto& [r, weight] : uses_of(f)) ++open_[at(r)], rising[at(r)] += weight;
  }
  std::sort(by_limit_.begin(), by_limit_.end(), [&](int a, int b) {
    return flows_[at(a)].limit != flows_[at(b)].limit ? flows_[at(a)].limit < flows_[at(b)].limit : a < b;
  });
  heap_.clear();
  for (std::size_t r = 0; r < capacity_.size(); ++r) {
    if (open_[r] == 0) continue;
    whole_[r] = rising[r];
    heap_.emplace_back(left[r] / rising[r], static_cast<int>(r));
  }
  std::make_heap(heap_.begin(), heap_.end(), std::greater<>());

  double level = 0;
  std::size_t limited = 0, open = active.size();
  const auto fix = [&](int f) {
    rate[at(f)] = level;
    fixed_[at(f)] = kFixed;
    --open;
    for (const auto& [r, weight] : uses_of(f)) {
      left[at(r)] -= weight * level;
      --open_[at(r)];
      rising[at(r)] -= weight;
    }
  };
  const auto add_up_again = [&](int r) {
    left[at(r)] = capacity_[at(r)], rising[at(r)] = 0;
    for (const int f : users_of(r))
      for (const auto& [other, weight] : uses_of(f))
        if (other == r && fixed_[at(f)] != kAway)
          fixed_[at(f)] == kOpen ? rising[at(r)] += weight : left[at(r)] -= weight * rate[at(f)];
  };
  while (open > 0) {
    while (limited < by_limit_.size() && fixed_[at(by_limit_[limited])] != kOpen) ++limited;
    const double limit =
        limited < by_limit_.size() ? flows_[at(by_limit_[limited])].limit : std::numeric_limits<double>::infinity();
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
    if (rising[at(r)] < kLostDigits * whole_[at(r)] || left[at(r)] < kLostDigits * capacity_[at(r)]) add_up_again(r);
    const double fills = std::max(level, left[at(r)] / rising[at(r)]);
    if (fills > stale && ((!heap_.empty() && fills > heap_.front().first) || fills > limit)) {
      heap_.emplace_back(fills, r);
      std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
      continue;
    }
    level = fills;
    for (const int f : users_of(r))
      if (fixed_[at(f)] == kOpen) fix(f);
  }
  for (const int f : active) fixed_[at(f)] = kAway;
}

}  // namespace topomoe
