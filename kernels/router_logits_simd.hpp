// add_logits (router_logits.hpp) over F16 of simd_*.hpp, which is included first.
#pragma once

#include <algorithm>
#include <cstddef>

#include "kernels/router_logits.hpp"

namespace topomoe::kernels {
namespace {

template <int kRows>
TOPOMOE_INLINE void add_rows(const LogitBlock& b, std::int64_t row) {
  alignas(64) float kept[static_cast<std::size_t>(kRows)][kLogitColumns] = {};
  if (!b.first)
    for (int r = 0; r < kRows; ++r) std::copy_n(b.logits + (row + r) * b.experts, b.wanted, kept[r]);
  F16 sum[static_cast<std::size_t>(kRows)];
  for (int r = 0; r < kRows; ++r) sum[r] = load(kept[r]);
  const float* rows = b.rows + row * kLogitDepth;
  for (std::int64_t d = 0; d < b.depth; ++d) {
    const F16 column = load(b.columns + d * kLogitColumns);
    for (int r = 0; r < kRows; ++r) sum[r] = add(sum[r], multiply(set(rows[r * kLogitDepth + d]), column));
  }
  for (int r = 0; r < kRows; ++r) {
    store(kept[r], sum[r]);
    std::copy_n(kept[r], b.wanted, b.logits + (row + r) * b.experts);
  }
}

TOPOMOE_SIMD void add_logits_simd(const LogitBlock& b) {
  constexpr int kRows = 2 * kPairsAtOnce;  // sums that registers hold, and enough to hide what an addition takes
  std::int64_t row = 0;
  for (; row + kRows <= b.count; row += kRows) add_rows<kRows>(b, row);
  for (; row < b.count; ++row) add_rows<1>(b, row);
}

}  // namespace
}  // namespace topomoe::kernels
