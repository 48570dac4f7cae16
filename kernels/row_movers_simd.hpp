// The row movers over F16 and Pair of simd_*.hpp, which is included first. Rows come from memory in an order that no
// hardware guesses, so that their first lines are fetched some kilobytes ahead, across the ends of rows.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "kernels/row_movers.hpp"

namespace topomoe::kernels {
namespace {

constexpr std::int64_t kPairColumns = 32, kLine = 64;
constexpr std::int64_t kFetched = 512;  // bytes at a time
// Twice what a core of ours receives while memory answers once (100 ns at 12 GB/s is 1.2 KB), in whole fetches;
// measured from 2 to 16 KiB: fewer bytes starve sums of two rows, more cost sums of eight a tenth.
constexpr std::int64_t kAheadBytes = 3072;

// Of Progress: a part of a quarter of a millisecond at 4 GB/s, since each begins by waiting for memory and ends by
// waiting for what it wrote (measured: parts a quarter as long cost combine some percent).
constexpr std::int64_t kElement = 4;

TOPOMOE_INLINE void fetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

// Walks the rows that a map names, a fetch at a time.
class Ahead {
 public:
  TOPOMOE_INLINE Ahead(const void* in, const std::int32_t* map, std::int64_t first, std::int64_t last,
                       std::int64_t row_bytes)
      : in_(static_cast<const std::byte*>(in)), map_(map), row_(first - 1), last_(last), row_bytes_(row_bytes) {
    next();
    for (std::int64_t i = 0; i < kAheadBytes; i += kFetched) step();
  }
  TOPOMOE_INLINE void step() {
    if (row_ >= last_) return;
    const std::int64_t count = std::min(kFetched, left_);
    for (std::int64_t i = 0; i < count; i += kLine) fetch(at_ + i);
    at_ += count, left_ -= count;
    if (left_ <= 0) next();
  }

 private:
  TOPOMOE_INLINE void next() {
    do ++row_;
    while (row_ < last_ && map_[row_] < 0);
    if (row_ < last_) at_ = in_ + map_[row_] * row_bytes_, left_ = row_bytes_;
  }
  const std::byte* in_;
  const std::int32_t* map_;
  std::int64_t row_, last_, row_bytes_, left_ = 0;
  const std::byte* at_ = nullptr;
};

template <bool kPast>
TOPOMOE_INLINE void copy_row(std::byte* out, const std::byte* in, std::int64_t bytes, Ahead& ahead) {
  std::int64_t i = 0;
  for (; i + kFetched <= bytes; i += kFetched) {
    ahead.step();
    for (std::int64_t line = 0; line < kFetched; line += kLine) copy_line<kPast>(out + i + line, in + i + line);
  }
  if (i == bytes) return;
  ahead.step();
  for (; i + kLine <= bytes; i += kLine) copy_line<kPast>(out + i, in + i);
  std::memcpy(out + i, in + i, static_cast<std::size_t>(bytes - i));
}

template <class T, bool kPast>
TOPOMOE_INLINE void scale_row(T* out, const T* in, float scale, std::int64_t columns, Ahead& ahead) {
  constexpr std::int64_t kStep = kFetched / static_cast<std::int64_t>(sizeof(T));
  const F16 factor = set(scale);
  for (std::int64_t i = 0; i < columns;) {
    ahead.step();
    const std::int64_t end = std::min(columns, i + kStep);
    for (; i + kPairColumns <= end; i += kPairColumns) {
      const Pair x = load_pair(in + i);
      store_pair<kPast>(out + i, {multiply(factor, x.first), multiply(factor, x.second)});
    }
    for (; i < end; ++i) out[i] = from_float<T>(scale * to_float(in[i]));
  }
}

template <class T, bool kPast>
TOPOMOE_SIMD void gather(const GatherRows& op, std::int64_t first, std::int64_t last) {
  const std::int64_t row_bytes = op.columns * static_cast<std::int64_t>(sizeof(T));
  Ahead ahead(op.in, op.source_row, first, row_bytes > 0 ? last : first, row_bytes);
  for (std::int64_t row = first; row < last; ++row) {
    T* out = static_cast<T*>(op.out) + row * op.columns;
    const std::int32_t source = op.source_row[row];
    if (source < 0) {
      std::memset(static_cast<void*>(out), 0, static_cast<std::size_t>(row_bytes));
      continue;
    }
    const T* in = static_cast<const T*>(op.in) + source * op.columns;
    if (op.scale == nullptr)
      copy_row<kPast>(reinterpret_cast<std::byte*>(out), reinterpret_cast<const std::byte*>(in), row_bytes, ahead);
    else
      scale_row<T, kPast>(out, in, op.scale[row], op.columns, ahead);
  }
  if (kPast) _mm_sfence();
}

// Columns c.. of a row: kPairs pairs of them, each the sum over slots in slot order.
template <class T, bool kPast, int kPairs>
TOPOMOE_INLINE void sum_columns(const SumRows& op, T* out, std::int64_t first_slot, std::int64_t c) {
  Pair sum[static_cast<std::size_t>(kPairs)];
  for (int i = 0; i < kPairs; ++i)
    sum[i] = op.accumulate ? load_pair(out + c + i * kPairColumns) : Pair{set(0.0F), set(0.0F)};
  for (std::int64_t slot = first_slot; slot < first_slot + op.k; ++slot) {
    const std::int32_t position = op.position[slot];
    if (position < 0) continue;
    const T* in = static_cast<const T*>(op.in) + position * op.columns + c;
    const F16 weight = set(op.weight == nullptr ? 1.0F : op.weight[slot]);
    for (int i = 0; i < kPairs; ++i) {
      const Pair x = load_pair(in + i * kPairColumns);
      sum[i] = {add(sum[i].first, multiply(weight, x.first)), add(sum[i].second, multiply(weight, x.second))};
    }
  }
  for (int i = 0; i < kPairs; ++i) store_pair<kPast>(out + c + i * kPairColumns, sum[i]);
}

// The same of one column.
template <class T>
TOPOMOE_INLINE T sum_column(const SumRows& op, const T* out, std::int64_t first_slot, std::int64_t c) {
  float sum = op.accumulate ? to_float(out[c]) : 0.0F;
  for (std::int64_t slot = first_slot; slot < first_slot + op.k; ++slot) {
    if (op.position[slot] < 0) continue;
    const float weight = op.weight == nullptr ? 1.0F : op.weight[slot];
    sum += weight * to_float(static_cast<const T*>(op.in)[op.position[slot] * op.columns + c]);
  }
  return from_float<T>(sum);
}

template <class T, bool kPast>
TOPOMOE_SIMD void sum(const SumRows& op, std::int64_t first, std::int64_t last) {
  constexpr std::int64_t kStep = kPairsAtOnce * kPairColumns, kStepBytes = kStep * static_cast<std::int64_t>(sizeof(T));
  // Of each of k rows at once, in steps; the walk goes from the end of a row's to the beginning of the next row's.
  const std::int64_t steps = kAheadBytes / (kStepBytes * std::max(1, op.k)) + 1;
  std::int64_t row_ahead = first, column_ahead = steps * kStep;
  for (std::int64_t row = first; row < last; ++row) {
    T* out = static_cast<T*>(op.out) + row * op.columns;
    const std::int64_t slots = row * op.k;
    std::int64_t c = 0;
    for (; c + kStep <= op.columns; c += kStep, column_ahead += kStep) {
      while (column_ahead + kStep > op.columns && row_ahead < last)
        column_ahead -= op.columns / kStep * kStep, ++row_ahead;
      if (row_ahead < last) {
        for (std::int64_t slot = row_ahead * op.k; slot < (row_ahead + 1) * op.k; ++slot) {
          if (op.position[slot] < 0) continue;
          const T* next = static_cast<const T*>(op.in) + op.position[slot] * op.columns + column_ahead;
          for (std::int64_t i = 0; i < kStepBytes; i += kLine) fetch(reinterpret_cast<const std::byte*>(next) + i);
        }
      }
      sum_columns<T, kPast, kPairsAtOnce>(op, out, slots, c);
    }
    for (; c + kPairColumns <= op.columns; c += kPairColumns) sum_columns<T, kPast, 1>(op, out, slots, c);
    for (; c < op.columns; ++c) out[c] = sum_column(op, out, slots, c);
  }
  if (kPast) _mm_sfence();
}

template <class T>
struct LaneOrder;  // where Pair keeps element i
template <>
struct LaneOrder<float> {
  TOPOMOE_INLINE static int at(int element) { return element; }
};
template <>
struct LaneOrder<Bf16> {
  TOPOMOE_INLINE static int at(int element) { return element / 2 + element % 2 * 16; }
};

// sum_rows_cpu.cpp's dot.
template <class T>
TOPOMOE_INLINE float dot(const T* a, const T* b, std::int64_t columns, Ahead& ahead) {
  constexpr std::int64_t kStep = kFetched / static_cast<std::int64_t>(sizeof(T));
  Pair sum{set(0.0F), set(0.0F)};
  std::int64_t i = 0;
  while (i + kPairColumns <= columns) {
    ahead.step();
    for (const std::int64_t end = std::min(columns, i + kStep); i + kPairColumns <= end; i += kPairColumns) {
      const Pair x = load_pair(a + i), y = load_pair(b + i);
      sum = {add(sum.first, multiply(x.first, y.first)), add(sum.second, multiply(x.second, y.second))};
    }
  }
  float kept[32], lane[32];
  store(kept, sum.first);
  store(kept + 16, sum.second);
  for (int l = 0; l < 32; ++l) lane[l] = kept[LaneOrder<T>::at(l)];
  for (int l = 0; i < columns; ++i, ++l) lane[l] += to_float(a[i]) * to_float(b[i]);
  for (int half = 16; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) lane[l] += lane[l + half];
  return lane[0];
}

template <class T>
TOPOMOE_SIMD void dots(const RowDots& op, std::int64_t first, std::int64_t last) {
  const std::int64_t row_bytes = op.columns * static_cast<std::int64_t>(sizeof(T));
  Ahead ahead(op.b, op.position, first * op.k, row_bytes > 0 ? last * op.k : first * op.k, row_bytes);
  for (std::int64_t row = first; row < last; ++row)
    for (std::int64_t slot = row * op.k; slot < (row + 1) * op.k; ++slot) {
      const std::int32_t position = op.position[slot];
      op.out[slot] = position < 0 ? 0.0F
                                  : dot(static_cast<const T*>(op.a) + row * op.columns,
                                        static_cast<const T*>(op.b) + position * op.columns, op.columns, ahead);
    }
}

template <class T, bool kPast>
TOPOMOE_SIMD void ordered_sum(const OrderedSum& op, std::int64_t first, std::int64_t last) {
  const std::int64_t count = op.rows * op.columns;
  const T* in = static_cast<const T*>(op.in);
  T* out = static_cast<T*>(op.out);
  std::int64_t i = first;
  for (; i + kPairColumns <= last; i += kPairColumns) {
    Pair sum = op.blocks > 0 ? load_pair(in + i) : Pair{set(0.0F), set(0.0F)};
    for (int block = 1; block < op.blocks; ++block) {
      const Pair x = load_pair(in + block * count + i);
      sum = {add(sum.first, x.first), add(sum.second, x.second)};
    }
    store_pair<kPast>(out + i, sum);
  }
  for (; i < last; ++i) {
    float sum = op.blocks > 0 ? to_float(in[i]) : 0.0F;
    for (int block = 1; block < op.blocks; ++block) sum += to_float(in[block * count + i]);
    out[i] = from_float<T>(sum);
  }
  if (kPast) _mm_sfence();
}

template <class T>
void gather_of(const GatherRows& op, std::int64_t first, std::int64_t last, bool past) {
  past ? gather<T, true>(op, first, last) : gather<T, false>(op, first, last);
}
template <class T>
void sum_of(const SumRows& op, std::int64_t first, std::int64_t last, bool past) {
  past ? sum<T, true>(op, first, last) : sum<T, false>(op, first, last);
}
template <class T>
void ordered_sum_of(const OrderedSum& op, std::int64_t first, std::int64_t last, bool past) {
  past ? ordered_sum<T, true>(op, first, last) : ordered_sum<T, false>(op, first, last);
}

RowMovers simd_row_movers() {
  return {[](const GatherRows& op, std::int64_t first, std::int64_t last, bool past) {
            op.dtype == DType::f32 ? gather_of<float>(op, first, last, past) : gather_of<Bf16>(op, first, last, past);
          },
          [](const SumRows& op, std::int64_t first, std::int64_t last, bool past) {
            op.dtype == DType::f32 ? sum_of<float>(op, first, last, past) : sum_of<Bf16>(op, first, last, past);
          },
          [](const RowDots& op, std::int64_t first, std::int64_t last) {
            op.dtype == DType::f32 ? dots<float>(op, first, last) : dots<Bf16>(op, first, last);
          },
          [](const OrderedSum& op, std::int64_t first, std::int64_t last, bool past) {
            op.dtype == DType::f32 ? ordered_sum_of<float>(op, first, last, past)
                                   : ordered_sum_of<Bf16>(op, first, last, past);
          },
          kElement};
}

}  // namespace
}  // namespace topomoe::kernels
