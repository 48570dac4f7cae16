#include "kernels/packed_rows.hpp"

#include <algorithm>
#include <cstring>

#include "kernels/bf16.hpp"

namespace topomoe::kernels {
namespace {

template <class T>
void pack(const PackedShape& shape, std::byte* to, std::int64_t rows, std::int64_t row, const T* from) {
  constexpr std::size_t kLine = kStepDepth * sizeof(T);
  // A row is a stream of its own, too many of them for the CPU to see all: two steps ahead of use.
  constexpr std::int64_t kAhead = 2 * kStepDepth;
  const std::int64_t blocks = blocks_of(rows), block = row / kBlockRows, count = std::min(kBlockRows, rows - row);
  const std::int64_t whole = shape.k / kStepDepth;
  for (std::int64_t step = 0; step < shape.steps(); ++step) {
    T* out = reinterpret_cast<T*>(to + packed_rows_offset(shape, blocks, block, step));
    const T* in = from + step * kStepDepth;
    if (step < whole) {
      for (std::int64_t r = 0; r < count; ++r, in += shape.k, out += kStepDepth) {
        __builtin_prefetch(in + kAhead);  // beyond the end nothing happens
        std::memcpy(out, in, kLine);
      }
    } else {
      const std::int64_t inside = shape.k - step * kStepDepth;
      for (std::int64_t r = 0; r < count; ++r, in += shape.k, out += kStepDepth)
        std::fill(std::copy_n(in, inside, out), out + kStepDepth, T{});
    }
  }
}

}  // namespace

void pack_rows(const PackedShape& shape, std::byte* to, std::int64_t rows, std::int64_t row, const void* from) {
  with_element(shape.dtype, [&]<class T>(T) { pack(shape, to, rows, row, static_cast<const T*>(from)); });
}

}  // namespace topomoe::kernels
