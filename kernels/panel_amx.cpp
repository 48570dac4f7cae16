// bf16 by tiles: 2 x 2 of them hold 32 x 32 sums, two take 32 k of the rows, two of the columns. TDPBF16PS takes 16 cycles
// and a tile of 1 KiB from the second-level cache about as many, so that four of each are balanced (Intel's optimisation
// manual, chapter on AMX, gives the same blocking).
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

template <bool kTwo>
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
  const std::byte* ahead = b.ahead;
  for (int step = 0; step < b.steps; ++step) {
    for (int i = 0; i < b.ahead_lines; ++i, ahead += 64) _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T1);
    _tile_loadd(6, columns, kRowBytes);
    _tile_loadd(4, rows, kRowBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, columns + kTileBytes, kRowBytes);
    _tile_dpbf16ps(1, 4, 7);
    if (kTwo) {
      _tile_loadd(5, rows + kTileBytes, kRowBytes);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    rows += 2 * kTileBytes, columns += 2 * kTileBytes;
  }
  _tile_stored(0, c, kSumStride);
  _tile_stored(1, c + 16, kSumStride);
  if (kTwo) _tile_stored(2, c + 512, kSumStride);
  if (kTwo) _tile_stored(3, c + 528, kSumStride);
}

TOPOMOE_AMX void multiply(const PanelBlock& b) {
  if (b.rows > 16)
    sums<true>(b);
  else
    sums<false>(b);
}

}  // namespace

PanelKernel panel_kernel_amx() { return {multiply, begin, end}; }

}  // namespace topomoe::kernels
#endif
