// fp32 by FMA, bf16 widened: three rows by 32 columns of sums fill 12 of 16 registers.
#include "kernels/panel_kernels.hpp"

#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>

#define TOPOMOE_AVX2 [[gnu::target("avx2,fma")]]

namespace topomoe::kernels {
namespace {

struct Fp32 {
  static constexpr int kBytes = 4;
  TOPOMOE_AVX2 static __m256 load(const std::byte* p) { return _mm256_loadu_ps(reinterpret_cast<const float*>(p)); }
  static float scalar(const std::byte* p) {
    float x;
    std::memcpy(&x, p, 4);
    return x;
  }
};
struct Widened {
  static constexpr int kBytes = 2;
  TOPOMOE_AVX2 static __m256 load(const std::byte* p) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
  }
  static float scalar(const std::byte* p) {
    std::uint16_t half;
    std::memcpy(&half, p, 2);
    const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
  }
};

template <class T, int R>
TOPOMOE_AVX2 void rows_of(const PanelBlock& b, int row, bool fetching) {
  float* const c = b.c + row * 32;
  const std::byte* const a = b.a + row * 32 * T::kBytes;
  __m256 sum[static_cast<std::size_t>(R)][4];
  for (int r = 0; r < R; ++r)
    for (int q = 0; q < 4; ++q) sum[r][q] = b.first ? _mm256_setzero_ps() : _mm256_load_ps(c + r * 32 + q * 8);
  const std::byte* panel = b.panel;
  PanelAhead ahead[2] = {b.weights_ahead, b.rows_ahead};
  for (int k = 0; k < b.steps * 32; ++k, panel += 32 * T::kBytes) {
    if (fetching && k % 32 == 0)
      for (PanelAhead& next : ahead)
        for (int i = 0; i < next.lines; ++i, next.from += 64)
          _mm_prefetch(reinterpret_cast<const char*>(next.from), _MM_HINT_T1);
    __m256 w[4];
    for (int q = 0; q < 4; ++q) w[q] = T::load(panel + q * 8 * T::kBytes);
    for (int r = 0; r < R; ++r) {
      const __m256 x = _mm256_set1_ps(T::scalar(a + ((k / 32 * 32 + r) * 32 + k % 32) * T::kBytes));
      for (int q = 0; q < 4; ++q) sum[r][q] = _mm256_fmadd_ps(x, w[q], sum[r][q]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int q = 0; q < 4; ++q) _mm256_store_ps(c + r * 32 + q * 8, sum[r][q]);
}

template <class T>
TOPOMOE_AVX2 void multiply(const PanelBlock& b) {
  for (int row = 0; row < b.rows; row += 3) {
    const bool fetching = row == 0;
    switch (b.rows - row) {
      case 1: rows_of<T, 1>(b, row, fetching); break;
      case 2: rows_of<T, 2>(b, row, fetching); break;
      default: rows_of<T, 3>(b, row, fetching);
    }
  }
}

}  // namespace

PanelKernel panel_kernel_avx2(DType dtype) { return {dtype == DType::f32 ? multiply<Fp32> : multiply<Widened>}; }

}  // namespace topomoe::kernels
#endif
