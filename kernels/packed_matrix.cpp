#include "kernels/packed_matrix.hpp"

#include <algorithm>
#include <cstring>

#include "kernels/bf16.hpp"

namespace topomoe::kernels {
namespace {

constexpr std::int64_t kHalf = kPanelColumns / 2;

// Columns first, first + 1, ... of w, `columns` of them, `depth` deep: into one half of a step's columns.
template <class T>
void pack_half(const PackedShape& s, T* step, std::int64_t half, const T* w, std::int64_t columns, std::int64_t depth,
               std::int64_t column_stride, std::int64_t depth_stride) {
  for (std::int64_t c = 0; c < columns; ++c) {
    const T* from = w + c * column_stride;
    if (s.order == PackedOrder::bf16_pairs) {
      T* to = step + half * kHalf * kStepDepth + 2 * c;
      for (std::int64_t d = 0; d < depth; ++d) to[(d / 2) * 2 * kHalf + d % 2] = from[d * depth_stride];
    } else {
      T* to = step + half * kHalf + c;
      for (std::int64_t d = 0; d < depth; ++d) to[d * kPanelColumns] = from[d * depth_stride];
    }
  }
}

template <class T>
void pack(const PackedShape& s, std::byte* to, const T* first, const T* second, std::int64_t column_stride,
          std::int64_t depth_stride) {
  const std::int64_t of_each = s.interleaved ? s.n / 2 : s.n;
  for (std::int64_t group = 0; group < s.groups(); ++group)
    for (std::int64_t slice = 0; slice < s.slices(); ++slice)
      for (std::int64_t p = 0; p < s.panels_of_group(group); ++p) {
        T* step = reinterpret_cast<T*>(to + s.offset(group, slice, p));
        const std::int64_t panel = group * kGroupPanels + p;
        for (std::int64_t i = 0; i < s.steps_of_slice(slice); ++i, step += kPanelColumns * kStepDepth) {
          const std::int64_t k = (slice * kSliceSteps + i) * kStepDepth, depth = std::min(kStepDepth, s.k - k);
          const std::int64_t column = panel * (s.interleaved ? kHalf : kPanelColumns);
          if (depth < kStepDepth || column + (s.interleaved ? kHalf : kPanelColumns) > of_each)
            std::memset(step, 0, s.step_bytes());
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

std::int64_t PackedShape::panels_of_group(std::int64_t group) const {
  return std::min(kGroupPanels, panels() - group * kGroupPanels);
}

std::size_t PackedShape::offset(std::int64_t group, std::int64_t slice, std::int64_t panel_of_group) const {
  const std::int64_t before = group * kGroupPanels * steps() + slice * kSliceSteps * panels_of_group(group) +
                              panel_of_group * steps_of_slice(slice);
  return static_cast<std::size_t>(before) * step_bytes();
}

PackedOrder packed_order(CpuIsa isa, DType dtype) {
  return dtype == DType::bf16 && isa >= CpuIsa::avx512_bf16 ? PackedOrder::bf16_pairs : PackedOrder::rows;
}

void pack_matrix(const PackedShape& shape, std::byte* to, const void* first, const void* second,
                 std::int64_t column_stride, std::int64_t depth_stride) {
  with_element(shape.dtype, [&]<class T>(T) {
    pack(shape, to, static_cast<const T*>(first), static_cast<const T*>(second), column_stride, depth_stride);
  });
}

}  // namespace topomoe::kernels
