#include "kernels/ffn_epilogue.hpp"

#include <algorithm>
#include <utility>

#include "kernels/bf16.hpp"
#include "kernels/exp.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#define TOPOMOE_AVX512 [[gnu::target("avx512f,avx512bw,avx512vl,avx512dq")]]
#endif

namespace topomoe::kernels {
namespace {

constexpr std::int64_t kHalf = kPanelColumns / 2;

#if defined(__x86_64__)
#define TOPOMOE_INLINE [[gnu::always_inline]]

// 1 / (1 + e^-x), 16 at a time, at most 3 units in the last place off: exp_of with FMA, and a reciprocal of 14 bits
// refined once, since a division takes as long as all the rest.
TOPOMOE_AVX512 TOPOMOE_INLINE inline __m512 sigmoid(__m512 x) {
  const __m512 negative = _mm512_xor_ps(x, _mm512_set1_ps(-0.0F));
  // min and max return their second operand where one is a NaN.
  const __m512 bounded = _mm512_min_ps(_mm512_set1_ps(87.0F), _mm512_max_ps(_mm512_set1_ps(-87.0F), negative));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(bounded, _mm512_set1_ps(1.44269504F)), _MM_FROUND_TO_NEAREST_INT);
  const __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4F),
                                    _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375F), bounded));
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
  return _mm512_cvtepi32_epi16(
      _mm512_mask_or_epi32(_mm512_srli_epi32(up, 16), nan, high, _mm512_set1_epi32(0x0040)));
}

template <class T>
struct Avx512;
template <>
struct Avx512<float> {
  using Lanes = __m512;
  TOPOMOE_AVX512 TOPOMOE_INLINE static __m512 from(__m512 x) { return x; }
  TOPOMOE_AVX512 TOPOMOE_INLINE static __m512 value(__m512 x) { return x; }
  TOPOMOE_AVX512 TOPOMOE_INLINE static void put(float* to, __m512 x) { _mm512_storeu_ps(to, x); }
};
template <>
struct Avx512<Bf16> {
  using Lanes = __m256i;
  TOPOMOE_AVX512 TOPOMOE_INLINE static __m256i from(__m512 x) { return rounded(x); }
  TOPOMOE_AVX512 TOPOMOE_INLINE static __m512 value(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
  }
  TOPOMOE_AVX512 TOPOMOE_INLINE static void put(Bf16* to, __m256i x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x);
  }
};
#endif

// Where 16 columns of a block's rows go; gate, up and act may be null.
template <class T>
struct Targets {
  T *packed, *gate, *up, *act;
  std::int64_t ffn;  // from row to row; of packed kStepDepth
};

template <class T>
void join_rows(const float* sums, int rows, const Targets<T>& to) {
  for (int r = 0; r < rows; ++r, sums += kPanelColumns)
    for (std::int64_t i = 0; i < kHalf; ++i) {
      const T gate = from_float<T>(sums[i]), up = from_float<T>(sums[kHalf + i]);
      const float g = to_float(gate);
      const T act = from_float<T>(g * sigmoid_of(g) * to_float(up));
      to.packed[r * kStepDepth + i] = act;
      if (to.gate != nullptr) to.gate[r * to.ffn + i] = gate;
      if (to.up != nullptr) to.up[r * to.ffn + i] = up;
      if (to.act != nullptr) to.act[r * to.ffn + i] = act;
    }
}
template <class T>
void store_rows(const float* sums, int rows, T* to, std::int64_t stride) {
  for (int r = 0; r < rows; ++r, sums += kPanelColumns, to += stride)
    for (std::int64_t i = 0; i < kPanelColumns; ++i) to[i] = from_float<T>(sums[i]);
}

#if defined(__x86_64__)
template <class T>
TOPOMOE_AVX512 void join_rows_avx512(const float* sums, int rows, const Targets<T>& to) {
  using V = Avx512<T>;
  for (int r = 0; r < rows; ++r, sums += kPanelColumns) {
    const auto gate = V::from(_mm512_loadu_ps(sums)), up = V::from(_mm512_loadu_ps(sums + kHalf));
    const __m512 g = V::value(gate);
    const auto act = V::from(_mm512_mul_ps(_mm512_mul_ps(g, sigmoid(g)), V::value(up)));
    V::put(to.packed + r * kStepDepth, act);
    if (to.gate != nullptr) V::put(to.gate + r * to.ffn, gate);
    if (to.up != nullptr) V::put(to.up + r * to.ffn, up);
    if (to.act != nullptr) V::put(to.act + r * to.ffn, act);
  }
}
template <class T>
TOPOMOE_AVX512 void store_rows_avx512(const float* sums, int rows, T* to, std::int64_t stride) {
  using V = Avx512<T>;
  for (int r = 0; r < rows; ++r, sums += kPanelColumns, to += stride) {
    V::put(to, V::from(_mm512_loadu_ps(sums)));
    V::put(to + kHalf, V::from(_mm512_loadu_ps(sums + kHalf)));
  }
}
#endif

template <class T, void (*kJoin)(const float*, int, const Targets<T>&)>
void join(const void* state, std::int64_t product, std::int64_t row, int rows, std::int64_t panel, const float* sums) {
  const FfnTensors& t = *static_cast<const FfnTensors*>(state);
  const FfnRows& of = t.rows[product];
  const PackedShape& shape = *t.packed_act_shape;
  const std::int64_t column = panel * kHalf, columns = std::min(kHalf, t.ffn - column);
  std::byte* const tensor = t.packed_act + static_cast<std::size_t>(of.block) * packed_block_bytes(shape);
  T* packed = reinterpret_cast<T*>(tensor + packed_rows_offset(shape, blocks_of(t.products[product].rows), row / kBlockRows,
                                                               column / kStepDepth)) +
              column % kStepDepth;
  const std::int64_t at = (of.first + row) * t.ffn + column;
  const auto part = [&](void* tensor_of) { return tensor_of == nullptr ? nullptr : static_cast<T*>(tensor_of) + at; };
  if (columns == kHalf) {
    kJoin(sums, rows, {packed, part(t.gate), part(t.up), part(t.act), t.ffn});
  } else {  // the last columns: beside, then what there is of them
    T gate[kBlockRows * kHalf], up[kBlockRows * kHalf], act[kBlockRows * kHalf];
    kJoin(sums, rows, {packed, gate, up, act, kHalf});
    for (int r = 0; r < rows; ++r)
      for (const auto& [from, to] : {std::pair{gate, part(t.gate)}, {up, part(t.up)}, {act, part(t.act)}})
        if (to != nullptr) std::copy_n(from + r * kHalf, columns, to + r * t.ffn);
  }
  // Up to the end of the step nobody else writes: the padding of k.
  if (column + kHalf >= t.ffn)
    for (int r = 0; r < rows; ++r)
      std::fill(packed + r * kStepDepth + columns, packed + (r + 1) * kStepDepth - column % kStepDepth, T{});
}

template <class T, void (*kStore)(const float*, int, T*, std::int64_t)>
void store(const void* state, std::int64_t product, std::int64_t row, int rows, std::int64_t panel, const float* sums) {
  const FfnTensors& t = *static_cast<const FfnTensors*>(state);
  const std::int64_t column = panel * kPanelColumns, columns = std::min(kPanelColumns, t.hidden - column);
  T* to = static_cast<T*>(t.out) + (t.rows[product].first + row) * t.hidden + column;
  if (columns == kPanelColumns) return kStore(sums, rows, to, t.hidden);
  for (int r = 0; r < rows; ++r, sums += kPanelColumns, to += t.hidden)
    for (std::int64_t i = 0; i < columns; ++i) to[i] = from_float<T>(sums[i]);
}

template <class T>
FfnEpilogue epilogue_of(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa >= CpuIsa::avx512) return {join<T, join_rows_avx512<T>>, store<T, store_rows_avx512<T>>};
#endif
  (void)isa;
  return {join<T, join_rows<T>>, store<T, store_rows<T>>};
}

}  // namespace

FfnEpilogue ffn_epilogue(CpuIsa isa, DType dtype) {
  return dtype == DType::f32 ? epilogue_of<float>(isa) : epilogue_of<Bf16>(isa);
}

}  // namespace topomoe::kernels
