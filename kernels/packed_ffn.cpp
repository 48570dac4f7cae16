#include "kernels/packed_ffn.hpp"

#include <algorithm>

#include "kernels/ffn_epilogue.hpp"
#include "kernels/row_span.hpp"

namespace topomoe::kernels {

PackedFfn::PackedFfn(const GroupedFfn& op, CpuIsa isa, ThreadPool& pool, const ProgressHook& hook)
    : isa_(isa),
      gate_up_{2 * op.ffn, op.hidden, op.dtype, packed_order(isa, op.dtype), true},
      down_{op.hidden, op.ffn, op.dtype, packed_order(isa, op.dtype), false},
      experts_(static_cast<std::int64_t>(op.offsets.size()) - 1) {
  memory_ = allocate_large(bytes());
  const std::size_t each = gate_up_.bytes() + down_.bytes();
  pool.run(2 * experts_, hook, [&](std::int64_t piece, int) {
    const std::int64_t e = piece / 2, matrix = op.ffn * op.hidden;
    std::byte* to = memory_.get() + static_cast<std::size_t>(e) * each;
    if (piece % 2 == 0)
      pack_matrix(gate_up_, to, op.w_gate.of(e, matrix, op.dtype), op.w_up.of(e, matrix, op.dtype), op.hidden, 1);
    else
      pack_matrix(down_, to + gate_up_.bytes(), op.w_down.of(e, matrix, op.dtype), nullptr, op.ffn, 1);
  });
}

std::size_t PackedFfn::bytes() const {
  return static_cast<std::size_t>(experts_) * (gate_up_.bytes() + down_.bytes());
}

void PackedFfn::forward(const GroupedFfn& op, ThreadPool& pool, ProductScratch& scratch,
                        const ProgressHook& hook) const {
  const std::size_t each = gate_up_.bytes() + down_.bytes(), in_block = packed_block_bytes(gate_up_),
                    act_block = packed_block_bytes(down_);
  std::vector<PackedProduct>& products = scratch.products;
  std::vector<FfnRows>& rows_of = scratch.ffn_rows;
  products.clear(), rows_of.clear();
  std::int64_t blocks = 0;
  for_each_expert(op.offsets, [&](std::int64_t expert, std::int64_t first, std::int64_t rows) {
    products.push_back({nullptr, rows, memory_.get() + static_cast<std::size_t>(expert) * each});
    rows_of.push_back({first, blocks});
    blocks += blocks_of(rows);
  });
  std::byte* const in = scratch.rows(static_cast<std::size_t>(blocks) * in_block);
  std::byte* const act = scratch.between(static_cast<std::size_t>(blocks) * act_block);
  for (std::size_t i = 0; i < products.size(); ++i)
    products[i].a = in + static_cast<std::size_t>(rows_of[i].block) * in_block;

  pool.run(blocks, hook, [&](std::int64_t block, int) {
    const auto after = std::upper_bound(rows_of.begin(), rows_of.end(), block,
                                        [](std::int64_t b, const FfnRows& r) { return b < r.block; });
    const auto i = static_cast<std::size_t>(after - rows_of.begin() - 1);
    const std::int64_t row = (block - rows_of[i].block) * kBlockRows;
    pack_rows(gate_up_, in + static_cast<std::size_t>(rows_of[i].block) * in_block, products[i].rows, row,
              element_at(op.in, (rows_of[i].first + row) * op.hidden, op.dtype));
  });
  const FfnTensors tensors{.act = op.act,
                           .gate = op.gate,
                           .up = op.up,
                           .out = op.out,
                           .packed_act = act,
                           .packed_act_shape = &down_,
                           .hidden = op.hidden,
                           .ffn = op.ffn,
                           .rows = rows_of.data(),
                           .products = products.data()};
  const FfnEpilogue epilogue = ffn_epilogue(isa_, op.dtype);
  multiply_packed(isa_, gate_up_, products, {epilogue.join, &tensors}, pool, scratch, hook);
  for (std::size_t i = 0; i < products.size(); ++i) {
    products[i].a = act + static_cast<std::size_t>(rows_of[i].block) * act_block;
    products[i].w += gate_up_.bytes();
  }
  multiply_packed(isa_, down_, products, {epilogue.store, &tensors}, pool, scratch, hook);
}

}  // namespace topomoe::kernels
