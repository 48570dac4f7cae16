// Sixteen fp32 at once, by AVX-512 (F, BW, VL, DQ). simd_avx2.hpp has the same names: row_movers_simd.hpp and
// router_simd.hpp are written once over them. Included by one source of a kernel and instruction set, nowhere else.
//
// Nothing here is contracted or reordered: what is built of it has the bits of the same lines in plain C++.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/bf16.hpp"

#define TOPOMOE_SIMD [[gnu::target("avx512f,avx512bw,avx512vl,avx512dq")]]
#define TOPOMOE_INLINE [[gnu::target("avx512f,avx512bw,avx512vl,avx512dq"), gnu::always_inline]] inline

namespace topomoe::kernels {
namespace {

struct F16 {
  __m512 v;
};
struct I16 {
  __m512i v;
};
// Elements 2 i and 2 i + 1 of 32 bf16, or i and 16 + i of 32 fp32: what is cheap to take apart. Element by element work
// need not know.
struct Pair {
  F16 first, second;
};
constexpr int kAtOnce = 8;       // polynomials that hide what each step takes
constexpr int kPairsAtOnce = 4;  // as many sums as registers hold beside what they are made of

TOPOMOE_INLINE F16 set(float x) { return {_mm512_set1_ps(x)}; }
TOPOMOE_INLINE F16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
TOPOMOE_INLINE void store(float* p, F16 a) { _mm512_storeu_ps(p, a.v); }
TOPOMOE_INLINE F16 add(F16 a, F16 b) { return {_mm512_add_ps(a.v, b.v)}; }
TOPOMOE_INLINE F16 subtract(F16 a, F16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
TOPOMOE_INLINE F16 multiply(F16 a, F16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
TOPOMOE_INLINE F16 divide(F16 a, F16 b) { return {_mm512_div_ps(a.v, b.v)}; }
// a b + c and c - a b, rounded once.
TOPOMOE_INLINE F16 fused(F16 a, F16 b, F16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
TOPOMOE_INLINE F16 fused_less(F16 a, F16 b, F16 c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
TOPOMOE_INLINE F16 least(F16 a, F16 b) { return {_mm512_min_ps(a.v, b.v)}; }
// b where either is a NaN.
TOPOMOE_INLINE F16 most(F16 a, F16 b) { return {_mm512_max_ps(a.v, b.v)}; }
// Bit i: lane i of a is at least that of b; false of NaNs.
TOPOMOE_INLINE unsigned at_least(F16 a, F16 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ); }
// 2^n of what router_score.hpp calls shifted.
TOPOMOE_INLINE F16 power_of(F16 shifted) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(shifted.v), 23))};
}
// base[index[i]] of the lanes of a mask, `other` of the others, whose indices are not looked at. (Unoptimised, GCC 12's
// is a macro around a short.)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"
TOPOMOE_INLINE F16 gathered(const float* base, const std::int32_t* index, unsigned mask, F16 other) {
  return {_mm512_mask_i32gather_ps(other.v, static_cast<__mmask16>(mask), _mm512_loadu_si512(index), base, 4)};
}
#pragma GCC diagnostic pop
TOPOMOE_INLINE void store_first(float* p, F16 a, int count) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1U << count) - 1), a.v);
}

TOPOMOE_INLINE I16 set(std::int32_t x) { return {_mm512_set1_epi32(x)}; }
TOPOMOE_INLINE I16 load(const std::int32_t* p) { return {_mm512_loadu_si512(p)}; }
TOPOMOE_INLINE I16 add(I16 a, I16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
TOPOMOE_INLINE I16 subtract(I16 a, I16 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
TOPOMOE_INLINE I16 as_integers(F16 a) { return {_mm512_castps_si512(a.v)}; }
TOPOMOE_INLINE F16 as_floats(I16 a) { return {_mm512_castsi512_ps(a.v)}; }
// counts + 1 in lanes where a > b, or a >= b.
TOPOMOE_INLINE I16 count_above(I16 counts, F16 a, F16 b) {
  return {_mm512_mask_add_epi32(counts.v, _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ), counts.v, _mm512_set1_epi32(1))};
}
TOPOMOE_INLINE I16 count_at_least(I16 counts, F16 a, F16 b) {
  return {_mm512_mask_add_epi32(counts.v, _mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ), counts.v, _mm512_set1_epi32(1))};
}
TOPOMOE_INLINE unsigned lanes_below(I16 a, I16 b) { return _mm512_cmplt_epi32_mask(a.v, b.v); }
TOPOMOE_INLINE void store(std::int32_t* p, I16 a) { _mm512_storeu_si512(p, a.v); }
TOPOMOE_INLINE void store_first(std::int32_t* p, I16 a, int count) {
  _mm512_mask_storeu_epi32(p, static_cast<__mmask16>((1U << count) - 1), a.v);
}
// Writes ids[i] for each bit i of mask, in order, then anything; 16 at most. Returns how many bits there are.
TOPOMOE_INLINE int append(std::int32_t* to, unsigned mask, const std::int32_t* ids) {
  _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(static_cast<__mmask16>(mask), _mm512_loadu_si512(ids)));
  return __builtin_popcount(mask);
}

// Half of what comes of two registers' quarters (steps 1, 2) or of lanes within quarters (3, 4); see
// sixteen_rows_simd.hpp. By quarters or lanes: a0 a1 b0 b1 and a2 a3 b2 b3, or a0 a2 b0 b2 and a1 a3 b1 b3.
template <int kStep, bool kSecond>
TOPOMOE_INLINE F16 step(F16 a, F16 b) {
  constexpr int kTake = kStep % 2 == 1 ? (kSecond ? 0xEE : 0x44) : (kSecond ? 0xDD : 0x88);
  if constexpr (kStep <= 2) return {_mm512_shuffle_f32x4(a.v, b.v, kTake)};
  return {_mm512_shuffle_ps(a.v, b.v, kTake)};
}

// Values and positions in one number, a double by its bits: the larger value is the larger number, of equal ones the
// lower position. A value's bits, 2^20 above what a denormal would be (which some programs have taken for 0), then the
// position: inverted where the number is positive. No NaN.
struct Key {
  __m512d v;
};
constexpr int kKeys = 8;  // of one Key
TOPOMOE_INLINE Key load_keys(const double* p) { return {_mm512_load_pd(p)}; }
TOPOMOE_INLINE void store_keys(double* p, Key a) { _mm512_store_pd(p, a.v); }
TOPOMOE_INLINE Key most(Key a, Key b) { return {_mm512_max_pd(a.v, b.v)}; }
TOPOMOE_INLINE Key least(Key a, Key b) { return {_mm512_min_pd(a.v, b.v)}; }
TOPOMOE_INLINE __m512i inverted_if_positive(__m512i position, __m512i value) {
  return _mm512_ternarylogic_epi32(_mm512_srai_epi32(value, 31), position, position, 0xC3);  // not (sign xor position)
}
// Sixteen of them; in which order is load_keys' and positions_of's alone.
TOPOMOE_INLINE void store_keys(double* p, F16 values, I16 positions) {
  const __m512i bits = _mm512_castps_si512(_mm512_add_ps(values.v, _mm512_setzero_ps()));  // -0 becomes 0
  const __m512i low = inverted_if_positive(positions.v, bits),
                high = _mm512_add_epi32(bits, _mm512_set1_epi32(1 << 20));
  _mm512_store_si512(p, _mm512_unpacklo_epi32(low, high));
  _mm512_store_si512(p + kKeys, _mm512_unpackhi_epi32(low, high));
}
TOPOMOE_INLINE I16 positions_of(const double* p) {
  const __m512 a = _mm512_load_ps(p), b = _mm512_load_ps(p + kKeys);
  return {inverted_if_positive(_mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88)),
                               _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xDD)))};
}

TOPOMOE_INLINE Pair load_pair(const float* p) { return {load(p), load(p + 16)}; }
TOPOMOE_INLINE Pair load_pair(const Bf16* p) {
  const __m512i x = _mm512_loadu_si512(p);
  return {{_mm512_castsi512_ps(_mm512_slli_epi32(x, 16))},
          {_mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(static_cast<int>(0xFFFF0000U))))}};
}
// The upper halves are to_bf16's.
TOPOMOE_INLINE __m512i rounded(F16 a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(up, nan, bits, _mm512_set1_epi32(0x00400000));
}
TOPOMOE_INLINE __m512i packed(Pair a) {
  const __m512i high = _mm512_and_si512(rounded(a.second), _mm512_set1_epi32(static_cast<int>(0xFFFF0000U)));
  return _mm512_or_si512(_mm512_srli_epi32(rounded(a.first), 16), high);
}
// Past: past the caches, to 64-byte aligned memory.
template <bool kPast>
TOPOMOE_INLINE void put(void* p, __m512i x) {
  if (kPast)
    _mm512_stream_si512(static_cast<__m512i*>(p), x);
  else
    _mm512_storeu_si512(p, x);
}
template <bool kPast>
TOPOMOE_INLINE void store_pair(float* p, Pair a) {
  put<kPast>(p, _mm512_castps_si512(a.first.v));
  put<kPast>(p + 16, _mm512_castps_si512(a.second.v));
}
template <bool kPast>
TOPOMOE_INLINE void store_pair(Bf16* p, Pair a) {
  put<kPast>(p, packed(a));
}
template <bool kPast>
TOPOMOE_INLINE void copy_line(void* to, const void* from) {
  put<kPast>(to, _mm512_loadu_si512(from));
}

}  // namespace
}  // namespace topomoe::kernels
