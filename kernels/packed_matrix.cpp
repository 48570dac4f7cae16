#include "kernels/packed_matrix.hpp"

#include <algorithm>
#include <cstring>

#include "kernels/bf16.hpp"

namespace topomoe::kernels {
namespace {

constexpr std::int64_t kHalf = kPanelColumns / 2;

// One half of a step's columns, `columns` of them, `depth` deep. A column after the other, since those of a matrix
// whose k is a power of two share a set of the first-level cache.
template <class T>
void pack_half(const PackedShape& s, T* step, std::int64_t half, const T* w, std::int64_t columns, std::int64_t depth,
               std::int64_t column_stride, std::int64_t depth_stride) {
  const bool pairs = s.order == PackedOrder::bf16_pairs;
  T* to = step + half * (pairs ? kHalf * kStepDepth : kHalf);
  for (std::int64_t c = 0; c < columns; ++c, to += pairs ? 2 : 1) {
    const T* from = w + c * column_stride;
    if (pairs && depth == kStepDepth && depth_stride == 1)
      for (std::int64_t d = 0; d < kStepDepth; d += 2) std::memcpy(to + d * kHalf, from + d, 2 * sizeof(T));
    else if (pairs)
      for (std::int64_t d = 0; d < depth; ++d) to[(d / 2) * 2 * kHalf + d % 2] = from[d * depth_stride];
    else
      for (std::int64_t d = 0; d < depth; ++d) to[d * kPanelColumns] = from[d * depth_stride];
  }
}

template <class T>
void pack(const PackedShape& s, std::int64_t panel, std::byte* to, const T* first, const T* second,
          std::int64_t column_stride, std::int64_t depth_stride) {
  const std::int64_t of_each = s.interleaved ? s.n / 2 : s.n, width = s.interleaved ? kHalf : kPanelColumns;
  const std::int64_t column = panel * width;
  for (std::int64_t slice = 0; slice < s.slices(); ++slice) {
    T* step = reinterpret_cast<T*>(to + s.offset(panel, slice));
    for (std::int64_t i = 0; i < s.steps_of_slice(slice); ++i, step += kPanelColumns * kStepDepth) {
      const std::int64_t k = (slice * kSliceSteps + i) * kStepDepth, depth = std::min(kStepDepth, s.k - k);
      if (depth < kStepDepth || column + width > of_each) std::memset(step, 0, s.step_bytes());
      for (std::int64_t half = 0; half < 2; ++half) {
        const std::int64_t at = s.interleaved ? column : column + half * kHalf;
        const std::int64_t columns = std::min(kHalf, of_each - at);
        if (columns <= 0) continue;
        const T* w = s.interleaved && half == 1 ? second : first;
        pack_half(s, step, half, w + at * column_stride + k * depth_stride, columns, depth, column_stride,
                  depth_stride);
      }
    }
  }
}

}  // namespace

std::int64_t PackedShape::panels() const {
  const std::int64_t columns = interleaved ? kHalf : kPanelColumns, of_each = interleaved ? n / 2 : n;
  return (of_each + columns - 1) / columns;
}

std::int64_t PackedShape::steps_of_slice(std::int64_t slice) const {
  return std::min(kSliceSteps, steps() - slice * kSliceSteps);
}

std::size_t PackedShape::offset(std::int64_t panel, std::int64_t slice) const {
  const std::int64_t of_group = panel % kGroupPanels, first = panel - of_group;
  const std::int64_t before = first * steps() + slice * kSliceSteps * std::min(kGroupPanels, panels() - first) +
                              of_group * steps_of_slice(slice);
  return static_cast<std::size_t>(before) * step_bytes();
}

PackedOrder packed_order(CpuIsa isa, DType dtype) {
  return dtype == DType::bf16 && isa >= CpuIsa::avx512_bf16 ? PackedOrder::bf16_pairs : PackedOrder::rows;
}

void pack_panel(const PackedShape& shape, std::int64_t panel, std::byte* to, const void* first, const void* second,
                std::int64_t column_stride, std::int64_t depth_stride) {
  with_element(shape.dtype, [&]<class T>(T) {
    pack(shape, panel, to, static_cast<const T*>(first), static_cast<const T*>(second), column_stride, depth_stride);
  });
}

}  // namespace topomoe::kernels
