// The router's choice over F16 of simd_*.hpp, which is included first. Sixteen rows are taken at a time, stage by
// stage: what goes over a row's values with a lane an expert, the rest with a lane a row.
//
// Choosing k of a row's values: the k-th largest of the 16 lanes' own largest is a bound that k values reach, and few
// more (of 256 about 11 of k = 8). Those are collected in order of their experts and sorted, sixteen rows in a network.
// A row with more than 16 of them (values are equal), or with fewer than k numbers, is gone through one by one.
#pragma once

#include <algorithm>
#include <cstddef>

#include "kernels/router_values_simd.hpp"

namespace topomoe::kernels {
namespace {

// Stages of sixteen rows.
class RowStages : RowValues {
 public:
  using RowValues::fits;
  TOPOMOE_INLINE explicit RowStages(const Router& op) : RowValues(op) {}

  TOPOMOE_INLINE void route(std::int64_t first, int rows) {
    begin(first, rows);
    find_largest();
    find_bounds();
    if (softmax_ && value_ == Value::logit && !op_.renormalize) {
      for (int r = 0; r < rows; ++r) add_exponentials(r), collect(r);  // multiplications beside shuffles
      invert_sums();
    } else {
      for (int r = 0; r < rows; ++r) collect(r);
    }
    std::fill(count_ + rows, count_ + kRows, 0);
    sort_candidates();
    for (int r = 0; r < rows; ++r)
      if (!usual(r)) insert_all(r);
    weigh(first);
  }

 private:
  TOPOMOE_INLINE void find_bounds() {
    F16 x[kRows];
    for (int r = 0; r < kRows; ++r) x[r] = lanes_[r].x;
    turn(x);
    fetch(8);
    sort(x);
    fetch(8);
    store(bound_, x[op_.k - 1]);
    if (value_ == Value::logit) store(largest_, x[0]);
  }
  bool usual(int r) const { return count_[r] >= op_.k && count_[r] <= kLanes; }

  TOPOMOE_INLINE void collect(int r) {
    const float* const from = values(r);
    std::int32_t* const to = candidates_[r];
    const F16 bound = set(bound_[r]);
    const int places = group_places_, groups = bound_[r] > -HUGE_VALF ? listed_ : 0;
    int count = 0;
    for (int i = 0; i < groups; ++i) {
      const int begin = list_[r][i] * places, end = begin + places;
#pragma GCC unroll 2
      for (int at = begin; at < end; at += kLanes)
        count += append(to + count, at_least(load(from + at), bound), kIds.of + at);
    }
    count_[r] = count;
    fetch(value_ == Value::logit ? 6 : 2);
  }
  TOPOMOE_INLINE void sort_candidates() {
    const float* const from = values(0);
    const I16 rows = row_times(value_ == Value::logit ? logits_stride_ : kStride), counts = load(count_);
    F16 at[kRows];
    for (int r = 0; r < kRows; ++r) at[r] = as_floats(load(candidates_[r]));
    turn(at);
    alignas(64) std::int32_t index[kLanes];
    alignas(64) double keys[kLanes][kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const I16 position = as_integers(at[i]);
      store(index, add(rows, position));
      const F16 value = gathered(from, index, lanes_below(set(i), counts), set(-HUGE_VALF));
      store_keys(keys[i], value, position);
      fetch(4);
    }
    for (int part = 0; part < kLanes; part += kKeys) {
      Key x[kLanes];
      for (int i = 0; i < kLanes; ++i) x[i] = load_keys(keys[i] + part);
      sort(x);
      for (int i = 0; i < kLanes; ++i) store_keys(keys[i] + part, x[i]);
      fetch(8);
    }
    for (int slot = 0; slot < op_.k; ++slot) store(chosen_[slot], positions_of(keys[slot]));
  }
  void insert_all(int r) {
    float held[kMaxTopK];
    int holds = 0;
    for (int listed = 0; listed < listed_; ++listed)
      for (int i = 0; i < of_group_; ++i) {
        const int at = list_[r][listed] * group_places_ + i;
        const float value = or_least(values(r)[at]);
        if (holds == op_.k && !(value > held[op_.k - 1])) continue;
        int slot = holds < op_.k ? holds++ : op_.k - 1;
        for (; slot > 0 && value > held[slot - 1]; --slot)
          chosen_[slot][r] = chosen_[slot - 1][r], held[slot] = held[slot - 1];
        chosen_[slot][r] = at, held[slot] = value;
      }
  }

  TOPOMOE_INLINE static I16 row_times(std::int64_t stride) {
    alignas(64) std::int32_t out[kRows];
    for (int r = 0; r < kRows; ++r) out[r] = static_cast<std::int32_t>(r * stride);
    return load(out);
  }
  TOPOMOE_INLINE void weigh(std::int64_t first) {
    const unsigned live = (1U << rows_) - 1;
    const I16 rows = row_times(logits_stride_);
    alignas(64) std::int32_t index[kLanes];
    F16 x[kLanes], id[kLanes];
    F16 largest = set(-HUGE_VALF), sum = set(0.0F);
    for (int slot = 0; slot < kLanes; ++slot) x[slot] = id[slot] = set(0.0F);
    for (int slot = 0; slot < op_.k; ++slot) {
      const I16 position = load(chosen_[slot]);
      store(index, add(rows, position));
      x[slot] = gathered(logits_first_, index, live, set(0.0F));
      largest = most(x[slot], largest);  // a NaN is none
      id[slot] = as_floats(position);
      if (spread_) id[slot] = gathered(reinterpret_cast<const float*>(expert_at_), chosen_[slot], live, set(0.0F));
    }
    if (!op_.renormalize) largest = load(largest_);
    for (int slot = 0; slot < op_.k; slot += 4) {  // with some beyond k, which nobody reads
      F16 four[4];
      for (int i = 0; i < 4; ++i) four[i] = softmax_ ? subtract(x[slot + i], largest) : x[slot + i];
      softmax_ ? exp_below(four) : sigmoid_score(four);
      for (int i = 0; i < 4; ++i) x[slot + i] = four[i];
      fetch(16);
    }
    for (int slot = 0; slot < op_.k; ++slot) {
      if (softmax_ && !op_.renormalize) x[slot] = multiply(x[slot], load(inverse_));
      sum = add(sum, x[slot]);
    }
    if (!softmax_) sum = add(sum, set(kLeastSigmoidSum));
    for (int slot = 0; slot < op_.k; ++slot)
      x[slot] = multiply(set(op_.options.scale), op_.renormalize ? divide(x[slot], sum) : x[slot]);
    turn(x), turn(id);
    for (int r = 0; r < rows_; ++r) {
      store_first(op_.weights + (first + r) * op_.k, x[r], op_.k);
      store_first(op_.ids + (first + r) * op_.k, as_integers(id[r]), op_.k);
    }
  }
};

TOPOMOE_SIMD void route_simd(const Router& op, std::int64_t first, std::int64_t last) {
  if (!RowStages::fits(op)) return route_rows_portable(op, first, last);
  RowStages stages(op);
  for (std::int64_t row = first; row < last; row += kRows)
    stages.route(row, static_cast<int>(std::min<std::int64_t>(kRows, last - row)));
}

}  // namespace
}  // namespace topomoe::kernels
