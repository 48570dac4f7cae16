// The rows of a product as the panel kernels read them: blocks of 32 rows, cut along k like the packed weights.
//
//   [slices][blocks of 32 rows][steps][32 rows][32 k], k padded with zeros
//
// A slice of all rows lies together, and so does what one kernel call reads: rows as tensors have them lie a power of
// two apart, which puts all of a block into a few sets of the caches. Beyond a tensor's last row a block holds
// anything.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/packed_matrix.hpp"

namespace topomoe::kernels {

constexpr std::int64_t kBlockRows = 32;

inline std::int64_t blocks_of(std::int64_t rows) { return (rows + kBlockRows - 1) / kBlockRows; }

// Of one block, all its slices; `shape` is that of the weights.
inline std::size_t packed_block_bytes(const PackedShape& shape) {
  return static_cast<std::size_t>(shape.steps() * kBlockRows * kStepDepth) * size_of(shape.dtype);
}

// Where a block's step lies, in a tensor of so many blocks.
inline std::size_t packed_rows_offset(const PackedShape& shape, std::int64_t blocks, std::int64_t block,
                                      std::int64_t step) {
  const std::int64_t slice = step / kSliceSteps;
  const std::int64_t before = blocks * slice * kSliceSteps + block * shape.steps_of_slice(slice) + step % kSliceSteps;
  return static_cast<std::size_t>(before * kBlockRows * kStepDepth) * size_of(shape.dtype);
}

// Fills the block that begins with row `row` of `rows`: `from` is that row, [.., k].
void pack_rows(const PackedShape& shape, std::byte* to, std::int64_t rows, std::int64_t row, const void* from);

}  // namespace topomoe::kernels
