#include "kernels/packed_product.hpp"

#include <algorithm>
#include <cstring>

namespace topomoe::kernels {
namespace {

constexpr std::size_t kSumsBytes = sizeof(float) * kPieceRows * kGroupPanels * kPanelColumns;

struct Piece {
  const PackedProduct* product;
  std::int64_t index, group, row, rows;
};

void run(const Piece& p, const PanelKernel& kernel, const PackedShape& shape, const PanelEpilogue& epilogue, float* sums) {
  const std::int64_t blocks = blocks_of(p.rows), first_block = p.row / kBlockRows, all_blocks = blocks_of(p.product->rows);
  if (kernel.begin != nullptr) kernel.begin();
  for (std::int64_t slice = 0; slice < shape.slices(); ++slice) {
    const auto steps = static_cast<int>(shape.steps_of_slice(slice));
    // What follows in memory is what this worker reads next.
    const auto lines = static_cast<std::int64_t>(steps) * static_cast<std::int64_t>(shape.step_bytes() / 64);
    const auto ahead_lines = static_cast<int>((lines + blocks * steps - 1) / (blocks * steps));
    for (std::int64_t panel = 0; panel < shape.panels_of_group(p.group); ++panel) {
      const std::byte* w = p.product->w + shape.offset(p.group, slice, panel);
      for (std::int64_t i = 0; i < blocks; ++i) {
        const std::int64_t row = p.row + i * kBlockRows;
        const PanelBlock block{.a = p.product->a + packed_rows_offset(shape, all_blocks, first_block + i, slice * kSliceSteps),
                               .rows = static_cast<int>(std::min<std::int64_t>(kBlockRows, p.row + p.rows - row)),
                               .steps = steps,
                               .panel = w,
                               .c = sums + (panel * blocks + i) * kBlockRows * kPanelColumns,
                               .first = slice == 0,
                               .ahead = w + (lines + i * ahead_lines * steps) * 64,
                               .ahead_lines = ahead_lines};
        kernel.multiply(block);
        if (slice + 1 == shape.slices())
          epilogue.call(epilogue.state, p.index, row, block.rows, p.group * kGroupPanels + panel, block.c);
      }
    }
  }
  if (kernel.end != nullptr) kernel.end();
}

std::int64_t row_pieces(std::int64_t rows) { return (rows + kPieceRows - 1) / kPieceRows; }

}  // namespace


std::byte* ProductScratch::grown(Memory& memory, std::size_t bytes) {
  if (bytes > memory.size) memory.bytes = allocate_large(bytes), memory.size = bytes;
  return memory.bytes.get();
}

void pack_rows(const PackedShape& shape, std::byte* to, std::int64_t rows, std::int64_t row, const void* from) {
  const std::size_t element = size_of(shape.dtype), line = kStepDepth * element;
  const std::int64_t blocks = blocks_of(rows), block = row / kBlockRows, count = std::min<std::int64_t>(kBlockRows, rows - row);
  for (std::int64_t step = 0; step < shape.steps(); ++step) {
    std::byte* out = to + packed_rows_offset(shape, blocks, block, step);
    const std::byte* in = static_cast<const std::byte*>(from) + static_cast<std::size_t>(step) * line;
    const std::size_t inside = static_cast<std::size_t>(std::min(kStepDepth, shape.k - step * kStepDepth)) * element;
    for (std::int64_t r = 0; r < count; ++r, out += line, in += static_cast<std::size_t>(shape.k) * element) {
      if (inside == line) {
        std::memcpy(out, in, line);
      } else {
        std::memcpy(out, in, inside);
        std::memset(out + inside, 0, line - inside);
      }
    }
  }
}

void multiply_packed(CpuIsa isa, const PackedShape& shape, std::span<const PackedProduct> products,
                     const PanelEpilogue& epilogue, ThreadPool& pool, ProductScratch& scratch, const ProgressHook& hook) {
  auto* sums = reinterpret_cast<float*>(scratch.sums(static_cast<std::size_t>(pool.threads()) * kSumsBytes));
  std::vector<std::int64_t>& first = scratch.first_piece;
  first.assign(1, 0);
  for (const PackedProduct& p : products) first.push_back(first.back() + row_pieces(p.rows) * shape.groups());
  const PanelKernel kernel = panel_kernel(isa, shape.dtype);
  pool.run(first.back(), hook, [&](std::int64_t number, int worker) {
    const auto index = std::upper_bound(first.begin(), first.end(), number) - first.begin() - 1;
    const PackedProduct& product = products[static_cast<std::size_t>(index)];
    // Row pieces of one group are neighbours: whoever takes them shares the weights in the last-level cache.
    const std::int64_t of_product = number - first[static_cast<std::size_t>(index)], by_rows = row_pieces(product.rows);
    // All of one height, so that none is left with a few rows.
    const std::int64_t blocks = blocks_of(product.rows), part = of_product % by_rows;
    const std::int64_t begin = blocks * part / by_rows * kBlockRows, end = blocks * (part + 1) / by_rows * kBlockRows;
    run({&product, index, of_product / by_rows, begin, std::min(end, product.rows) - begin}, kernel, shape, epilogue,
        sums + static_cast<std::size_t>(worker) * (kSumsBytes / sizeof(float)));
  });
}

}  // namespace topomoe::kernels
