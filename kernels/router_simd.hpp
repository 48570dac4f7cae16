// The router over F16 of simd_*.hpp, which is included first.
//
// Choosing k of a row's values: the k-th largest of the 16 lanes' own largest is a bound that k values reach, and few
// more (of 256 about 11 of k = 8). Those are collected in order of their experts, and each is placed by how many beat
// it. More than 16 (where values are equal) are inserted one after the other. Without bias and groups the larger logit
// has the larger score, but for rounding: candidates are collected by logits, a little below the bound too, and only
// theirs and the sum of a softmax are worked out. Rows are taken some at a time, stage by stage: what one row waits
// for, the others fill. A row of anything unusual (NaN, scores that underflow or saturate) goes the portable way.
#pragma once

#include <algorithm>
#include <cstddef>

#include "kernels/exp.hpp"
#include "kernels/router_logits.hpp"
#include "kernels/router_rows.hpp"

namespace topomoe::kernels {
namespace {

constexpr int kLanes = 16;
constexpr int kCandidates = 16;  // that are placed at once

// exp_inside of N times 16, step by step for all of them: no addition waits for the one before.
template <std::size_t N>
TOPOMOE_INLINE void exp_inside(F16 (&x)[N]) {
  F16 n[N], power[N], p[N];
  for (std::size_t i = 0; i < N; ++i) power[i] = add(multiply(x[i], set(1.44269504F)), set(12583039.0F));
  for (std::size_t i = 0; i < N; ++i) n[i] = subtract(power[i], set(12583039.0F));
  for (std::size_t i = 0; i < N; ++i) x[i] = subtract(x[i], multiply(n[i], set(0.693359375F)));
  for (std::size_t i = 0; i < N; ++i) x[i] = subtract(x[i], multiply(n[i], set(-2.12194440e-4F)));
  for (std::size_t i = 0; i < N; ++i) p[i] = set(0.00836657499F);
  for (const float next : {0.0418994761F, 0.166665428F, 0.499991348F, 1.0F, 1.0F}) {
    for (std::size_t i = 0; i < N; ++i) p[i] = multiply(p[i], x[i]);
    for (std::size_t i = 0; i < N; ++i) p[i] = add(p[i], set(next));
  }
  for (std::size_t i = 0; i < N; ++i) x[i] = multiply(p[i], power_of(power[i]));
}
// least and most hand on a NaN that comes second.
template <std::size_t N>
TOPOMOE_INLINE void exp_below(F16 (&x)[N]) {
  for (std::size_t i = 0; i < N; ++i) x[i] = most(set(-88.0F), x[i]);
  exp_inside(x);
}
template <std::size_t N>
TOPOMOE_INLINE void sigmoid_of(F16 (&x)[N]) {
  for (std::size_t i = 0; i < N; ++i) x[i] = least(set(87.0F), most(set(-87.0F), negative(x[i])));
  exp_inside(x);
  for (std::size_t i = 0; i < N; ++i) x[i] = divide(set(1.0F), add(set(1.0F), x[i]));
}

// Keeps the compiler from taking lanes out of a register one by one, which takes longer than reading them back.
template <class T>
TOPOMOE_INLINE void in_memory(T& x) {
  asm("" : "+m"(x));
}

// The k-th largest of 16.
TOPOMOE_INLINE float kth_largest(F16 lanes, int k) {
  alignas(64) std::int32_t lane[kLanes];
  const I16 all = ordered(lanes);
  store(lane, all);
  in_memory(lane);
  I16 larger = none();
  for (const std::int32_t& one : lane) larger = count_above(larger, &one, all);
  return least_of(choose_lanes(lanes_below(larger, k), lanes, set(HUGE_VALF)));
}

// 1 from the 16th on.
alignas(64) constexpr std::int32_t kLater[2 * kCandidates] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                                              1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

// The best of `count` values, at most 16, in order of their experts. chosen has room for 16.
TOPOMOE_INLINE void place(F16 values, const std::int32_t* candidates, int count, std::int32_t* chosen) {
  alignas(64) std::int32_t value[kCandidates], rank[kCandidates];
  const I16 all = ordered(values);
  store(value, all);
  in_memory(value);
  I16 better = none();
  // Later ones are one less: of equal ones the earlier is better. What fills up to 16 is -infinity and comes last.
  for (int i = 0; i < kCandidates; ++i)
    better = count_above(better, value + i, subtract(all, load(kLater + kCandidates - 1 - i)));
  store(rank, better);
  in_memory(rank);
  for (int i = 0; i < kCandidates; ++i) chosen[rank[i]] = i < count ? candidates[i] : 0;
}

constexpr int padded_to_vectors(int experts) { return (experts + 2 * kLanes - 1) / (2 * kLanes) * (2 * kLanes); }

constexpr int kRowsAtOnce = 8;
constexpr int kStride = kMaxExperts + kLanes;  // rows a power of two apart would share a few lines of a cache

struct Ids {
  std::int32_t of[kMaxExperts];
  constexpr Ids() : of() {
    for (int i = 0; i < kMaxExperts; ++i) of[i] = i;
  }
};
constexpr Ids kIds;

// Stages of a few rows.
class RowStages {
 public:
  TOPOMOE_INLINE explicit RowStages(const Router& op)
      : op_(op),
        experts_(op.experts),
        padded_(padded_to_vectors(op.experts)),
        limited_(op.options.topk_groups < op.options.groups),
        sigmoid_(op.options.scoring == Scoring::sigmoid),
        by_logits_(!limited_ && op.bias == nullptr) {
    std::fill_n(bias_, padded_, 0.0F);
    if (op.bias != nullptr) std::copy_n(op.bias, experts_, bias_);
    for (float(&row)[kStride] : copy_) std::fill(row + experts_, row + padded_, -HUGE_VALF);
  }

  TOPOMOE_INLINE void route(std::int64_t first, int rows) {
    for (int r = 0; r < rows; ++r) {
      const float* logits = op_.logits + (first + r) * experts_;
      // Padded where vectors would reach into the next row: with -infinity, which adds 0 to a sum.
      if (padded_ != experts_) logits = std::copy_n(logits, experts_, copy_[r]) - experts_;
      logits_[r] = values_[r] = logits;
      factor_[r] = 1.0F;
      lanes_[r] = largest_lanes(logits);
      largest_[r] = largest_of(lanes_[r]);
    }
    if (by_logits_) {
      for (int r = 0; !sigmoid_ && r < rows; ++r) factor_[r] = 1.0F / sum_of_exponentials(r);
    } else {
      for (int r = 0; r < rows; ++r) score_all(r);
      for (int r = 0; limited_ && r < rows; ++r) rule_out(r);
    }
    for (int r = 0; r < rows; ++r) bound_[r] = kth_largest(lanes_[r], op_.k);
    for (int r = 0; r < rows; ++r) collect(r);
    for (int r = 0; r < rows; ++r) choose(r);
    for (int r = 0; r < rows; ++r) weigh(r);
    for (int r = 0; r < rows; ++r) divisor_[r] = divisor(r);
    for (int r = 0; r < rows; ++r) {
      if (unusual_[r])
        route_rows_portable(op_, first + r, first + r + 1);
      else
        finish(r, first + r);
    }
  }

 private:
  TOPOMOE_INLINE F16 largest_lanes(const float* values) const {  // a NaN is none
    F16 even = set(-HUGE_VALF), odd = even;
    for (int e = 0; e < padded_; e += 2 * kLanes)
      even = most(load(values + e), even), odd = most(load(values + e + kLanes), odd);
    return most(even, odd);
  }
  // Two vectors, or more where registers hold them, from expert e on.
  template <std::size_t N>
  TOPOMOE_INLINE void exponentials(const float* logits, F16 row_largest, F16 (&x)[N]) const {
    for (std::size_t i = 0; i < N; ++i) x[i] = subtract(load(logits + i * kLanes), row_largest);
    exp_below(x);
  }
  TOPOMOE_INLINE float sum_of_exponentials(int r) const {
    const F16 row_largest = set(largest_[r]);
    F16 even = set(0.0F), odd = set(0.0F);
    int e = 0;
    for (; e + kPairsAtOnce * kLanes <= padded_; e += kPairsAtOnce * kLanes) {
      F16 x[static_cast<std::size_t>(kPairsAtOnce)];
      exponentials(logits_[r] + e, row_largest, x);
      for (int i = 0; i < kPairsAtOnce; i += 2) even = add(even, x[i]), odd = add(odd, x[i + 1]);
    }
    for (; e < padded_; e += 2 * kLanes) {
      F16 x[2];
      exponentials(logits_[r] + e, row_largest, x);
      even = add(even, x[0]), odd = add(odd, x[1]);
    }
    return folded(add(even, odd));
  }
  // Scores of 16 logits.
  TOPOMOE_INLINE F16 scored(int r, F16 logits) const {
    if (sigmoid_) {
      F16 x[1] = {logits};
      sigmoid_of(x);
      return x[0];
    }
    F16 x[1] = {subtract(logits, set(largest_[r]))};
    exp_below(x);
    return multiply(x[0], set(factor_[r]));
  }
  float scored_alone(float logit, int r) const {
    return sigmoid_ ? kernels::sigmoid_of(logit) : kernels::exp_below(logit - largest_[r]) * factor_[r];
  }
  // What is chosen by where that is no logit: scores with bias, a NaN the smallest value.
  TOPOMOE_INLINE void score_all(int r) {
    if (!sigmoid_) factor_[r] = 1.0F / sum_of_exponentials(r);
    const F16 least_value = set(-HUGE_VALF);
    F16 lanes = least_value;
    for (int e = 0; e < padded_; e += kLanes) {
      F16 x = scored(r, load(logits_[r] + e));
      store(scores_[r] + e, x);
      if (op_.bias != nullptr) x = add(x, load(bias_ + e));
      x = most(x, least_value);
      if (e + kLanes > experts_) x = choose_lanes((1U << std::max(0, experts_ - e)) - 1, x, least_value);
      store(biased_[r] + e, x);
      lanes = most(lanes, x);
    }
    lanes_[r] = lanes;
    values_[r] = biased_[r];
  }
  TOPOMOE_INLINE void rule_out(int r) {
    const int of_group = experts_ / op_.options.groups;
    bool groups[kMaxExperts];
    choose_groups(op_, biased_[r], groups);
    for (int g = 0; g < op_.options.groups; ++g)
      if (!groups[g]) std::fill_n(biased_[r] + g * of_group, of_group, -HUGE_VALF);
    lanes_[r] = largest_lanes(biased_[r]);
  }
  TOPOMOE_INLINE void collect(int r) {
    // By logits: scores are 10 times as exact as 1e-4 tells logits apart, up to a sigmoid of 5 and where scores are
    // normal numbers. The bound is above what is ruled out and what rows are padded with.
    const float bound = by_logits_ ? bound_[r] - 1e-4F : bound_[r];
    bool usual = bound > -HUGE_VALF;
    if (by_logits_)
      usual = sigmoid_ ? bound > -65.0F && bound < 5.0F : bound - largest_[r] > -65.0F && factor_[r] > 0.0F;
    int count = 0;
    for (int e = 0; e < padded_; e += kLanes)
      count += append(candidates_[r] + count, at_least(load(values_[r] + e), set(bound)), kIds.of + e);
    count_[r] = count;
    unusual_[r] = !usual || count < op_.k;
  }
  TOPOMOE_INLINE void choose(int r) {
    if (unusual_[r]) {
      std::fill_n(chosen_[r], op_.k, 0);
    } else if (count_[r] > kCandidates) {
      insert_all(r);
    } else {
      const unsigned there = (1U << count_[r]) - 1;
      F16 values = gathered(values_[r], candidates_[r], there, set(-HUGE_VALF));
      if (by_logits_) values = choose_lanes(there, scored(r, values), set(-HUGE_VALF));
      place(values, candidates_[r], count_[r], chosen_[r]);
    }
  }
  void insert_all(int r) {
    float held[kMaxTopK];
    int holds = 0;
    for (int i = 0; i < count_[r]; ++i) {
      const std::int32_t e = candidates_[r][i];
      const float value = by_logits_ ? scored_alone(logits_[r][e], r) : biased_[r][e];
      if (holds == op_.k && !(value > held[op_.k - 1])) continue;
      int at = holds < op_.k ? holds++ : op_.k - 1;
      for (; at > 0 && value > held[at - 1]; --at) chosen_[r][at] = chosen_[r][at - 1], held[at] = held[at - 1];
      chosen_[r][at] = e, held[at] = value;
    }
  }
  TOPOMOE_INLINE void weigh(int r) {
    const float* from = by_logits_ ? logits_[r] : scores_[r];
    const F16 x = gathered(from, chosen_[r], (1U << op_.k) - 1, set(0.0F));
    store(weights_[r], by_logits_ ? scored(r, x) : x);
  }
  TOPOMOE_INLINE float divisor(int r) const {
    float sum = 0.0F;
    for (int slot = 0; slot < op_.k; ++slot) sum += weights_[r][slot];
    if (!op_.renormalize) return 1.0F;
    return sigmoid_ ? sum + kLeastSigmoidSum : sum;
  }
  TOPOMOE_INLINE void finish(int r, std::int64_t row) const {
    const F16 weight = multiply(set(op_.options.scale), divide(load(weights_[r]), set(divisor_[r])));
    store_first(op_.weights + row * op_.k, weight, op_.k);
    std::copy_n(chosen_[r], op_.k, op_.ids + row * op_.k);
  }

  const Router& op_;
  const int experts_, padded_;
  const bool limited_, sigmoid_, by_logits_;
  const float *logits_[kRowsAtOnce], *values_[kRowsAtOnce];
  float largest_[kRowsAtOnce], factor_[kRowsAtOnce], bound_[kRowsAtOnce], divisor_[kRowsAtOnce];
  bool unusual_[kRowsAtOnce];
  int count_[kRowsAtOnce];
  F16 lanes_[kRowsAtOnce];
  alignas(64) std::int32_t candidates_[kRowsAtOnce][kStride], chosen_[kRowsAtOnce][kLanes];
  alignas(64) float weights_[kRowsAtOnce][kLanes], bias_[kMaxExperts], copy_[kRowsAtOnce][kStride],
      scores_[kRowsAtOnce][kStride], biased_[kRowsAtOnce][kStride];
};

TOPOMOE_SIMD void route_simd(const Router& op, std::int64_t first, std::int64_t last) {
  RowStages stages(op);
  for (std::int64_t row = first; row < last; row += kRowsAtOnce)
    stages.route(row, static_cast<int>(std::min<std::int64_t>(kRowsAtOnce, last - row)));
}

template <int kRows>
TOPOMOE_INLINE void add_rows(const LogitBlock& b, std::int64_t row) {
  alignas(64) float kept[static_cast<std::size_t>(kRows)][kLogitColumns] = {};
  if (!b.first)
    for (int r = 0; r < kRows; ++r) std::copy_n(b.logits + (row + r) * b.experts, b.wanted, kept[r]);
  F16 sum[static_cast<std::size_t>(kRows)];
  for (int r = 0; r < kRows; ++r) sum[r] = load(kept[r]);
  const float* rows = b.rows + row * kLogitDepth;
  for (std::int64_t d = 0; d < b.depth; ++d) {
    const F16 column = load(b.columns + d * kLogitColumns);
    for (int r = 0; r < kRows; ++r) sum[r] = add(sum[r], multiply(set(rows[r * kLogitDepth + d]), column));
  }
  for (int r = 0; r < kRows; ++r) {
    store(kept[r], sum[r]);
    std::copy_n(kept[r], b.wanted, b.logits + (row + r) * b.experts);
  }
}

TOPOMOE_SIMD void add_logits_simd(const LogitBlock& b) {
  constexpr int kRows = 2 * kPairsAtOnce;  // sums that registers hold, and enough to hide what an addition takes
  std::int64_t row = 0;
  for (; row + kRows <= b.count; row += kRows) add_rows<kRows>(b, row);
  for (; row < b.count; ++row) add_rows<1>(b, row);
}

}  // namespace
}  // namespace topomoe::kernels
