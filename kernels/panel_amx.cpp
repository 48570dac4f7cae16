// bf16 by tiles: 2 x 2 of them hold 32 x 32 sums, two take 32 k of the rows, two of the columns, so that four products
// of 16 cycles each go with four loads of 1 KiB.
//
// The second-level cache gives about 48 bytes a cycle, not the 64 that all four would need (measured: 75 % of the
// peak): a panel's slice has to stay in the first-level cache. Of 48 KiB it takes 32, and the rows must not drive it
// out: they are loaded with the hint that they are not used again, with which this loop alone gives 96 % of the peak,
// without it 73 %.
#include "kernels/panel_kernels.hpp"

#if defined(__x86_64__)
#include <immintrin.h>

#define TOPOMOE_AMX [[gnu::target("amx-tile,amx-bf16,avx512f")]]

namespace topomoe::kernels {
namespace {

struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

// All of 16 rows of 64 bytes: where a block has fewer rows, what the others give is not looked at.
TileConfig whole_tiles() {
  TileConfig out;
  for (int i = 0; i < 8; ++i) out.row_bytes[i] = 64, out.rows[i] = 16;
  return out;
}

// Not _tile_loadconfig: GCC 12's tells the compiler of the first 8 bytes only.
TOPOMOE_AMX inline void load(const TileConfig& config) { asm volatile("ldtilecfg %0" : : "m"(config)); }

TOPOMOE_AMX void begin() { load(whole_tiles()); }
TOPOMOE_AMX void end() { _tile_release(); }

constexpr std::int64_t kRowBytes = 64, kTileBytes = 1024, kSumStride = 128;

template <_mm_hint kHint = _MM_HINT_T1>
TOPOMOE_AMX inline void fetch(PanelAhead& ahead) {
  for (int i = 0; i < ahead.lines; ++i, ahead.from += 64)
    _mm_prefetch(reinterpret_cast<const char*>(ahead.from), kHint);
}

template <bool kTwo, bool kBeside>
TOPOMOE_AMX inline void sums(const PanelBlock& b) {
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
  for (int step = 0; step < b.steps; ++step) {
    _tile_loadd(6, columns, kRowBytes);
    _tile_stream_loadd(4, rows, kRowBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, columns + kTileBytes, kRowBytes);
    _tile_dpbf16ps(1, 4, 7);
    if (kTwo) {
      _tile_stream_loadd(5, rows + kTileBytes, kRowBytes);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    rows += 2 * kTileBytes, columns += 2 * kTileBytes;
    if (!b.first) fetch<_MM_HINT_T0>(sums_ahead);
    fetch(weights_ahead);
    fetch(rows_ahead);
    if (kBeside) b.beside(b.beside_state);
  }
  _tile_stored(0, c, kSumStride);
  _tile_stored(1, c + 16, kSumStride);
  if (kTwo) _tile_stored(2, c + 512, kSumStride);
  if (kTwo) _tile_stored(3, c + 528, kSumStride);
}

TOPOMOE_AMX void multiply(const PanelBlock& b) {
  if (b.rows > 16)
    b.beside != nullptr ? sums<true, true>(b) : sums<true, false>(b);
  else
    b.beside != nullptr ? sums<false, true>(b) : sums<false, false>(b);
}

}  // namespace

PanelKernel panel_kernel_amx() { return {multiply, begin, end, true, 16}; }

}  // namespace topomoe::kernels
#endif
