// Where the results of an expert's sums go, a block's rows by the columns of a panel: computed once for a block, for
// ffn_epilogue.cpp and ffn_epilogue_amx.cpp alone.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/ffn_epilogue.hpp"

namespace topomoe::kernels {

// Of act, made of a panel's 16 columns of gate and as many of up.
constexpr std::int64_t kJoinedColumns = kPanelColumns / 2;

// Of gate and up joined: the first of the rows, 16 columns of each; gate, up and act may be null.
template <class T>
struct JoinTargets {
  T *packed, *gate, *up, *act;
  std::int64_t stride;     // from row to row; of packed kStepDepth
  std::int64_t ahead = 0;  // from packed to the next block's
};

// The first of a panel's columns of act, and how many there are.
struct JoinColumns {
  std::int64_t first, count;
};
inline JoinColumns join_columns(const FfnTensors& t, const BlockSums& s) {
  return {s.panel * kJoinedColumns, std::min(kJoinedColumns, t.ffn - s.panel * kJoinedColumns)};
}

template <class T>
JoinTargets<T> join_targets(const FfnTensors& t, const BlockSums& s) {
  const PackedProduct& product = *s.product;
  const PackedShape& shape = *t.packed_act_shape;
  const std::int64_t column = join_columns(t, s).first, step = column / kStepDepth;
  std::byte* const block = t.packed_act + static_cast<std::size_t>(product.first_block) * packed_block_bytes(shape) +
                           packed_rows_offset(shape, blocks_of(product.rows), s.row / kBlockRows, step);
  const std::int64_t at = (product.first_row + s.row) * t.ffn + column;
  const auto part = [&](void* tensor) { return tensor == nullptr ? nullptr : static_cast<T*>(tensor) + at; };
  return {.packed = reinterpret_cast<T*>(block) + s.row % kBlockRows * kStepDepth + column % kStepDepth,
          .gate = part(t.gate),
          .up = part(t.up),
          .act = part(t.act),
          .stride = t.ffn,
          .ahead = shape.steps_of_slice(step / kSliceSteps) * kBlockRows * kStepDepth};
}

// Of the output.
template <class T>
struct StoreTarget {
  T* to;
  std::int64_t stride, columns;
  // Of an expert with many rows: their results would drive rows and sums out of the cache, and each line of them be
  // read before it is written (measured: a tenth of the second product's time).
  bool past_cache;
};

template <class T>
StoreTarget<T> store_target(const FfnTensors& t, const BlockSums& s) {
  constexpr std::int64_t kManyRows = 128;
  const std::int64_t column = s.panel * kPanelColumns, columns = std::min(kPanelColumns, t.hidden - column);
  T* const to = static_cast<T*>(t.out) + (s.product->first_row + s.row) * t.hidden + column;
  const bool aligned =
      (reinterpret_cast<std::uintptr_t>(to) | static_cast<std::size_t>(t.hidden) * sizeof(T)) % 64 == 0;
  return {to, t.hidden, columns, columns == kPanelColumns && aligned && s.product->rows >= kManyRows};
}

}  // namespace topomoe::kernels
