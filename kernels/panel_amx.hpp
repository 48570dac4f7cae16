// bf16 by tiles: 2 x 2 of them hold 32 x 32 sums, two take 32 k of the rows, two of the columns, so that four products
// of 16 cycles each go with four loads of 1 KiB.
//
// The second-level cache gives about 48 bytes a cycle, not the 64 that all four would need (measured: 75 % of the
// peak): a panel's slice has to stay in the first-level cache. Of 48 KiB it takes 32, and the rows must not drive it
// out: they are loaded with the hint that they are not used again, with which this loop alone gives 96 % of the peak,
// without it 73 %.
//
// Vector units are free meanwhile, but what waits in the reorder, load and store buffers is there instead of loads of
// tiles: other work has to be few instructions. As a call in each step SwiGLU took 5 to 15 % of all experts' time,
// inlined 1 to 2 % (256 tokens an expert).
#pragma once

#include "kernels/panel_kernels.hpp"

#if defined(__x86_64__)
#include <immintrin.h>

#define TOPOMOE_AMX [[gnu::target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512dq")]]

namespace topomoe::kernels {

template <_mm_hint kHint = _MM_HINT_T1>
TOPOMOE_AMX inline void fetch_step(PanelAhead& ahead) {
  for (int i = 0; i < ahead.lines; ++i, ahead.from += 64)
    _mm_prefetch(reinterpret_cast<const char*>(ahead.from), kHint);
}

template <bool kTwo, class Beside>
TOPOMOE_AMX inline void multiply_tiles(const PanelBlock& b, Beside beside) {
  constexpr std::int64_t kRowBytes = 64, kTileBytes = 1024, kSumStride = 128;
  float* const c = b.c;
  if (b.first) {
    _tile_zero(0);
    _tile_zero(1);
    if (kTwo) _tile_zero(2);
    if (kTwo) _tile_zero(3);
  } else {
    _tile_loadd(0, c, kSumStride);
    _tile_loadd(1, c + 16, kSumStride);
    if (kTwo) _tile_loadd(2, c + 512, kSumStride);
    if (kTwo) _tile_loadd(3, c + 528, kSumStride);
  }
  const std::byte* rows = b.a;
  const std::byte* columns = b.panel;
  // The sums of the next block: a tile of them that is not in the first-level cache holds up all that follows.
  PanelAhead sums_ahead{reinterpret_cast<const std::byte*>(c) + 4096, (64 + b.steps - 1) / b.steps};
  PanelAhead weights_ahead = b.weights_ahead, rows_ahead = b.rows_ahead;
  const int steps = b.steps, rows_a_step = (static_cast<int>(beside.rows()) + steps - 1) / steps;
  for (int step = 0; step < steps; ++step) {
    _tile_loadd(6, columns, kRowBytes);
    _tile_stream_loadd(4, rows, kRowBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, columns + kTileBytes, kRowBytes);
    _tile_dpbf16ps(1, 4, 7);
    if (rows_a_step > 0) beside.row();
    if (kTwo) {
      _tile_stream_loadd(5, rows + kTileBytes, kRowBytes);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    rows += 2 * kTileBytes, columns += 2 * kTileBytes;
    if (!b.first) fetch_step<_MM_HINT_T0>(sums_ahead);
    fetch_step(weights_ahead);
    fetch_step(rows_ahead);
    for (int i = 1; i < rows_a_step; ++i) beside.row();
  }
  _tile_stored(0, c, kSumStride);
  _tile_stored(1, c + 16, kSumStride);
  if (kTwo) _tile_stored(2, c + 512, kSumStride);
  if (kTwo) _tile_stored(3, c + 528, kSumStride);
}

// `beside` has rows() of other work, done a few at each step by as many calls of row(), which may do nothing after the
// last: inlined, and by registers alone if it is to cost little.
template <class Beside>
TOPOMOE_AMX inline void multiply_amx(const PanelBlock& b, Beside beside) {
  b.rows > 16 ? multiply_tiles<true>(b, beside) : multiply_tiles<false>(b, beside);
}

}  // namespace topomoe::kernels
#endif
