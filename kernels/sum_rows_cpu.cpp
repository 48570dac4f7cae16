#include "kernels/sum_rows.hpp"

#include <algorithm>
#include <vector>

#include "kernels/bf16.hpp"
#include "kernels/progress.hpp"

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

void sum_rows_cpu(const SumRows& op, const ProgressHook& hook) {
  Progress progress(hook);
  std::vector<float> sum(static_cast<std::size_t>(op.columns));
  with_element(op.dtype, [&]<class T>(T) {
    for (std::int64_t row = 0; row < op.rows; ++row) {
      T* out = static_cast<T*>(op.out) + row * op.columns;
      if (op.accumulate) {
        std::transform(out, out + op.columns, sum.begin(), [](T x) { return to_float(x); });
      } else {
        std::fill(sum.begin(), sum.end(), 0.0F);
      }
      for (std::int64_t slot = row * op.k; slot < (row + 1) * op.k; ++slot) {
        if (op.position[slot] < 0) continue;
        const T* in = static_cast<const T*>(op.in) + op.position[slot] * op.columns;
        const float weight = op.weight == nullptr ? 1.0F : op.weight[slot];  // times 1 keeps the bits
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += weight * to_float(in[i]);
      }
      std::transform(sum.begin(), sum.end(), out, [](float x) { return from_float<T>(x); });
      progress.did((op.k + 1) * op.columns * Progress::kMovedElement);
    }
  });
}

void row_dots_cpu(const RowDots& op, const ProgressHook& hook) {
  Progress progress(hook);
  with_element(op.dtype, [&]<class T>(T) {
    for (std::int64_t row = 0; row < op.rows; ++row) {
      const T* a = static_cast<const T*>(op.a) + row * op.columns;
      for (std::int64_t slot = row * op.k; slot < (row + 1) * op.k; ++slot) {
        const std::int32_t position = op.position[slot];
        op.out[slot] = position < 0 ? 0.0F : dot(a, static_cast<const T*>(op.b) + position * op.columns, op.columns);
      }
      progress.did(op.k * op.columns * Progress::kMovedElement);
    }
  });
}

}  // namespace topomoe::kernels
