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
  std::int64_t blocks = 0;
  for_each_expert(op.offsets, [&](std::int64_t expert, std::int64_t first, std::int64_t rows) {
    const std::byte* const w = memory_.get() + static_cast<std::size_t>(expert) * expert_bytes();
    products.push_back({.rows = rows, .w = w, .first_row = first, .first_block = blocks});
    blocks += blocks_of(rows);
  });
  const std::size_t in_block = packed_block_bytes(gate_up_), act_block = packed_block_bytes(down_);
  std::byte* const in = scratch.rows(static_cast<std::size_t>(blocks) * in_block);
  std::byte* const act = scratch.between(static_cast<std::size_t>(blocks) * act_block);

  pack_all_rows(op, gate_up_, products, in, blocks, pool, hook);
  const FfnTensors tensors{.act = op.act,
                           .gate = op.gate,
                           .up = op.up,
                           .out = op.out,
                           .packed_act = act,
                           .packed_act_shape = &down_,
                           .hidden = op.hidden,
                           .ffn = op.ffn};
  const FfnEpilogue epilogue = ffn_epilogue(isa_, op.dtype);
  for (PackedProduct& p : products) p.a = in + static_cast<std::size_t>(p.first_block) * in_block;
  multiply_packed(isa_, gate_up_, products, {epilogue.join, &tensors}, pool, scratch, hook);
  for (PackedProduct& p : products) {
    p.a = act + static_cast<std::size_t>(p.first_block) * act_block;
    p.w += gate_up_.bytes();
  }
  multiply_packed(isa_, down_, products, {epilogue.store, &tensors, epilogue.stored}, pool, scratch, hook);
}

}  // namespace topomoe::kernels
