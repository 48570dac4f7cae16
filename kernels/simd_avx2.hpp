// Sixteen fp32 at once, by AVX2: what simd_avx512.hpp says, in two registers.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/bf16.hpp"

#define TOPOMOE_SIMD [[gnu::target("avx2")]]
#define TOPOMOE_INLINE [[gnu::target("avx2"), gnu::always_inline]] inline

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
TOPOMOE_INLINE F16 negative(F16 a) {
  const __m256 sign = _mm256_set1_ps(-0.0F);
  return {_mm256_xor_ps(a.low, sign), _mm256_xor_ps(a.high, sign)};
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
TOPOMOE_INLINE F16 choose_lanes(unsigned mask, F16 yes, F16 no) {
  return {_mm256_blendv_ps(no.low, yes.low, mask_of(mask)), _mm256_blendv_ps(no.high, yes.high, mask_of(mask >> 8))};
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

TOPOMOE_INLINE I16 none() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
TOPOMOE_INLINE I16 load(const std::int32_t* p) {
  const auto* at = reinterpret_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}
TOPOMOE_INLINE I16 subtract(I16 a, I16 b) { return {_mm256_sub_epi32(a.low, b.low), _mm256_sub_epi32(a.high, b.high)}; }
TOPOMOE_INLINE __m256i ordered(__m256 a) {
  const __m256i bits = _mm256_castps_si256(_mm256_add_ps(a, _mm256_setzero_ps()));
  return _mm256_xor_si256(bits, _mm256_srli_epi32(_mm256_srai_epi32(bits, 31), 1));
}
TOPOMOE_INLINE I16 ordered(F16 a) { return {ordered(a.low), ordered(a.high)}; }
TOPOMOE_INLINE I16 count_above(I16 counts, const std::int32_t* one, I16 b) {
  const __m256i a = _mm256_set1_epi32(*one);  // a mask is -1
  return {_mm256_sub_epi32(counts.low, _mm256_cmpgt_epi32(a, b.low)),
          _mm256_sub_epi32(counts.high, _mm256_cmpgt_epi32(a, b.high))};
}
TOPOMOE_INLINE unsigned lanes_below(I16 counts, int bound) {
  const __m256i b = _mm256_set1_epi32(bound);
  return bits_of(_mm256_castsi256_ps(_mm256_cmpgt_epi32(b, counts.low)),
                 _mm256_castsi256_ps(_mm256_cmpgt_epi32(b, counts.high)));
}
TOPOMOE_INLINE void store(std::int32_t* p, I16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.low);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), a.high);
}
TOPOMOE_INLINE int append(std::int32_t* to, unsigned mask, const std::int32_t* ids) {
  int count = 0;
  for (; mask != 0; mask &= mask - 1) to[count++] = ids[__builtin_ctz(mask)];
  return count;
}

TOPOMOE_INLINE float largest_of(F16 a) {
  const __m256 eight = _mm256_max_ps(a.low, a.high);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
TOPOMOE_INLINE float least_of(F16 a) { return -largest_of(negative(a)); }
TOPOMOE_INLINE float folded(F16 a) {
  const __m256 eight = _mm256_add_ps(a.low, a.high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

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
