#include "kernels/packed_product.hpp"

#include <algorithm>

#include "kernels/progress.hpp"

namespace topomoe::kernels {
namespace {

constexpr std::int64_t kBlockSums = kBlockRows * kPanelColumns;
constexpr std::int64_t kLine = 64;
// Rows of a piece, all slices, that a second-level cache of 2 MiB keeps beside sums and weights: not fetched again.
constexpr std::size_t kRowsKept = 1 << 20;

// Few rows use what memory gives: then some groups in a row, since each start waits for memory once.
constexpr std::int64_t kFewRows = 64, kMostGroups = 4, kPiecesPerThread = 8;

struct Piece {
  const PackedProduct& product;
  std::int64_t first_group, groups, row, rows;
};

// A block whose sums are complete, handed over a few rows at a time while the next block is computed.
struct Finished {
  const PanelEpilogue& epilogue;
  const PackedProduct& product;
  std::int64_t row = 0, rows = 0, done = 0, each_time = 0, panel = 0;
  const float* sums = nullptr;

  void hand_over(std::int64_t count) {
    const std::int64_t now = std::min(count, rows - done);
    if (now <= 0) return;
    epilogue.call(epilogue.state, product, row + done, now, panel, sums + done * kPanelColumns);
    done += now;
  }
  static void a_few(void* self) {
    Finished& f = *static_cast<Finished*>(self);
    f.hand_over(f.each_time);
  }
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
    Finished finished{epilogue, p.product};
    if (kernel.begin != nullptr) kernel.begin();
    for (std::int64_t group = p.first_group; group < p.first_group + p.groups; ++group) {
      for (std::int64_t slice = 0; slice < shape.slices(); ++slice) this->slice(p, group, slice, finished, progress);
      finished.hand_over(kBlockRows);  // before other sums take its place
    }
    if (kernel.end != nullptr) kernel.end();
    if (epilogue.finish != nullptr) epilogue.finish();
  }

 private:
  const std::byte* rows_of(const Piece& p, std::int64_t block, std::int64_t slice) const {
    return p.product.a +
           packed_rows_offset(shape, blocks_of(p.product.rows), p.row / kBlockRows + block, slice * kSliceSteps);
  }

  void slice(const Piece& p, std::int64_t group, std::int64_t slice, Finished& finished, Progress& progress) const {
    const std::int64_t blocks = blocks_of(p.rows), steps = shape.steps_of_slice(slice),
                       panels = shape.panels_of_group(group);
    const bool last = slice + 1 == shape.slices();
    const std::int64_t step_lines = static_cast<std::int64_t>(shape.step_bytes()) / kLine;  // of 32 rows, or columns
    const std::int64_t panel_lines = steps * step_lines;
    // The rows' next slice: after the last comes the first, for another group of columns.
    const std::int64_t next = last ? 0 : slice + 1;
    const std::byte* const next_rows = rows_of(p, 0, next);
    const bool kept = static_cast<std::size_t>(blocks) * packed_block_bytes(shape) <= kRowsKept;
    const std::int64_t next_lines = kept ? 0 : blocks * shape.steps_of_slice(next) * step_lines;
    for (std::int64_t panel = 0; panel < panels; ++panel) {
      const std::byte* const w = p.product.w + shape.offset(group, slice, panel);
      for (std::int64_t i = 0; i < blocks; ++i) {
        const std::int64_t row = p.row + i * kBlockRows, rows = std::min(kBlockRows, p.row + p.rows - row);
        PanelBlock block{
            .a = rows_of(p, i, slice),
            .rows = static_cast<int>(rows),
            .steps = static_cast<int>(steps),
            .panel = w,
            .c = sums + (panel * blocks + i) * kBlockSums,
            .first = slice == 0,
            // What follows in memory is what this thread reads next.
            .weights_ahead = part(w + panel_lines * kLine, panel_lines, blocks, i, steps),
            .rows_ahead = part(next_rows, next_lines, panels * blocks, panel * blocks + i, steps),
        };
        if (last && kernel.works_beside) {
          block.beside = Finished::a_few, block.beside_state = &finished;
          kernel.multiply(block);
          finished.hand_over(kBlockRows);
          finished.row = row, finished.rows = rows, finished.done = 0;
          finished.each_time = (rows + steps - 1) / steps;
          finished.panel = group * kGroupPanels + panel, finished.sums = block.c;
        } else {
          kernel.multiply(block);
          if (last) epilogue.call(epilogue.state, p.product, row, rows, group * kGroupPanels + panel, block.c);
        }
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
  Run{kernel, shape, epilogue, sums}.piece({product, 0, shape.groups(), 0, product.rows}, hook);
}

void multiply_packed(CpuIsa isa, const PackedShape& shape, std::span<const PackedProduct> products,
                     const PanelEpilogue& epilogue, ThreadPool& pool, ProductScratch& scratch,
                     const ProgressHook& hook) {
  auto* const sums =
      reinterpret_cast<float*>(scratch.sums(static_cast<std::size_t>(pool.threads() * kPieceSums) * sizeof(float)));
  std::vector<std::int64_t>& first = scratch.first_piece;
  const std::int64_t together = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(products.size()) * shape.groups() / (kPiecesPerThread * pool.threads()), 1,
      kMostGroups);
  const auto of_piece = [&](const PackedProduct& p) { return p.rows <= kFewRows ? together : 1; };
  first.assign(1, 0);
  for (const PackedProduct& p : products)
    first.push_back(first.back() +
                    row_pieces(p.rows, shape.dtype) * ((shape.groups() + of_piece(p) - 1) / of_piece(p)));
  const PanelKernel kernel = panel_kernel(isa, shape.dtype);
  pool.run(first.back(), hook, [&](std::int64_t number, int worker) {
    const auto index = std::upper_bound(first.begin(), first.end(), number) - first.begin() - 1;
    const PackedProduct& product = products[static_cast<std::size_t>(index)];
    // Row pieces of one group are neighbours: whoever takes them shares the weights in the last-level cache.
    const std::int64_t of_product = number - first[static_cast<std::size_t>(index)];
    const std::int64_t parts = row_pieces(product.rows, shape.dtype), part = of_product % parts;
    // All of one height, so that none is left with a few rows.
    const std::int64_t blocks = blocks_of(product.rows);
    const std::int64_t begin = blocks * part / parts * kBlockRows,
                       end = std::min(blocks * (part + 1) / parts * kBlockRows, product.rows);
    const std::int64_t group = of_product / parts * of_piece(product);
    const Run run{kernel, shape, epilogue, sums + worker * kPieceSums};
    run.piece({product, group, std::min(of_piece(product), shape.groups() - group), begin, end - begin},
              worker == 0 ? hook : ProgressHook{});
  });
}

}  // namespace topomoe::kernels
