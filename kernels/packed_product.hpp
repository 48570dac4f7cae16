// Products of rows with packed weights, shared out among a pool: the one loop around the panel kernels.
//
// Several products at once, as of the experts of a rank; each is cut into pieces of one group of columns by kPieceRows
// rows, and whoever is free takes the next. While a piece runs, the rows' slice (half a MiB in bf16) and the sums (as much)
// stay in the second-level cache, a panel's slice (32 KiB) in the first, and weights come from memory once per kPieceRows
// rows, fetched ahead.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/large_memory.hpp"
#include "kernels/packed_matrix.hpp"
#include "kernels/panel_kernels.hpp"
#include "kernels/thread_pool.hpp"

namespace topomoe::kernels {

constexpr std::int64_t kPieceRows = 512;

// Rows as the kernels read them: [slices][blocks of 32 rows][steps][32 rows][32 k], k padded with zeros. So a slice of all
// rows lies together; blocks a power of two apart would share a few sets of the second-level cache.
inline std::int64_t blocks_of(std::int64_t rows) { return (rows + kBlockRows - 1) / kBlockRows; }
inline std::size_t packed_block_bytes(const PackedShape& s) {  // all slices
  return static_cast<std::size_t>(s.steps()) * kBlockRows * kStepDepth * size_of(s.dtype);
}
// Where a block's step lies, of a tensor of so many blocks.
inline std::size_t packed_rows_offset(const PackedShape& s, std::int64_t blocks, std::int64_t block, std::int64_t step) {
  const std::int64_t slice = step / kSliceSteps;
  const std::int64_t before = blocks * slice * kSliceSteps + block * s.steps_of_slice(slice) + step % kSliceSteps;
  return static_cast<std::size_t>(before) * kBlockRows * kStepDepth * size_of(s.dtype);
}
// The block that begins with row `row` of `rows`, read from [.., k] at `from`, into the tensor at `to`.
void pack_rows(const PackedShape& shape, std::byte* to, std::int64_t rows, std::int64_t row, const void* from);

struct PackedProduct {
  const std::byte* a = nullptr;  // packed rows
  std::int64_t rows = 0;
  const std::byte* w = nullptr;  // as pack_matrix left it
};

// What becomes of a block of sums: rows row..row+rows of product `product`, panel `panel`, sums [32][32].
struct PanelEpilogue {
  void (*call)(const void* state, std::int64_t product, std::int64_t row, int rows, std::int64_t panel,
               const float* sums) = nullptr;
  const void* state = nullptr;
};

// Where the rows of a product begin among those of all, and its packed blocks among all blocks.
struct FfnRows {
  std::int64_t first = 0, block = 0;
};

// What products need beside their operands; kept by whoever calls them again. Grows, never shrinks.
class ProductScratch {
 public:
  // 64-byte aligned, each as large as asked for last or larger; what they hold does not outlive the next call. New ones
  // are zeros.
  std::byte* sums(std::size_t bytes) { return grown(sums_, bytes); }
  std::byte* rows(std::size_t bytes) { return grown(rows_, bytes); }
  std::byte* between(std::size_t bytes) { return grown(between_, bytes); }
  std::vector<std::int64_t> first_piece;
  std::vector<PackedProduct> products;
  std::vector<FfnRows> ffn_rows;

 private:
  struct Memory {
    LargeMemory bytes;
    std::size_t size = 0;
  };
  std::byte* grown(Memory& memory, std::size_t bytes);
  Memory sums_, rows_, between_;
};

// All products have one shape and order of packing.
void multiply_packed(CpuIsa isa, const PackedShape& shape, std::span<const PackedProduct> products,
                     const PanelEpilogue& epilogue, ThreadPool& pool, ProductScratch& scratch, const ProgressHook& hook);

}  // namespace topomoe::kernels
