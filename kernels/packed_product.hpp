// Products of rows with packed weights, shared out among a pool: the one loop around the panel kernels.
//
// Several products at once, as of the experts of a rank. Each is cut into pieces, some columns by at most
// piece_rows() rows; whoever is free takes the next. While a piece runs, a slice of its rows and its sums stay in the
// second-level cache, weights come from memory once per piece_rows() rows, and what comes next, of both, is fetched
// meanwhile.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/large_memory.hpp"
#include "kernels/packed_matrix.hpp"
#include "kernels/packed_rows.hpp"
#include "kernels/panel_kernels.hpp"
#include "kernels/thread_pool.hpp"

namespace topomoe::kernels {

// 512 rows of bf16, 256 of fp32: a slice of them is half a MiB, a quarter of the second-level cache that is assumed.
constexpr std::int64_t kPieceRows = 512;
inline std::int64_t piece_rows(DType dtype) { return kPieceRows * 2 / static_cast<std::int64_t>(size_of(dtype)); }

struct PackedProduct {
  const std::byte* a = nullptr;  // packed rows
  std::int64_t rows = 0;
  const std::byte* w = nullptr;  // as pack_panel left it, all panels
  // Where its rows begin among those of all products, and its blocks among all blocks: for whoever writes results.
  std::int64_t first_row = 0, first_block = 0;
};

// Sums that are complete: a block's rows row..row+rows of a product by the columns of a panel, [rows][32].
struct BlockSums {
  const PackedProduct* product = nullptr;
  std::int64_t row = 0, rows = 0, panel = 0;
  const float* sums = nullptr;
};

// What becomes of them. Called once for each block and panel, on any thread.
struct PanelEpilogue {
  void (*call)(const void* state, const BlockSums& sums) = nullptr;
  // The panel kernel, which multiplies `next`, and `call` in one, where instructions of the one are free while the
  // other computes. False: neither was done. Null: there is none.
  bool (*beside)(const PanelBlock& next, const void* state, const BlockSums& sums) = nullptr;
  const void* state = nullptr;
  void (*finish)() = nullptr;  // on the same thread, when a piece is over; null: nothing to do
};

// What products need beside their operands; kept by whoever calls them again. Grows, never shrinks.
class ProductScratch {
 public:
  // 64-byte aligned, at least as large as asked for; what they hold does not outlive the next call. Zeros when new.
  std::byte* sums(std::size_t bytes) { return grown(sums_, bytes); }
  std::byte* rows(std::size_t bytes) { return grown(rows_, bytes); }
  std::byte* between(std::size_t bytes) { return grown(between_, bytes); }
  std::vector<std::int64_t> first_piece;
  std::vector<PackedProduct> products;

 private:
  struct Memory {
    LargeMemory bytes;
    std::size_t size = 0;
  };
  static std::byte* grown(Memory& memory, std::size_t bytes);
  Memory sums_, rows_, between_;
};

// What multiply_rows needs for sums: fp32 numbers, 64-byte aligned.
constexpr std::int64_t kPieceSums = kPieceRows * 8 * kPanelColumns;

// One product of at most kPieceRows rows, on the calling thread alone.
void multiply_rows(CpuIsa isa, const PackedShape& shape, const PackedProduct& product, const PanelEpilogue& epilogue,
                   float* sums, const ProgressHook& hook);

// All products have one shape and order of packing. Rows of a product must be less than 2^31.
void multiply_packed(CpuIsa isa, const PackedShape& shape, std::span<const PackedProduct> products,
                     const PanelEpilogue& epilogue, ThreadPool& pool, ProductScratch& scratch,
                     const ProgressHook& hook);

}  // namespace topomoe::kernels
