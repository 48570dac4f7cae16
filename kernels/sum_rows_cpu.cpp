#include "kernels/sum_rows.hpp"

#include <algorithm>

#include "kernels/bf16.hpp"
#include "kernels/cpu_context.hpp"
#include "kernels/row_movers.hpp"

namespace topomoe::kernels {
namespace {

// A dot product as the GPU's warp makes it: column i is added by lane i % 32, and the lanes are folded
// in halves. Fixed by `columns` alone, and the compiler can vectorise it without reordering.
template <class T>
float dot(const T* a, const T* b, std::int64_t columns) {
  constexpr std::int64_t kLanes = 32;
  float lane[kLanes] = {};
  std::int64_t first = 0;
  for (; first + kLanes <= columns; first += kLanes) {
    for (std::int64_t i = 0; i < kLanes; ++i) lane[i] += to_float(a[first + i]) * to_float(b[first + i]);
  }
  for (std::int64_t i = 0; first + i < columns; ++i) lane[i] += to_float(a[first + i]) * to_float(b[first + i]);
  for (std::int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::int64_t i = 0; i < half; ++i) lane[i] += lane[i + half];
  }
  return lane[0];
}

}  // namespace

void sum_rows_portable(const SumRows& op, std::int64_t first, std::int64_t last, bool) {
  constexpr std::int64_t kPiece = 1024;  // columns summed at a time
  float sum[kPiece];
  with_element(op.dtype, [&]<class T>(T) {
    for (std::int64_t row = first; row < last; ++row) {
      for (std::int64_t column = 0; column < op.columns; column += kPiece) {
        const std::int64_t count = std::min(kPiece, op.columns - column);
        T* out = static_cast<T*>(op.out) + row * op.columns + column;
        for (std::int64_t i = 0; i < count; ++i) sum[i] = op.accumulate ? to_float(out[i]) : 0.0F;
        for (std::int64_t slot = row * op.k; slot < (row + 1) * op.k; ++slot) {
          if (op.position[slot] < 0) continue;
          const T* in = static_cast<const T*>(op.in) + op.position[slot] * op.columns + column;
          const float weight = op.weight == nullptr ? 1.0F : op.weight[slot];  // times 1 keeps the bits
          for (std::int64_t i = 0; i < count; ++i) sum[i] += weight * to_float(in[i]);
        }
        for (std::int64_t i = 0; i < count; ++i) out[i] = from_float<T>(sum[i]);
      }
    }
  });
}

void row_dots_portable(const RowDots& op, std::int64_t first, std::int64_t last) {
  with_element(op.dtype, [&]<class T>(T) {
    for (std::int64_t row = first; row < last; ++row) {
      const T* a = static_cast<const T*>(op.a) + row * op.columns;
      for (std::int64_t slot = row * op.k; slot < (row + 1) * op.k; ++slot) {
        const std::int32_t position = op.position[slot];
        op.out[slot] = position < 0 ? 0.0F : dot(a, static_cast<const T*>(op.b) + position * op.columns, op.columns);
      }
    }
  });
}

void sum_rows_cpu(const SumRows& op, const CpuContext& cpu) {
  const RowMovers movers = row_movers(cpu.isa);
  const bool past = written_past_caches(op.out, op.rows, op.columns * static_cast<std::int64_t>(size_of(op.dtype)));
  share(cpu, op.rows, (op.k + 1) * op.columns * movers.element,
        [&](std::int64_t first, std::int64_t last) { movers.sum(op, first, last, past); });
}

void row_dots_cpu(const RowDots& op, const CpuContext& cpu) {
  const RowMovers movers = row_movers(cpu.isa);
  share(cpu, op.rows, op.k * op.columns * movers.element,
        [&](std::int64_t first, std::int64_t last) { movers.dots(op, first, last); });
}

}  // namespace topomoe::kernels
