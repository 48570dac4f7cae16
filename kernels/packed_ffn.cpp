#include "kernels/packed_ffn.hpp"

#include <algorithm>

#include "kernels/ffn_epilogue.hpp"
#include "kernels/row_span.hpp"

namespace topomoe::kernels {
namespace {

// The rows of all products as their first one reads them, one block a piece.
void pack_all_rows(const GroupedFfn& op, const PackedShape& shape, std::span<const PackedProduct> products,
                   std::byte* to, std::int64_t blocks, ThreadPool& pool, const ProgressHook& hook) {
  pool.run(blocks, hook, [&](std::int64_t block, int) {
    const auto after =
        std::upper_bound(products.begin(), products.end(), block,
                         [](std::int64_t b, const PackedProduct& product) { return b < product.first_block; });
    const PackedProduct& product = *(after - 1);
    const std::int64_t row = (block - product.first_block) * kBlockRows;
    pack_rows(shape, to + static_cast<std::size_t>(product.first_block) * packed_block_bytes(shape), product.rows, row,
              element_at(op.in, (product.first_row + row) * op.hidden, op.dtype));
  });
}

// Of the second way: of 2,048 bf16 each, so many rows as half a second-level cache of 2 MiB holds (twice as many, or
// longer ones, are no faster); and enough parts for threads to end together.
constexpr std::int64_t kPartRows = 256, kPartsPerThread = 6;

std::int64_t parts_of(std::int64_t rows) { return (rows + kPartRows - 1) / kPartRows; }

FfnTensors tensors_of(const GroupedFfn& op, std::byte* packed_act, const PackedShape& shape) {
  return {.act = op.act,
          .gate = op.gate,
          .up = op.up,
          .out = op.out,
          .packed_act = packed_act,
          .packed_act_shape = &shape,
          .hidden = op.hidden,
          .ffn = op.ffn};
}

}  // namespace

PackedFfn::PackedFfn(const GroupedFfn& op, CpuIsa isa, ThreadPool& pool, const ProgressHook& hook)
    : isa_(isa),
      gate_up_{2 * op.ffn, op.hidden, op.dtype, packed_order(isa, op.dtype), true},
      down_{op.hidden, op.ffn, op.dtype, packed_order(isa, op.dtype), false},
      experts_(static_cast<std::int64_t>(op.offsets.size()) - 1),
      memory_(allocate_large(bytes())) {
  const std::int64_t of_gate_up = gate_up_.panels(), of_expert = of_gate_up + down_.panels();
  pool.run(experts_ * of_expert, hook, [&](std::int64_t piece, int) {
    const std::int64_t expert = piece / of_expert, panel = piece % of_expert, matrix = op.ffn * op.hidden;
    std::byte* const to = memory_.get() + static_cast<std::size_t>(expert) * expert_bytes();
    if (panel < of_gate_up)
      pack_panel(gate_up_, panel, to, op.w_gate.of(expert, matrix, op.dtype), op.w_up.of(expert, matrix, op.dtype),
                 op.hidden, 1);
    else
      pack_panel(down_, panel - of_gate_up, to + gate_up_.bytes(), op.w_down.of(expert, matrix, op.dtype), nullptr,
                 op.ffn, 1);
  });
}

std::size_t PackedFfn::bytes() const { return static_cast<std::size_t>(experts_) * expert_bytes(); }

void PackedFfn::forward(const GroupedFfn& op, ThreadPool& pool, ProductScratch& scratch,
                        const ProgressHook& hook) const {
  std::vector<PackedProduct>& products = scratch.products;
  products.clear();
  // For all experts at once: which of them have rows changes from call to call.
  products.reserve(static_cast<std::size_t>(experts_));
  scratch.first_piece.reserve(static_cast<std::size_t>(experts_) + 1);
  std::int64_t blocks = 0, parts = 0;
  for_each_expert(op.offsets, [&](std::int64_t expert, std::int64_t first, std::int64_t rows) {
    const std::byte* const w = memory_.get() + static_cast<std::size_t>(expert) * expert_bytes();
    products.push_back({.rows = rows, .w = w, .first_row = first, .first_block = blocks});
    blocks += blocks_of(rows), parts += parts_of(rows);
  });
  if (parts >= kPartsPerThread * pool.threads())
    by_rows(op, pool, scratch, hook);
  else
    by_columns(op, pool, scratch, hook);
}

void PackedFfn::by_columns(const GroupedFfn& op, ThreadPool& pool, ProductScratch& scratch,
                           const ProgressHook& hook) const {
  std::vector<PackedProduct>& products = scratch.products;
  if (products.empty()) return;
  const std::int64_t blocks = products.back().first_block + blocks_of(products.back().rows);
  const std::size_t in_block = packed_block_bytes(gate_up_), act_block = packed_block_bytes(down_);
  std::byte* const in = scratch.rows(static_cast<std::size_t>(blocks) * in_block);
  std::byte* const act = scratch.between(static_cast<std::size_t>(blocks) * act_block);

  pack_all_rows(op, gate_up_, products, in, blocks, pool, hook);
  const FfnTensors tensors = tensors_of(op, act, down_);
  const FfnEpilogue epilogue = ffn_epilogue(isa_, op.dtype, tensors);
  for (PackedProduct& p : products) p.a = in + static_cast<std::size_t>(p.first_block) * in_block;
  multiply_packed(isa_, gate_up_, products, epilogue.join, pool, scratch, hook);
  for (PackedProduct& p : products) {
    p.a = act + static_cast<std::size_t>(p.first_block) * act_block;
    p.w += gate_up_.bytes();
  }
  multiply_packed(isa_, down_, products, epilogue.store, pool, scratch, hook);
}

void PackedFfn::by_rows(const GroupedFfn& op, ThreadPool& pool, ProductScratch& scratch,
                        const ProgressHook& hook) const {
  const std::span<const PackedProduct> products = scratch.products;
  std::vector<std::int64_t>& first = scratch.first_piece;
  first.assign(1, 0);
  for (const PackedProduct& p : products) first.push_back(first.back() + parts_of(p.rows));
  // Each thread has room for one part.
  const auto threads = static_cast<std::size_t>(pool.threads()),
             blocks = static_cast<std::size_t>(blocks_of(kPartRows));
  const std::size_t in_bytes = blocks * packed_block_bytes(gate_up_), act_bytes = blocks * packed_block_bytes(down_);
  std::byte* const all_in = scratch.rows(threads * in_bytes);
  std::byte* const all_act = scratch.between(threads * act_bytes);
  std::byte* const all_sums = scratch.sums(threads * kPieceSums * sizeof(float));
  pool.run(first.back(), hook, [&](std::int64_t number, int worker) {
    const auto index = std::upper_bound(first.begin(), first.end(), number) - first.begin() - 1;
    const PackedProduct& of = products[static_cast<std::size_t>(index)];
    const std::int64_t part = number - first[static_cast<std::size_t>(index)], parts = parts_of(of.rows),
                       all_blocks = blocks_of(of.rows);
    const std::int64_t begin = all_blocks * part / parts * kBlockRows,
                       end = std::min(all_blocks * (part + 1) / parts * kBlockRows, of.rows);
    const auto w = static_cast<std::size_t>(worker);
    std::byte* const in = all_in + w * in_bytes;
    std::byte* const act = all_act + w * act_bytes;
    auto* const sums = reinterpret_cast<float*>(all_sums + w * kPieceSums * sizeof(float));
    PackedProduct product{.a = in, .rows = end - begin, .w = of.w, .first_row = of.first_row + begin};
    const ProgressHook its_hook = worker == 0 ? hook : ProgressHook{};
    for (std::int64_t row = 0; row < product.rows; row += kBlockRows, its_hook())
      pack_rows(gate_up_, in, product.rows, row, element_at(op.in, (product.first_row + row) * op.hidden, op.dtype));
    const FfnTensors tensors = tensors_of(op, act, down_);
    const FfnEpilogue epilogue = ffn_epilogue(isa_, op.dtype, tensors);
    multiply_rows(isa_, gate_up_, product, epilogue.join, sums, its_hook);
    product.a = act, product.w += gate_up_.bytes();
    multiply_rows(isa_, down_, product, epilogue.store, sums, its_hook);
  });
}

}  // namespace topomoe::kernels
