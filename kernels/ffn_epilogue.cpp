#include "kernels/ffn_epilogue.hpp"

#include <algorithm>
#include <cstring>

#include "kernels/bf16.hpp"
#include "kernels/exp.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#define TOPOMOE_AVX512 [[gnu::target("avx512f,avx512bw,avx512vl,avx512dq")]]
#endif

namespace topomoe::kernels {
namespace {

constexpr std::int64_t kHalf = kPanelColumns / 2;

// 16 columns of one row.
template <class T>
struct Plain {
  static void join(const float* sums, T* gate, T* up, T* act) {
    for (std::int64_t i = 0; i < kHalf; ++i) {
      gate[i] = from_float<T>(sums[i]), up[i] = from_float<T>(sums[kHalf + i]);
      const float g = to_float(gate[i]);
      act[i] = from_float<T>(g * sigmoid_of(g) * to_float(up[i]));
    }
  }
  static void store(const float* sums, T* to) {
    for (std::int64_t i = 0; i < kHalf; ++i) to[i] = from_float<T>(sums[i]);
  }
};

#if defined(__x86_64__)
// exp_of and sigmoid_of, 16 at a time: the same operations in the same order.
TOPOMOE_AVX512 inline __m512 sigmoid(__m512 x) {
  const __m512 negative = _mm512_xor_ps(x, _mm512_set1_ps(-0.0F));
  // min and max return their second operand where one is a NaN.
  const __m512 bounded = _mm512_min_ps(_mm512_set1_ps(87.0F), _mm512_max_ps(_mm512_set1_ps(-87.0F), negative));
  const __m512 shift = _mm512_set1_ps(12582912.0F);
  const __m512 n = _mm512_sub_ps(_mm512_add_ps(_mm512_mul_ps(bounded, _mm512_set1_ps(1.44269504F)), shift), shift);
  const __m512 r = _mm512_sub_ps(_mm512_sub_ps(bounded, _mm512_mul_ps(n, _mm512_set1_ps(0.693359375F))),
                                 _mm512_mul_ps(n, _mm512_set1_ps(-2.12194440e-4F)));
  __m512 p = _mm512_set1_ps(1.9875691500e-4F);
  for (const float c : {1.3981999507e-3F, 8.3334519073e-3F, 4.1665795894e-2F, 1.6666665459e-1F, 5.0000001201e-1F})
    p = _mm512_add_ps(_mm512_mul_ps(p, r), _mm512_set1_ps(c));
  p = _mm512_add_ps(_mm512_add_ps(_mm512_mul_ps(p, _mm512_mul_ps(r, r)), r), _mm512_set1_ps(1.0F));
  const __m512i exponent = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
  const __m512 e = _mm512_mul_ps(p, _mm512_castsi512_ps(exponent));
  return _mm512_div_ps(_mm512_set1_ps(1.0F), _mm512_add_ps(_mm512_set1_ps(1.0F), e));
}

// to_bf16, 16 at a time.
TOPOMOE_AVX512 inline __m256i rounded(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x), one = _mm512_set1_epi32(1);
  const __m512i high = _mm512_srli_epi32(bits, 16);
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(_mm512_set1_epi32(0x7FFF), _mm512_and_epi32(high, one)));
  const __m512i quiet = _mm512_or_epi32(high, _mm512_set1_epi32(0x0040));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(nan, _mm512_srli_epi32(up, 16), quiet));
}

template <class T>
struct Avx512;
template <>
struct Avx512<float> {
  TOPOMOE_AVX512 static void join(const float* sums, float* gate, float* up, float* act) {
    const __m512 g = _mm512_loadu_ps(sums), u = _mm512_loadu_ps(sums + kHalf);
    _mm512_storeu_ps(gate, g);
    _mm512_storeu_ps(up, u);
    _mm512_storeu_ps(act, _mm512_mul_ps(_mm512_mul_ps(g, sigmoid(g)), u));
  }
  TOPOMOE_AVX512 static void store(const float* sums, float* to) { _mm512_storeu_ps(to, _mm512_loadu_ps(sums)); }
};
template <>
struct Avx512<Bf16> {
  TOPOMOE_AVX512 static __m512 widened(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
  }
  TOPOMOE_AVX512 static void put(Bf16* to, __m256i x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x); }
  TOPOMOE_AVX512 static void join(const float* sums, Bf16* gate, Bf16* up, Bf16* act) {
    const __m256i g16 = rounded(_mm512_loadu_ps(sums)), u16 = rounded(_mm512_loadu_ps(sums + kHalf));
    put(gate, g16);
    put(up, u16);
    const __m512 g = widened(g16);
    put(act, rounded(_mm512_mul_ps(_mm512_mul_ps(g, sigmoid(g)), widened(u16))));
  }
  TOPOMOE_AVX512 static void store(const float* sums, Bf16* to) { put(to, rounded(_mm512_loadu_ps(sums))); }
};
#endif

template <class T, class Row>
void join(const void* state, std::int64_t product, std::int64_t row, int rows, std::int64_t panel, const float* sums) {
  const FfnTensors& t = *static_cast<const FfnTensors*>(state);
  const FfnRows& of = t.rows[product];
  const std::int64_t column = panel * kHalf, columns = std::min(kHalf, t.ffn - column);
  // Where this panel's columns are in the packed block, and up to where nobody else writes.
  const PackedShape& shape = *t.packed_act_shape;
  std::byte* const tensor = t.packed_act + static_cast<std::size_t>(of.block) * packed_block_bytes(shape);
  T* packed = reinterpret_cast<T*>(tensor + packed_rows_offset(shape, blocks_of(t.products[product].rows), row / kBlockRows,
                                                               column / kStepDepth)) +
              column % kStepDepth;
  const bool last = column + kHalf >= t.ffn;
  const std::int64_t end = kStepDepth - column % kStepDepth;
  for (int r = 0; r < rows; ++r, sums += kPanelColumns, packed += kStepDepth) {
    T gate[kHalf], up[kHalf], act[kHalf];
    Row::join(sums, gate, up, act);
    std::memcpy(packed, act, sizeof act);
    if (last) std::fill(packed + columns, packed + end, T{});
    const std::int64_t at = (of.first + row + r) * t.ffn + column;
    const auto put = [&](void* all, const T* from) {
      if (all == nullptr) return;
      if (columns == kHalf)
        std::memcpy(static_cast<T*>(all) + at, from, sizeof(T) * kHalf);
      else
        std::copy_n(from, columns, static_cast<T*>(all) + at);
    };
    put(t.gate, gate), put(t.up, up), put(t.act, act);
  }
}

template <class T, class Row>
void store(const void* state, std::int64_t product, std::int64_t row, int rows, std::int64_t panel, const float* sums) {
  const FfnTensors& t = *static_cast<const FfnTensors*>(state);
  const std::int64_t column = panel * kPanelColumns, columns = std::min(kPanelColumns, t.hidden - column);
  T* to = static_cast<T*>(t.out) + (t.rows[product].first + row) * t.hidden + column;
  for (int r = 0; r < rows; ++r, sums += kPanelColumns, to += t.hidden) {
    if (columns == kPanelColumns)
      Row::store(sums, to), Row::store(sums + kHalf, to + kHalf);
    else
      for (std::int64_t i = 0; i < columns; ++i) to[i] = from_float<T>(sums[i]);
  }
}

template <class T>
FfnEpilogue epilogue_of(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa >= CpuIsa::avx512) return {join<T, Avx512<T>>, store<T, Avx512<T>>};
#endif
  (void)isa;
  return {join<T, Plain<T>>, store<T, Plain<T>>};
}

}  // namespace

FfnEpilogue ffn_epilogue(CpuIsa isa, DType dtype) {
  return dtype == DType::f32 ? epilogue_of<float>(isa) : epilogue_of<Bf16>(isa);
}

}  // namespace topomoe::kernels
