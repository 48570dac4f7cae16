// fp32 by FMA, bf16 widened to fp32 or, where the CPU has them, by dot products of pairs. Twelve rows by 32 columns of
// sums fill 24 of 32 registers: 12 broadcasts and two loads feed 24 instructions, which two units take 12 cycles for.
#include "kernels/panel_kernels.hpp"

#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>

#define TOPOMOE_AVX512 [[gnu::target("avx512f,avx512bw,avx512vl,avx512dq")]]
#define TOPOMOE_AVX512_BF16 [[gnu::target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]]

namespace topomoe::kernels {
namespace {

constexpr int kRows = 12;

// What comes next, step by step; by the first rows of a block only.
struct Fetch {
  PanelAhead weights, rows;
  TOPOMOE_AVX512 void step() { lines(weights), lines(rows); }
  TOPOMOE_AVX512 static void lines(PanelAhead& ahead) {
    for (int i = 0; i < ahead.lines; ++i, ahead.from += 64)
      _mm_prefetch(reinterpret_cast<const char*>(ahead.from), _MM_HINT_T1);
  }
};

struct Fp32 {
  static constexpr int kBytes = 4;
  TOPOMOE_AVX512 static __m512 load(const std::byte* p) { return _mm512_loadu_ps(p); }
  TOPOMOE_AVX512 static __m512 broadcast(const std::byte* p) {
    float x;
    std::memcpy(&x, p, 4);
    return _mm512_set1_ps(x);
  }
};
struct Widened {
  static constexpr int kBytes = 2;
  TOPOMOE_AVX512 static __m512 load(const std::byte* p) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
  }
  TOPOMOE_AVX512 static __m512 broadcast(const std::byte* p) {
    std::uint16_t x;
    std::memcpy(&x, p, 2);
    return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(static_cast<std::uint32_t>(x) << 16)));
  }
};

template <class T, int R>
TOPOMOE_AVX512 void rows_of(const PanelBlock& b, int row, bool fetching) {
  float* const c = b.c + row * 32;
  const std::byte* a = b.a + row * 32 * T::kBytes;
  __m512 sum[static_cast<std::size_t>(R)][2];
  for (int r = 0; r < R; ++r)
    for (int h = 0; h < 2; ++h) sum[r][h] = b.first ? _mm512_setzero_ps() : _mm512_load_ps(c + r * 32 + h * 16);
  const std::byte* panel = b.panel;
  Fetch ahead = fetching ? Fetch{b.weights_ahead, b.rows_ahead} : Fetch{};
  for (int step = 0; step < b.steps; ++step) {
    ahead.step();
    for (int k = 0; k < 32; ++k, panel += 32 * T::kBytes) {
      const __m512 left = T::load(panel), right = T::load(panel + 16 * T::kBytes);
      for (int r = 0; r < R; ++r) {
        const __m512 x = T::broadcast(a + (r * 32 + k) * T::kBytes);
        sum[r][0] = _mm512_fmadd_ps(x, left, sum[r][0]);
        sum[r][1] = _mm512_fmadd_ps(x, right, sum[r][1]);
      }
    }
    a += 1024 * T::kBytes;
  }
  for (int r = 0; r < R; ++r)
    for (int h = 0; h < 2; ++h) _mm512_store_ps(c + r * 32 + h * 16, sum[r][h]);
}

template <int R>
TOPOMOE_AVX512_BF16 void pairs_of(const PanelBlock& b, int row, bool fetching) {
  float* const c = b.c + row * 32;
  const std::byte* a = b.a + row * 64;
  __m512 sum[static_cast<std::size_t>(R)][2];
  for (int r = 0; r < R; ++r)
    for (int h = 0; h < 2; ++h) sum[r][h] = b.first ? _mm512_setzero_ps() : _mm512_load_ps(c + r * 32 + h * 16);
  const std::byte* panel = b.panel;
  Fetch ahead = fetching ? Fetch{b.weights_ahead, b.rows_ahead} : Fetch{};
  for (int step = 0; step < b.steps; ++step, panel += 2048, a += 2048) {
    ahead.step();
    for (int pair = 0; pair < 16; ++pair) {
      const __m512bh left = (__m512bh)_mm512_loadu_si512(panel + pair * 64);
      const __m512bh right = (__m512bh)_mm512_loadu_si512(panel + 1024 + pair * 64);
      for (int r = 0; r < R; ++r) {
        int two;
        std::memcpy(&two, a + r * 64 + pair * 4, 4);
        const __m512bh x = (__m512bh)_mm512_set1_epi32(two);
        sum[r][0] = _mm512_dpbf16_ps(sum[r][0], x, left);
        sum[r][1] = _mm512_dpbf16_ps(sum[r][1], x, right);
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int h = 0; h < 2; ++h) _mm512_store_ps(c + r * 32 + h * 16, sum[r][h]);
}

// All rows of a block, twelve at a time and the rest by its number.
template <class Rows>
void each(const PanelBlock& b, Rows&& rows) {
  for (int row = 0; row < b.rows; row += kRows) rows(b.rows - row < kRows ? b.rows - row : kRows, row);
}

template <class T>
TOPOMOE_AVX512 void multiply(const PanelBlock& b) {
  each(b, [&](int count, int row) {
    const bool fetching = row == 0;
    switch (count) {
      case 1: return rows_of<T, 1>(b, row, fetching);
      case 2: return rows_of<T, 2>(b, row, fetching);
      case 3: return rows_of<T, 3>(b, row, fetching);
      case 4: return rows_of<T, 4>(b, row, fetching);
      case 5: return rows_of<T, 5>(b, row, fetching);
      case 6: return rows_of<T, 6>(b, row, fetching);
      case 7: return rows_of<T, 7>(b, row, fetching);
      case 8: return rows_of<T, 8>(b, row, fetching);
      case 9: return rows_of<T, 9>(b, row, fetching);
      case 10: return rows_of<T, 10>(b, row, fetching);
      case 11: return rows_of<T, 11>(b, row, fetching);
      default: return rows_of<T, 12>(b, row, fetching);
    }
  });
}

TOPOMOE_AVX512_BF16 void multiply_pairs(const PanelBlock& b) {
  each(b, [&](int count, int row) {
    const bool fetching = row == 0;
    switch (count) {
      case 1: return pairs_of<1>(b, row, fetching);
      case 2: return pairs_of<2>(b, row, fetching);
      case 3: return pairs_of<3>(b, row, fetching);
      case 4: return pairs_of<4>(b, row, fetching);
      case 5: return pairs_of<5>(b, row, fetching);
      case 6: return pairs_of<6>(b, row, fetching);
      case 7: return pairs_of<7>(b, row, fetching);
      case 8: return pairs_of<8>(b, row, fetching);
      case 9: return pairs_of<9>(b, row, fetching);
      case 10: return pairs_of<10>(b, row, fetching);
      case 11: return pairs_of<11>(b, row, fetching);
      default: return pairs_of<12>(b, row, fetching);
    }
  });
}

}  // namespace

PanelKernel panel_kernel_avx512(DType dtype) { return {dtype == DType::f32 ? multiply<Fp32> : multiply<Widened>}; }
PanelKernel panel_kernel_avx512_bf16() { return {multiply_pairs}; }

}  // namespace topomoe::kernels
#endif
