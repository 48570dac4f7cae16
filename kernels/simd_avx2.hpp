// Sixteen fp32 at once, by AVX2 and FMA: what simd_avx512.hpp says, in two registers.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/bf16.hpp"

#define TOPOMOE_SIMD [[gnu::target("avx2,fma")]]
#define TOPOMOE_INLINE [[gnu::target("avx2,fma"), gnu::always_inline]] inline

namespace topomoe::kernels {
namespace {

struct F16 {
  __m256 low, high;
};
struct I16 {
  __m256i low, high;
};
struct Pair {
  F16 first, second;
};
constexpr int kAtOnce = 2;
constexpr int kPairsAtOnce = 2;

TOPOMOE_INLINE F16 set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
TOPOMOE_INLINE F16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
TOPOMOE_INLINE void store(float* p, F16 a) {
  _mm256_storeu_ps(p, a.low);
  _mm256_storeu_ps(p + 8, a.high);
}
TOPOMOE_INLINE F16 add(F16 a, F16 b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
TOPOMOE_INLINE F16 subtract(F16 a, F16 b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
TOPOMOE_INLINE F16 multiply(F16 a, F16 b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
TOPOMOE_INLINE F16 divide(F16 a, F16 b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
TOPOMOE_INLINE F16 least(F16 a, F16 b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
TOPOMOE_INLINE F16 most(F16 a, F16 b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
TOPOMOE_INLINE F16 fused(F16 a, F16 b, F16 c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
TOPOMOE_INLINE F16 fused_less(F16 a, F16 b, F16 c) {
  return {_mm256_fnmadd_ps(a.low, b.low, c.low), _mm256_fnmadd_ps(a.high, b.high, c.high)};
}
TOPOMOE_INLINE unsigned bits_of(__m256 low, __m256 high) {
  return static_cast<unsigned>(_mm256_movemask_ps(low)) | static_cast<unsigned>(_mm256_movemask_ps(high)) << 8;
}
TOPOMOE_INLINE __m256 mask_of(unsigned eight) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_castsi256_ps(
      _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(eight)), bit), bit));
}
TOPOMOE_INLINE unsigned at_least(F16 a, F16 b) {
  return bits_of(_mm256_cmp_ps(a.low, b.low, _CMP_GE_OQ), _mm256_cmp_ps(a.high, b.high, _CMP_GE_OQ));
}
TOPOMOE_INLINE __m256 power_of(__m256 shifted) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(shifted), 23));
}
TOPOMOE_INLINE F16 power_of(F16 shifted) { return {power_of(shifted.low), power_of(shifted.high)}; }

TOPOMOE_INLINE __m256 gathered(const float* base, const std::int32_t* index, unsigned eight, __m256 other) {
  const __m256i at = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index));
  return _mm256_mask_i32gather_ps(other, base, at, mask_of(eight), 4);
}
TOPOMOE_INLINE F16 gathered(const float* base, const std::int32_t* index, unsigned mask, F16 other) {
  return {gathered(base, index, mask & 0xFF, other.low), gathered(base, index + 8, mask >> 8, other.high)};
}
TOPOMOE_INLINE void store_first(float* p, F16 a, int count) {
  const unsigned mask = (1U << count) - 1;
  _mm256_maskstore_ps(p, _mm256_castps_si256(mask_of(mask)), a.low);
  _mm256_maskstore_ps(p + 8, _mm256_castps_si256(mask_of(mask >> 8)), a.high);
}

TOPOMOE_INLINE I16 set(std::int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
TOPOMOE_INLINE I16 load(const std::int32_t* p) {
  const auto* at = reinterpret_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}
TOPOMOE_INLINE I16 add(I16 a, I16 b) { return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)}; }
TOPOMOE_INLINE I16 subtract(I16 a, I16 b) { return {_mm256_sub_epi32(a.low, b.low), _mm256_sub_epi32(a.high, b.high)}; }
TOPOMOE_INLINE I16 as_integers(F16 a) { return {_mm256_castps_si256(a.low), _mm256_castps_si256(a.high)}; }
TOPOMOE_INLINE F16 as_floats(I16 a) { return {_mm256_castsi256_ps(a.low), _mm256_castsi256_ps(a.high)}; }
TOPOMOE_INLINE I16 count_above(I16 counts, F16 a, F16 b) {  // a mask is -1
  return {_mm256_sub_epi32(counts.low, _mm256_castps_si256(_mm256_cmp_ps(a.low, b.low, _CMP_GT_OQ))),
          _mm256_sub_epi32(counts.high, _mm256_castps_si256(_mm256_cmp_ps(a.high, b.high, _CMP_GT_OQ)))};
}
TOPOMOE_INLINE I16 count_at_least(I16 counts, F16 a, F16 b) {
  return {_mm256_sub_epi32(counts.low, _mm256_castps_si256(_mm256_cmp_ps(a.low, b.low, _CMP_GE_OQ))),
          _mm256_sub_epi32(counts.high, _mm256_castps_si256(_mm256_cmp_ps(a.high, b.high, _CMP_GE_OQ)))};
}
TOPOMOE_INLINE unsigned lanes_below(I16 a, I16 b) {
  return bits_of(_mm256_castsi256_ps(_mm256_cmpgt_epi32(b.low, a.low)),
                 _mm256_castsi256_ps(_mm256_cmpgt_epi32(b.high, a.high)));
}
TOPOMOE_INLINE void store(std::int32_t* p, I16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.low);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), a.high);
}
TOPOMOE_INLINE void store_first(std::int32_t* p, I16 a, int count) {
  store_first(reinterpret_cast<float*>(p), as_floats(a), count);
}
// [mask][i]: the i-th bit of eight that is set, then anything.
struct SetBits {
  std::uint8_t of[256][8];
  constexpr SetBits() : of() {
    for (int mask = 0; mask < 256; ++mask)
      for (int bit = 0, count = 0; bit < 8; ++bit)
        if ((mask >> bit & 1) != 0) of[mask][count++] = static_cast<std::uint8_t>(bit);
  }
};
constexpr SetBits kSetBits;
// No branch, which would be guessed wrong once a row or more.
TOPOMOE_INLINE int append_eight(std::int32_t* to, unsigned mask, __m256i ids) {
  const __m128i bits = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kSetBits.of[mask]));
  const __m256i chosen = _mm256_permutevar8x32_epi32(ids, _mm256_cvtepu8_epi32(bits));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), chosen);
  return __builtin_popcount(mask);
}
TOPOMOE_INLINE int append(std::int32_t* to, unsigned mask, const std::int32_t* ids) {
  const I16 all = load(ids);
  const int count = append_eight(to, mask & 0xFF, all.low);
  return count + append_eight(to + count, mask >> 8, all.high);
}

template <int kStep, bool kSecond>
TOPOMOE_INLINE F16 step(F16 a, F16 b) {
  constexpr int kTake = kStep % 2 == 1 ? (kSecond ? 0xEE : 0x44) : (kSecond ? 0xDD : 0x88);
  if constexpr (kStep == 1) return kSecond ? F16{a.high, b.high} : F16{a.low, b.low};
  if constexpr (kStep == 2) {
    constexpr int kHalves = kSecond ? 0x31 : 0x20;
    return {_mm256_permute2f128_ps(a.low, a.high, kHalves), _mm256_permute2f128_ps(b.low, b.high, kHalves)};
  }
  return {_mm256_shuffle_ps(a.low, b.low, kTake), _mm256_shuffle_ps(a.high, b.high, kTake)};
}

struct Key {
  __m256d v;
};
constexpr int kKeys = 4;
TOPOMOE_INLINE Key load_keys(const double* p) { return {_mm256_load_pd(p)}; }
TOPOMOE_INLINE void store_keys(double* p, Key a) { _mm256_store_pd(p, a.v); }
TOPOMOE_INLINE Key most(Key a, Key b) { return {_mm256_max_pd(a.v, b.v)}; }
TOPOMOE_INLINE Key least(Key a, Key b) { return {_mm256_min_pd(a.v, b.v)}; }
TOPOMOE_INLINE __m256i inverted_if_positive(__m256i position, __m256i value) {
  return _mm256_xor_si256(_mm256_cmpgt_epi32(value, _mm256_set1_epi32(-1)), position);
}
TOPOMOE_INLINE void store_keys(double* p, __m256 values, __m256i positions) {
  const __m256i bits = _mm256_castps_si256(_mm256_add_ps(values, _mm256_setzero_ps()));
  const __m256i low = inverted_if_positive(positions, bits), high = _mm256_add_epi32(bits, _mm256_set1_epi32(1 << 20));
  _mm256_store_pd(p, _mm256_castsi256_pd(_mm256_unpacklo_epi32(low, high)));
  _mm256_store_pd(p + kKeys, _mm256_castsi256_pd(_mm256_unpackhi_epi32(low, high)));
}
TOPOMOE_INLINE void store_keys(double* p, F16 values, I16 positions) {
  store_keys(p, values.low, positions.low);
  store_keys(p + 2 * kKeys, values.high, positions.high);
}
TOPOMOE_INLINE __m256i positions_of_eight(const double* p) {
  const __m256 a = _mm256_castpd_ps(_mm256_load_pd(p)), b = _mm256_castpd_ps(_mm256_load_pd(p + kKeys));
  return inverted_if_positive(_mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88)),
                              _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xDD)));
}
TOPOMOE_INLINE I16 positions_of(const double* p) { return {positions_of_eight(p), positions_of_eight(p + 2 * kKeys)}; }

TOPOMOE_INLINE Pair load_pair(const float* p) { return {load(p), load(p + 16)}; }
TOPOMOE_INLINE Pair load_pair(const Bf16* p) {
  const __m256i high = _mm256_set1_epi32(static_cast<int>(0xFFFF0000U));
  const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i y = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 16));
  return {{_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(y, 16))},
          {_mm256_castsi256_ps(_mm256_and_si256(x, high)), _mm256_castsi256_ps(_mm256_and_si256(y, high))}};
}
TOPOMOE_INLINE __m256i rounded(__m256 a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x00400000));
  return _mm256_blendv_epi8(up, quiet, _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q)));
}
TOPOMOE_INLINE __m256i packed(__m256 first, __m256 second) {
  const __m256i high = _mm256_and_si256(rounded(second), _mm256_set1_epi32(static_cast<int>(0xFFFF0000U)));
  return _mm256_or_si256(_mm256_srli_epi32(rounded(first), 16), high);
}
template <bool kPast>
TOPOMOE_INLINE void put(void* p, __m256i x) {
  if (kPast)
    _mm256_stream_si256(static_cast<__m256i*>(p), x);
  else
    _mm256_storeu_si256(static_cast<__m256i*>(p), x);
}
template <bool kPast>
TOPOMOE_INLINE void store_pair(float* p, Pair a) {
  put<kPast>(p, _mm256_castps_si256(a.first.low));
  put<kPast>(p + 8, _mm256_castps_si256(a.first.high));
  put<kPast>(p + 16, _mm256_castps_si256(a.second.low));
  put<kPast>(p + 24, _mm256_castps_si256(a.second.high));
}
template <bool kPast>
TOPOMOE_INLINE void store_pair(Bf16* p, Pair a) {
  put<kPast>(p, packed(a.first.low, a.second.low));
  put<kPast>(p + 16, packed(a.first.high, a.second.high));
}
template <bool kPast>
TOPOMOE_INLINE void copy_line(void* to, const void* from) {
  const auto* in = static_cast<const __m256i*>(from);
  auto* out = static_cast<__m256i*>(to);
  const __m256i x = _mm256_loadu_si256(in), y = _mm256_loadu_si256(in + 1);
  put<kPast>(out, x);
  put<kPast>(out + 1, y);
}

}  // namespace
}  // namespace topomoe::kernels
