#if defined(__x86_64__)
#include "kernels/simd_avx512.hpp"
// After the instructions that it is written over.
#include "kernels/router_logits_simd.hpp"
#include "kernels/router_simd.hpp"

namespace topomoe::kernels {
namespace {

// 16 x 16 floats turned in registers: pairs of rows, pairs of those, then quarters of registers twice.
TOPOMOE_INLINE void turn_16(float* to, const __m512 (&row)[16]) {
  __m512 two[16], four[16];
  for (int i = 0; i < 16; i += 2) {
    two[i] = _mm512_unpacklo_ps(row[i], row[i + 1]);
    two[i + 1] = _mm512_unpackhi_ps(row[i], row[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int half = 0; half < 2; ++half) {
      const __m512d a = _mm512_castps_pd(two[i + half]), b = _mm512_castps_pd(two[i + half + 2]);
      four[i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
      four[i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
  // four[4 g + j]: in quarter q, column 4 q + j of rows 4 g to 4 g + 3.
  for (int j = 0; j < 4; ++j) {
    const __m512 a = _mm512_shuffle_f32x4(four[j], four[4 + j], 0x88),
                 b = _mm512_shuffle_f32x4(four[8 + j], four[12 + j], 0x88);
    const __m512 c = _mm512_shuffle_f32x4(four[j], four[4 + j], 0xDD),
                 d = _mm512_shuffle_f32x4(four[8 + j], four[12 + j], 0xDD);
    _mm512_store_ps(to + j * 16, _mm512_shuffle_f32x4(a, b, 0x88));
    _mm512_store_ps(to + (4 + j) * 16, _mm512_shuffle_f32x4(c, d, 0x88));
    _mm512_store_ps(to + (8 + j) * 16, _mm512_shuffle_f32x4(a, b, 0xDD));
    _mm512_store_ps(to + (12 + j) * 16, _mm512_shuffle_f32x4(c, d, 0xDD));
  }
}

}  // namespace

void route_rows_avx512(const Router& op, std::int64_t first, std::int64_t last) { route_simd(op, first, last); }
void add_logits_avx512(const LogitBlock& block) { add_logits_simd(block); }

TOPOMOE_SIMD void turn_avx512(float* columns, const float* weight, std::int64_t stride, std::int64_t depth,
                              std::int64_t wanted) {
  std::int64_t d = 0;
  for (; wanted == kLogitColumns && d + 16 <= depth; d += 16) {
    __m512 row[16];
    for (int i = 0; i < 16; ++i) row[i] = _mm512_loadu_ps(weight + i * stride + d);
    turn_16(columns + d * kLogitColumns, row);
  }
  turn_portable(columns + d * kLogitColumns, weight + d, stride, depth - d, wanted);
}

}  // namespace topomoe::kernels
#endif
