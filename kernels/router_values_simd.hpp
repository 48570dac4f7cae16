// The values that a router chooses by, over F16 of simd_*.hpp, which is included first: of sixteen rows at a time,
// where they lie, which lanes of them are largest, which groups are the best, and sums over all of a row.
//
// A value's position is its expert, except where groups are no multiple of 16: each then begins a vector of its own.
#pragma once

#include <algorithm>
#include <cstddef>

#include "kernels/router_rows.hpp"
#include "kernels/router_score_simd.hpp"
#include "kernels/sixteen_rows_simd.hpp"

namespace topomoe::kernels {
namespace {

constexpr int kLanes = 16;
constexpr int kRows = 16;                  // at a time: a lane each
constexpr int kPlaces = kMaxExperts + 64;  // of positions, with what groups are padded by
constexpr int kStride = kPlaces + kLanes;  // rows a power of two apart would share a few lines of a cache
constexpr int kMaxGroups = kPlaces / kLanes;

constexpr int multiple(int n, int of) { return (n + of - 1) / of * of; }

struct Ids {
  std::int32_t of[kPlaces];
  constexpr Ids() : of() {
    for (int i = 0; i < kPlaces; ++i) of[i] = i;
  }
};
constexpr Ids kIds;

enum class Value { logit, sigmoid, softmax };  // what is chosen by; scores with bias

class RowValues {
 public:
  static bool fits(const Router& op) {
    const int groups = limited(op) ? op.options.groups : 1;
    return groups * multiple(op.experts / groups, kLanes) <= kPlaces;
  }

  TOPOMOE_INLINE explicit RowValues(const Router& op)
      : op_(op),
        experts_(op.experts),
        groups_(limited(op) ? op.options.groups : 1),
        of_group_(experts_ / groups_),
        group_places_(multiple(of_group_, groups_ == 1 ? 2 * kLanes : kLanes)),
        listed_(groups_ == 1 ? 1 : op.options.topk_groups),
        spread_(groups_ > 1 && group_places_ != of_group_),
        padded_(multiple(experts_, 2 * kLanes)),
        value_(by_logits(op)                            ? Value::logit
               : op.options.scoring == Scoring::sigmoid ? Value::sigmoid
                                                        : Value::softmax),
        softmax_(op.options.scoring == Scoring::softmax),
        fetched_a_quarter_(std::max(1, 160 / (4 * groups_))) {
    for (int r = 0; r < kRows; ++r) {
      std::fill(plain_[r] + experts_, plain_[r] + padded_, -HUGE_VALF);
      if (spread_) std::fill_n(copy_[r], groups_ * group_places_, -HUGE_VALF);
    }
    std::fill_n(bias_, groups_ * group_places_, -HUGE_VALF);
    for (int g = 0; g < groups_; ++g)
      for (int i = 0; i < of_group_; ++i) {
        const int e = g * of_group_ + i, at = g * group_places_ + i;
        bias_[at] = op.bias == nullptr ? 0.0F : op.bias[e];
        if (spread_) expert_at_[at] = e;
      }
  }

 protected:
  TOPOMOE_INLINE void begin(std::int64_t first, int rows) {
    rows_ = rows;
    ahead_ = reinterpret_cast<const char*>(op_.logits + (first + rows) * experts_);
    ahead_end_ = reinterpret_cast<const char*>(op_.logits + std::min(first + rows + kRows, op_.rows) * experts_);
    take(first);
  }
  // lanes_ of what may be chosen, and list_ of its groups.
  TOPOMOE_INLINE void find_largest() {
    if (value_ == Value::softmax) {
      find_largest_logits();
      for (int r = 0; r < rows_; ++r) add_exponentials(r);
      invert_sums();
    }
    switch (value_) {
      case Value::logit: find_largest<Value::logit>(); break;
      case Value::sigmoid: find_largest<Value::sigmoid>(); break;
      case Value::softmax: find_largest<Value::softmax>(); break;
    }
  }
  // The sum over all experts.
  TOPOMOE_INLINE void add_exponentials(int r) {
    F16 even = set(0.0F), odd = even;
    int e = 0;
    for (; e + kAtOnce * kLanes <= padded_; e += kAtOnce * kLanes) {
      add_exponentials<static_cast<std::size_t>(kAtOnce)>(r, e, even, odd);
      fetch(kAtOnce / 2);
    }
    for (; e < padded_; e += 2 * kLanes) add_exponentials<2>(r, e, even, odd);
    sum_[r].x = add(even, odd);
  }
  TOPOMOE_INLINE void invert_sums() { store(inverse_, divide(set(1.0F), folded(sum_).x)); }

  // So much of the sixteen rows that come next, of 256: a little at each step, since more than a core's sixteen line
  // buffers would wait, and the prefetcher of the cache ends with each page.
  TOPOMOE_INLINE void fetch(int parts) {
    const char* const end = std::min(ahead_ + parts * experts_ / 4, ahead_end_);
    for (; ahead_ < end; ahead_ += 64) __builtin_prefetch(ahead_, 0, 2);
  }

  const float* plain(int r) const { return plain_first_ + r * plain_stride_; }
  const float* logits(int r) const { return logits_first_ + r * logits_stride_; }
  const float* values(int r) const { return value_ == Value::logit ? logits(r) : biased_[r]; }

  const Router& op_;
  const int experts_, groups_, of_group_, group_places_, listed_;
  const bool spread_;
  const int padded_;
  const Value value_;
  const bool softmax_;
  const int fetched_a_quarter_;
  int rows_ = 0;
  const char *ahead_ = nullptr, *ahead_end_ = nullptr;
  const float *plain_first_ = nullptr, *logits_first_ = nullptr;
  std::int64_t plain_stride_ = 0, logits_stride_ = 0;
  Largest lanes_[kRows] = {};
  Sum sum_[kRows] = {};
  alignas(64) float bound_[kRows] = {}, largest_[kRows] = {}, inverse_[kRows] = {};
  alignas(64) std::int32_t count_[kRows] = {}, chosen_[kMaxTopK][kRows] = {}, list_[kRows][kMaxGroups + kLanes] = {};
  // In this order: a load waits for stores whose addresses have the same lowest twelve bits, as candidates would have
  // that were stored just before a row's next values are read.
  alignas(64) std::int32_t candidates_[kRows][kStride];
  alignas(64) float biased_[kRows][kStride], plain_[kRows][kStride], copy_[kRows][kStride], bias_[kPlaces];
  std::int32_t expert_at_[kPlaces];

 private:
  static bool limited(const Router& op) { return op.options.topk_groups < op.options.groups; }

  // Where logits are: as they came, or copied where vectors would reach into the next row or group.
  TOPOMOE_INLINE void take(std::int64_t first) {
    plain_first_ = op_.logits + first * experts_, plain_stride_ = experts_;
    if (padded_ != experts_) {
      for (int r = 0; r < rows_; ++r) std::copy_n(plain(r), experts_, plain_[r]);
      plain_first_ = plain_[0], plain_stride_ = kStride;
    }
    logits_first_ = plain_first_, logits_stride_ = plain_stride_;
    if (!spread_) return;
    for (int r = 0; r < rows_; ++r)
      for (int g = 0; g < groups_; ++g) std::copy_n(plain(r) + g * of_group_, of_group_, copy_[r] + g * group_places_);
    logits_first_ = copy_[0], logits_stride_ = kStride;
  }

  // What is chosen by: kVectors from a position on, of kOf rows; kept where that is no logit.
  template <Value kValue, std::size_t kOf, std::size_t kVectors>
  TOPOMOE_INLINE void values_at(const int (&rows)[kOf], int at, F16 (&x)[kOf * kVectors]) {
    for (std::size_t i = 0; i < kOf * kVectors; ++i)
      x[i] = load(logits(rows[i / kVectors]) + at + i % kVectors * kLanes);
    if constexpr (kValue == Value::logit) return;
    if constexpr (kValue == Value::sigmoid) sigmoid_score(x);
    if constexpr (kValue == Value::softmax) {
      for (std::size_t i = 0; i < kOf * kVectors; ++i) x[i] = subtract(x[i], set(largest_[rows[i / kVectors]]));
      exp_below(x);
      for (std::size_t i = 0; i < kOf * kVectors; ++i) x[i] = multiply(x[i], set(inverse_[rows[i / kVectors]]));
    }
    for (std::size_t i = 0; i < kOf * kVectors; ++i) {
      x[i] = add(x[i], load(bias_ + at + i % kVectors * kLanes));
      store(biased_[rows[i / kVectors]] + at + i % kVectors * kLanes, x[i]);
    }
  }
  TOPOMOE_INLINE void find_largest_logits() {
    for (int r = 0; r < rows_; ++r) {
      lanes_[r].x = set(-HUGE_VALF);
      for (int e = 0; e < padded_; e += kLanes) lanes_[r].x = most(load(plain(r) + e), lanes_[r].x);
    }
    store(largest_, folded(lanes_).x);
  }
  template <Value kValue, std::size_t N>
  TOPOMOE_INLINE void add_largest(int r, int at, F16& even, F16& odd) {
    F16 x[N];
    values_at<kValue, 1, N>({r}, at, x);
    for (std::size_t i = 0; i < N; i += 2) even = most(x[i], even), odd = most(x[i + 1], odd);  // a NaN is none
  }
  template <Value kValue>
  TOPOMOE_INLINE F16 largest_lanes(int r) {
    F16 even = set(-HUGE_VALF), odd = even;
    int at = 0;
    for (; at + kAtOnce * kLanes <= padded_; at += kAtOnce * kLanes) {
      add_largest<kValue, static_cast<std::size_t>(kAtOnce)>(r, at, even, odd);
      fetch(kValue == Value::logit ? kAtOnce / 8 : 3 * kAtOnce / 4);
    }
    for (; at < padded_; at += 2 * kLanes) add_largest<kValue, 2>(r, at, even, odd);
    return most(even, odd);
  }
  template <Value kValue>
  TOPOMOE_INLINE void find_largest() {
    if (groups_ == 1) {
      for (int r = 0; r < rows_; ++r) lanes_[r].x = largest_lanes<kValue>(r);
      return;
    }
    F16 worth[kMaxGroups];
    for (int g = 0; g < groups_; ++g) {
      if (softmax_ || of_group_ == 1) {
        worth[g] = best_of_group<kValue, Largest>(g).x;
      } else {
        const TwoLargest best = best_of_group<kValue, TwoLargest>(g);
        worth[g] = most(add(best.first, best.second), set(-HUGE_VALF));
      }
    }
    list_groups(worth);
    for (int r = 0; r < rows_; ++r) {
      lanes_[r].x = set(-HUGE_VALF);
      for (int i = 0; i < listed_; ++i) {
        const float* const from = values(r) + list_[r][i] * group_places_;
        for (int at = 0; at < group_places_; at += kLanes) lanes_[r].x = most(load(from + at), lanes_[r].x);
      }
    }
  }
  // Of all rows, a lane each.
  template <Value kValue, class Best>
  TOPOMOE_INLINE Best best_of_group(int g) {
    constexpr int kOf = std::max(1, kAtOnce / 2);
    Best quarter[4];
    for (int i = 0; i < 4; ++i) {
      Best row[4];
      for (int j = 0; j < 4; j += kOf) best_of_rows<kValue, Best, static_cast<std::size_t>(kOf)>(4 * j + i, g, row + j);
      quarter[i] = folded_quarter(row[0], row[1], row[2], row[3]);
      fetch(fetched_a_quarter_);
    }
    return folded_quarters(quarter);
  }
  // Of every fourth row from r on.
  template <Value kValue, class Best, std::size_t kOf>
  TOPOMOE_INLINE void best_of_rows(int r, int g, Best* best) {
    int rows[kOf];
    for (std::size_t i = 0; i < kOf; ++i) rows[i] = std::min(r + 4 * static_cast<int>(i), rows_ - 1);
    int at = g * group_places_;
    const int end = at + group_places_;
    if (group_places_ % (2 * kLanes) != 0) {
      F16 x[kOf];
      values_at<kValue, kOf, 1>(rows, at, x);
      for (std::size_t i = 0; i < kOf; ++i) best[i] = Best::of(number(x[i]), set(-HUGE_VALF));
      at += kLanes;
    } else {
      F16 x[2 * kOf];
      values_at<kValue, kOf, 2>(rows, at, x);
      for (std::size_t i = 0; i < kOf; ++i) best[i] = Best::of(number(x[2 * i]), number(x[2 * i + 1]));
      at += 2 * kLanes;
    }
    for (; at < end; at += 2 * kLanes) {
      F16 x[2 * kOf];
      values_at<kValue, kOf, 2>(rows, at, x);
      for (std::size_t i = 0; i < 2 * kOf; ++i) best[i / 2].add(number(x[i]));
    }
  }
  TOPOMOE_INLINE static F16 number(F16 x) { return most(x, set(-HUGE_VALF)); }  // a NaN the smallest
  TOPOMOE_INLINE void list_groups(const F16* worth) {
    for (int from = 0; from < multiple(groups_, kLanes); from += kLanes) {
      F16 rank[kLanes];  // how many groups are better
      for (int i = 0; i < kLanes; ++i) {
        I16 better = set(from + i < groups_ ? 0 : groups_);
        for (int g = 0; from + i < groups_ && g < groups_; ++g) {
          if (g < from + i) better = count_at_least(better, worth[g], worth[from + i]);
          if (g > from + i) better = count_above(better, worth[g], worth[from + i]);
        }
        rank[i] = as_floats(better);
      }
      turn(rank);
#pragma GCC unroll 1
      for (int r = 0; r < rows_; ++r) {
        if (from == 0) count_[r] = 0;
        count_[r] += append(list_[r] + count_[r], lanes_below(as_integers(rank[r]), set(listed_)), kIds.of + from);
      }
    }
  }

  template <std::size_t N>
  TOPOMOE_INLINE void add_exponentials(int r, int e, F16& even, F16& odd) const {
    F16 x[N];
    for (std::size_t i = 0; i < N; ++i) x[i] = subtract(load(plain(r) + e + i * kLanes), set(largest_[r]));
    exp_below(x);
    for (std::size_t i = 0; i < N; i += 2) even = add(even, x[i]), odd = add(odd, x[i + 1]);
  }
};

}  // namespace
}  // namespace topomoe::kernels
