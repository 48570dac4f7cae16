// The arithmetic of ffn_epilogue.cpp, sixteen columns at a time: for its AVX-512 versions and the AMX one.
#pragma once

#include "kernels/bf16.hpp"
#include "kernels/ffn_targets.hpp"

#if defined(__x86_64__)
#include <immintrin.h>

#define TOPOMOE_AVX512 [[gnu::target("avx512f,avx512bw,avx512vl,avx512dq")]]
#define TOPOMOE_INLINE [[gnu::always_inline]]

namespace topomoe::kernels {

// 1 / (1 + e^-x), 16 at a time, at most 3 units in the last place off: exp_of with FMA, and a reciprocal of 14 bits
// refined once, since a division takes as long as all the rest.
TOPOMOE_AVX512 TOPOMOE_INLINE inline __m512 sigmoid(__m512 x) {
  const __m512 negative = _mm512_xor_ps(x, _mm512_set1_ps(-0.0F));
  // min and max return their second operand where one is a NaN.
  const __m512 bounded = _mm512_min_ps(_mm512_set1_ps(87.0F), _mm512_max_ps(_mm512_set1_ps(-87.0F), negative));
  const __m512 shift = _mm512_set1_ps(12582912.0F);  // as in exp_of: rounds to an integer
  const __m512 n = _mm512_sub_ps(_mm512_fmadd_ps(bounded, _mm512_set1_ps(1.44269504F), shift), shift);
  const __m512 r =
      _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4F), _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375F), bounded));
  __m512 p = _mm512_set1_ps(1.9875691500e-4F);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1F));
  p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0F));
  const __m512 sum = _mm512_add_ps(_mm512_scalef_ps(p, n), _mm512_set1_ps(1.0F));
  const __m512 near = _mm512_rcp14_ps(sum);
  return _mm512_mul_ps(near, _mm512_fnmadd_ps(sum, near, _mm512_set1_ps(2.0F)));
}

// to_bf16, 16 at a time.
TOPOMOE_AVX512 TOPOMOE_INLINE inline __m256i rounded(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i high = _mm512_srli_epi32(bits, 16);
  const __m512i odd = _mm512_and_epi32(high, _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(_mm512_srli_epi32(up, 16), nan, high, _mm512_set1_epi32(0x0040)));
}

// How tensors of each type are written: `from` 16 sums to elements, `value` back, `put` 16 elements, `put_all` 32
// sums, `put_past_cache` whole aligned lines without reading them first.
struct Fp32Rows {
  using Element = float;
  TOPOMOE_AVX512 TOPOMOE_INLINE static __m512 from(__m512 x) { return x; }
  TOPOMOE_AVX512 TOPOMOE_INLINE static __m512 value(__m512 x) { return x; }
  TOPOMOE_AVX512 TOPOMOE_INLINE static void put(float* to, __m512 x) { _mm512_storeu_ps(to, x); }
  TOPOMOE_AVX512 TOPOMOE_INLINE static void put_all(float* to, __m512 left, __m512 right) {
    put(to, left), put(to + 16, right);
  }
  TOPOMOE_AVX512 TOPOMOE_INLINE static void put_past_cache(float* to, __m512 left, __m512 right) {
    _mm512_stream_ps(to, left), _mm512_stream_ps(to + 16, right);
  }
};

struct Bf16Rows {
  using Element = Bf16;
  TOPOMOE_AVX512 TOPOMOE_INLINE static __m256i from(__m512 x) { return rounded(x); }
  TOPOMOE_AVX512 TOPOMOE_INLINE static __m512 value(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
  }
  TOPOMOE_AVX512 TOPOMOE_INLINE static void put(Bf16* to, __m256i x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x);
  }
  TOPOMOE_AVX512 TOPOMOE_INLINE static void put_all(Bf16* to, __m512 left, __m512 right) {
    put(to, from(left)), put(to + 16, from(right));
  }
  TOPOMOE_AVX512 TOPOMOE_INLINE static void put_past_cache(Bf16* to, __m512 left, __m512 right) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), from(left));
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + 16), from(right));
  }
};

// The same by the instructions for it, which write denormals as zeros. Assembly, since a function of one target is not
// inlined into a template of another.
struct Bf16Instructions : Bf16Rows {
  TOPOMOE_AVX512 TOPOMOE_INLINE static __m256i from(__m512 x) {
    __m256i out;
    asm("vcvtneps2bf16 %1, %0" : "=v"(out) : "v"(x));
    return out;
  }
  TOPOMOE_AVX512 TOPOMOE_INLINE static __m512i both(__m512 left, __m512 right) {
    __m512i out;
    asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(out) : "v"(left), "v"(right));
    return out;
  }
  TOPOMOE_AVX512 TOPOMOE_INLINE static void put_all(Bf16* to, __m512 left, __m512 right) {
    _mm512_storeu_si512(to, both(left, right));
  }
  TOPOMOE_AVX512 TOPOMOE_INLINE static void put_past_cache(Bf16* to, __m512 left, __m512 right) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), both(left, right));
  }
};

// Row r of a block's. kSaved: gate, up and act are written where they are not null.
template <class V, bool kSaved, class T = typename V::Element>
TOPOMOE_AVX512 TOPOMOE_INLINE inline void join_row(const float* sums, std::int64_t r, const JoinTargets<T>& to) {
  sums += r * kPanelColumns;
  const auto gate = V::from(_mm512_loadu_ps(sums)), up = V::from(_mm512_loadu_ps(sums + kJoinedColumns));
  const __m512 g = V::value(gate);
  const auto act = V::from(_mm512_mul_ps(_mm512_mul_ps(g, sigmoid(g)), V::value(up)));
  T* const packed = to.packed + r * kStepDepth;
  __builtin_prefetch(packed + to.ahead, 1);
  V::put(packed, act);
  if constexpr (kSaved) {
    // Their lines are read before they are written: those of the next block's row from here on (a sixth to a third of
    // the time of experts that save all three).
    const std::int64_t at = r * to.stride, next = at + kBlockRows * to.stride;
    if (to.gate != nullptr) __builtin_prefetch(to.gate + next, 1), V::put(to.gate + at, gate);
    if (to.up != nullptr) __builtin_prefetch(to.up + next, 1), V::put(to.up + at, up);
    if (to.act != nullptr) __builtin_prefetch(to.act + next, 1), V::put(to.act + at, act);
  }
}

template <class V, bool kPastCache, class T = typename V::Element>
TOPOMOE_AVX512 TOPOMOE_INLINE inline void store_row(const float* sums, std::int64_t r, const StoreTarget<T>& to) {
  sums += r * kPanelColumns;
  const __m512 left = _mm512_loadu_ps(sums), right = _mm512_loadu_ps(sums + kJoinedColumns);
  T* const out = to.to + r * to.stride;
  kPastCache ? V::put_past_cache(out, left, right) : V::put_all(out, left, right);
}

}  // namespace topomoe::kernels
#endif
