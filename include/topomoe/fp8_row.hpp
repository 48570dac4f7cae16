// How a row of fp8 lies in memory: its e4m3 codes, a byte each, and behind them its scales, one fp32 for each 128
// codes.
//
//   [codes: columns][to a multiple of 4][scales: 4 ceil(columns / 128)][to a multiple of 16]
//
// Scales travel with their row: whatever moves rows (pack, repack, an exchange) moves one message and one array, and
// need not know what is in them. Rows begin at multiples of 16 bytes, so that whoever copies them may take 16 at a
// time; where 512 divides the columns nothing is added. What the codes mean: kernels/convert_rows.hpp.
#pragma once

#include <cstdint>

namespace topomoe {

constexpr std::int64_t kFp8ScaleGroup = 128;  // as DeepSeek-V3 (arXiv 2412.19437, 3.3) and DeepEP have it

constexpr std::int64_t fp8_scales(std::int64_t columns) { return (columns + kFp8ScaleGroup - 1) / kFp8ScaleGroup; }
// Bytes from the beginning of a row to its scales, and to the next row.
constexpr std::int64_t fp8_scales_at(std::int64_t columns) { return (columns + 3) / 4 * 4; }
constexpr std::int64_t fp8_row_bytes(std::int64_t columns) {
  return (fp8_scales_at(columns) + 4 * fp8_scales(columns) + 15) / 16 * 16;
}

}  // namespace topomoe
