#include "kernels/packed_product.hpp"

#include <algorithm>

#include "kernels/progress.hpp"

namespace topomoe::kernels {
namespace {

constexpr std::int64_t kBlockSums = kBlockRows * kPanelColumns;
constexpr std::int64_t kLine = 64;

// Columns that are computed at once, slice by slice: their sums wait in the second-level cache, of 2 MiB or more.
struct Width {
  std::int64_t panels;
  bool rows_kept;  // in that cache, from these columns to the next: not fetched again
};
// Rows stay if they, the weights of all slices that pass meanwhile, and sums fit: few columns at once, else rows are
// gone before they are read again. Where rows do not fit anyway, many: rows come from afar once for all of them.
Width width_of(const PackedShape& shape, std::int64_t blocks) {
  constexpr std::int64_t kKept = 7 << 18, kNarrow = 4, kUsual = 8;
  const auto rows = blocks * static_cast<std::int64_t>(packed_block_bytes(shape));
  const std::int64_t sums = blocks * kBlockSums,
                     panel = shape.steps() * static_cast<std::int64_t>(shape.step_bytes()) + sums * 4;
  if (rows + kUsual * panel <= kKept) return {kUsual, true};
  if (rows + kNarrow * panel <= kKept) return {kNarrow, true};
  return {kPieceSums / sums, false};
}

// Few rows use what memory gives: then more columns in a piece, since each start waits for memory once.
constexpr std::int64_t kFewRows = 64, kMostTogether = 4, kPiecesPerThread = 8;

struct Piece {
  const PackedProduct& product;
  std::int64_t first_panel, panels, row, rows;
};

// What a kernel call fetches of a stream of so many lines that all calls share.
PanelAhead part(const std::byte* stream, std::int64_t lines, std::int64_t calls, std::int64_t call,
                std::int64_t steps) {
  const std::int64_t each_step = (lines + calls * steps - 1) / (calls * steps);
  return {stream + call * each_step * steps * kLine, static_cast<int>(each_step)};
}

// One piece on one thread. `sums` hold a block after the other, panel by panel.
struct Run {
  const PanelKernel& kernel;
  const PackedShape& shape;
  const PanelEpilogue& epilogue;
  float* sums;

  void piece(const Piece& p, const ProgressHook& hook) const {
    Progress progress(hook);
    BlockSums waiting;
    if (kernel.begin != nullptr) kernel.begin();
    const Width width = width_of(shape, blocks_of(p.rows));
    const std::int64_t end = p.first_panel + p.panels;
    for (std::int64_t panel = p.first_panel; panel < end; panel += width.panels) {
      const Columns columns{panel, std::min(width.panels, end - panel), width.rows_kept};
      for (std::int64_t slice = 0; slice < shape.slices(); ++slice) this->slice(p, columns, slice, waiting, progress);
      if (waiting.rows > 0) epilogue.call(epilogue.state, waiting);  // before other sums take their place
      waiting = {};
    }
    if (kernel.end != nullptr) kernel.end();
    if (epilogue.finish != nullptr) epilogue.finish();
  }

 private:
  struct Columns {
    std::int64_t first, panels;
    bool rows_kept;
  };
  const std::byte* rows_of(const Piece& p, std::int64_t block, std::int64_t slice) const {
    return p.product.a +
           packed_rows_offset(shape, blocks_of(p.product.rows), p.row / kBlockRows + block, slice * kSliceSteps);
  }

  // What is read after a panel of a slice: the next one's, the next slice, other columns.
  const std::byte* weights_after(const Piece& p, const Columns& columns, std::int64_t slice, std::int64_t panel) const {
    std::int64_t next = columns.first + panel + 1;
    if (panel + 1 == columns.panels && slice + 1 < shape.slices()) ++slice, next = columns.first;
    if (next == shape.panels()) return p.product.w + shape.bytes();  // what lies behind is fetched in vain, or next
    return p.product.w + shape.offset(next, panel + 1 == columns.panels && next != columns.first ? 0 : slice);
  }

  // The block whose sums this completes; where it can be, the one before is handed over meanwhile.
  void multiply(const PanelBlock& block, BlockSums& waiting, const BlockSums& complete) const {
    if (waiting.rows == 0 || !epilogue.beside(block, epilogue.state, waiting)) {
      kernel.multiply(block);
      if (waiting.rows > 0) epilogue.call(epilogue.state, waiting);
    }
    if (epilogue.beside != nullptr)
      waiting = complete;
    else
      epilogue.call(epilogue.state, complete);
  }

  void slice(const Piece& p, const Columns& columns, std::int64_t slice, BlockSums& waiting, Progress& progress) const {
    const std::int64_t blocks = blocks_of(p.rows), steps = shape.steps_of_slice(slice), panels = columns.panels;
    const bool last = slice + 1 == shape.slices();
    const std::int64_t step_lines = static_cast<std::int64_t>(shape.step_bytes()) / kLine;  // of 32 rows, or columns
    const std::int64_t panel_lines = steps * step_lines;
    // The rows' next slice: after the last comes the first, for another group of columns.
    const std::int64_t next = last ? 0 : slice + 1;
    const std::byte* const next_rows = rows_of(p, 0, next);
    const std::int64_t next_lines = columns.rows_kept ? 0 : blocks * shape.steps_of_slice(next) * step_lines;
    for (std::int64_t panel = 0; panel < panels; ++panel) {
      const std::byte* const w = p.product.w + shape.offset(columns.first + panel, slice);
      const std::byte* const after = weights_after(p, columns, slice, panel);
      for (std::int64_t i = 0; i < blocks; ++i) {
        const std::int64_t row = p.row + i * kBlockRows, rows = std::min(kBlockRows, p.row + p.rows - row);
        PanelBlock block{
            .a = rows_of(p, i, slice),
            .rows = static_cast<int>(rows),
            .steps = static_cast<int>(steps),
            .panel = w,
            .c = sums + (panel * blocks + i) * kBlockSums,
            .first = slice == 0,
            .weights_ahead = part(after, panel_lines, blocks, i, steps),
            .rows_ahead = part(next_rows, next_lines, panels * blocks, panel * blocks + i, steps),
        };
        if (last)
          multiply(block, waiting, {&p.product, row, rows, columns.first + panel, block.c});
        else
          kernel.multiply(block);
        const std::int64_t elements = steps * kStepDepth * kPanelColumns;
        progress.did(std::max(2 * rows * elements / kernel.speed, i == 0 ? elements * Progress::kMovedElement : 0));
      }
    }
  }
};

std::int64_t row_pieces(std::int64_t rows, DType dtype) { return (rows + piece_rows(dtype) - 1) / piece_rows(dtype); }

}  // namespace

std::byte* ProductScratch::grown(Memory& memory, std::size_t bytes) {
  if (bytes > memory.size) memory.bytes = allocate_large(bytes), memory.size = bytes;
  return memory.bytes.get();
}

void multiply_rows(CpuIsa isa, const PackedShape& shape, const PackedProduct& product, const PanelEpilogue& epilogue,
                   float* sums, const ProgressHook& hook) {
  const PanelKernel kernel = panel_kernel(isa, shape.dtype);
  Run{kernel, shape, epilogue, sums}.piece({product, 0, shape.panels(), 0, product.rows}, hook);
}

void multiply_packed(CpuIsa isa, const PackedShape& shape, std::span<const PackedProduct> products,
                     const PanelEpilogue& epilogue, ThreadPool& pool, ProductScratch& scratch,
                     const ProgressHook& hook) {
  auto* const sums =
      reinterpret_cast<float*>(scratch.sums(static_cast<std::size_t>(pool.threads() * kPieceSums) * sizeof(float)));
  std::vector<std::int64_t>& first = scratch.first_piece;
  // As wide as leaves every thread enough pieces.
  const std::int64_t widest = std::max<std::int64_t>(
      static_cast<std::int64_t>(products.size()) * shape.panels() / (kPiecesPerThread * pool.threads()), kGroupPanels);
  const auto panels_of_piece = [&](const PackedProduct& p) {
    const std::int64_t rows = std::min(p.rows, piece_rows(shape.dtype));
    return std::min(widest, width_of(shape, blocks_of(rows)).panels * (p.rows <= kFewRows ? kMostTogether : 1));
  };
  first.assign(1, 0);
  for (const PackedProduct& p : products) {
    const std::int64_t of_piece = panels_of_piece(p);
    first.push_back(first.back() + row_pieces(p.rows, shape.dtype) * ((shape.panels() + of_piece - 1) / of_piece));
  }
  const PanelKernel kernel = panel_kernel(isa, shape.dtype);
  pool.run(first.back(), hook, [&](std::int64_t number, int worker) {
    const auto index = std::upper_bound(first.begin(), first.end(), number) - first.begin() - 1;
    const PackedProduct& product = products[static_cast<std::size_t>(index)];
    // Row pieces of the same columns are neighbours: whoever takes them shares the weights in the last-level cache.
    const std::int64_t of_product = number - first[static_cast<std::size_t>(index)];
    const std::int64_t parts = row_pieces(product.rows, shape.dtype), part = of_product % parts;
    // All of one height, so that none is left with a few rows.
    const std::int64_t blocks = blocks_of(product.rows);
    const std::int64_t begin = blocks * part / parts * kBlockRows,
                       end = std::min(blocks * (part + 1) / parts * kBlockRows, product.rows);
    const std::int64_t of_piece = panels_of_piece(product), panel = of_product / parts * of_piece;
    const Run run{kernel, shape, epilogue, sums + worker * kPieceSums};
    run.piece({product, panel, std::min(of_piece, shape.panels() - panel), begin, end - begin},
              worker == 0 ? hook : ProgressHook{});
  });
}

}  // namespace topomoe::kernels
