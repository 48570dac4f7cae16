// The bf16 kernel of panel_amx.hpp by itself, and the state of the tile registers.
#include "kernels/panel_amx.hpp"

#if defined(__x86_64__)
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

struct NothingBeside {
  static constexpr std::int64_t rows() { return 0; }
  static void row() {}
};
TOPOMOE_AMX void multiply(const PanelBlock& b) { multiply_amx(b, NothingBeside{}); }

}  // namespace

PanelKernel panel_kernel_amx() { return {multiply, begin, end, 16}; }

}  // namespace topomoe::kernels
#endif
