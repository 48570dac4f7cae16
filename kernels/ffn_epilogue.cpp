#include "kernels/ffn_epilogue.hpp"

#include <algorithm>
#include <utility>

#include "kernels/bf16.hpp"
#include "kernels/exp.hpp"
#include "kernels/ffn_epilogue_avx512.hpp"

namespace topomoe::kernels {
namespace {

constexpr std::int64_t kHalf = kPanelColumns / 2;
// Of an expert: their results would drive rows and sums out of the cache, and each line of them be read before it is
// written (measured: a tenth of the second product's time).
constexpr std::int64_t kManyRows = 128;

// Where the first of some rows goes, 16 columns of each; gate, up and act may be null.
template <class T>
struct Targets {
  T *packed, *gate, *up, *act;
  std::int64_t ahead = 0;
  std::int64_t stride;  // from row to row; of packed kStepDepth
};

template <class T>
void join_rows(const float* sums, std::int64_t rows, const Targets<T>& to) {
  for (std::int64_t r = 0; r < rows; ++r, sums += kPanelColumns)
    for (std::int64_t i = 0; i < kHalf; ++i) {
      const T gate = from_float<T>(sums[i]), up = from_float<T>(sums[kHalf + i]);
      const float g = to_float(gate);
      const T act = from_float<T>(g * sigmoid_of(g) * to_float(up));
      to.packed[r * kStepDepth + i] = act;
      if (to.gate != nullptr) to.gate[r * to.stride + i] = gate;
      if (to.up != nullptr) to.up[r * to.stride + i] = up;
      if (to.act != nullptr) to.act[r * to.stride + i] = act;
    }
}
template <class T>
void store_rows(const float* sums, std::int64_t rows, T* to, std::int64_t stride, bool) {
  for (std::int64_t r = 0; r < rows; ++r, sums += kPanelColumns, to += stride)
    for (std::int64_t i = 0; i < kPanelColumns; ++i) to[i] = from_float<T>(sums[i]);
}

#if defined(__x86_64__)
template <class V, class T = typename V::Element>
TOPOMOE_AVX512 void join_avx512(const float* sums, std::int64_t rows, const Targets<T>& to) {
  for (std::int64_t r = 0; r < rows; ++r, sums += kPanelColumns) {
    const auto gate = V::from(_mm512_loadu_ps(sums)), up = V::from(_mm512_loadu_ps(sums + kHalf));
    const __m512 g = V::value(gate);
    const auto act = V::from(_mm512_mul_ps(_mm512_mul_ps(g, sigmoid(g)), V::value(up)));
    __builtin_prefetch(to.packed + r * kStepDepth + to.ahead, 1);
    V::put(to.packed + r * kStepDepth, act);
    if (to.gate != nullptr) V::put(to.gate + r * to.stride, gate);
    if (to.up != nullptr) V::put(to.up + r * to.stride, up);
    if (to.act != nullptr) V::put(to.act + r * to.stride, act);
  }
}
template <class V, class T = typename V::Element>
TOPOMOE_AVX512 void store_avx512(const float* sums, std::int64_t rows, T* to, std::int64_t stride, bool past_cache) {
  for (std::int64_t r = 0; r < rows; ++r, sums += kPanelColumns, to += stride) {
    const __m512 left = _mm512_loadu_ps(sums), right = _mm512_loadu_ps(sums + kHalf);
    past_cache ? V::put_past_cache(to, left, right) : V::put_all(to, left, right);
  }
}
// Lines written past the cache are in no order with what says that they are there.
TOPOMOE_AVX512 void written() { _mm_sfence(); }
#endif

template <class T, void (*kJoin)(const float*, std::int64_t, const Targets<T>&)>
void join(const void* state, const PackedProduct& product, std::int64_t row, std::int64_t rows, std::int64_t panel,
          const float* sums) {
  const FfnTensors& t = *static_cast<const FfnTensors*>(state);
  const PackedShape& shape = *t.packed_act_shape;
  const std::int64_t column = panel * kHalf, columns = std::min(kHalf, t.ffn - column);
  std::byte* const block = t.packed_act + static_cast<std::size_t>(product.first_block) * packed_block_bytes(shape) +
                           packed_rows_offset(shape, blocks_of(product.rows), row / kBlockRows, column / kStepDepth);
  T* const packed = reinterpret_cast<T*>(block) + row % kBlockRows * kStepDepth + column % kStepDepth;
  const std::int64_t at = (product.first_row + row) * t.ffn + column;
  const auto part = [&](void* tensor) { return tensor == nullptr ? nullptr : static_cast<T*>(tensor) + at; };
  if (columns == kHalf) {
    kJoin(sums, rows,
          {packed, part(t.gate), part(t.up), part(t.act),
           shape.steps_of_slice(column / kStepDepth / kSliceSteps) * kBlockRows * kStepDepth, t.ffn});
  } else {  // the last columns: beside, then what there is of them
    T gate[kBlockRows * kHalf], up[kBlockRows * kHalf], act[kBlockRows * kHalf];
    kJoin(sums, rows, {packed, gate, up, act, 0, kHalf});
    for (std::int64_t r = 0; r < rows; ++r)
      for (const auto& [from, to] : {std::pair{gate, part(t.gate)}, {up, part(t.up)}, {act, part(t.act)}})
        if (to != nullptr) std::copy_n(from + r * kHalf, columns, to + r * t.ffn);
  }
  // Up to the end of the step nobody else writes: the padding of k.
  if (column + kHalf >= t.ffn)
    for (std::int64_t r = 0; r < rows; ++r)
      std::fill(packed + r * kStepDepth + columns, packed + (r + 1) * kStepDepth - column % kStepDepth, T{});
}

template <class T, void (*kStore)(const float*, std::int64_t, T*, std::int64_t, bool)>
void store(const void* state, const PackedProduct& product, std::int64_t row, std::int64_t rows, std::int64_t panel,
           const float* sums) {
  const FfnTensors& t = *static_cast<const FfnTensors*>(state);
  const std::int64_t column = panel * kPanelColumns, columns = std::min(kPanelColumns, t.hidden - column);
  T* to = static_cast<T*>(t.out) + (product.first_row + row) * t.hidden + column;
  if (columns == kPanelColumns) {
    const bool aligned =
        (reinterpret_cast<std::uintptr_t>(to) | static_cast<std::size_t>(t.hidden) * sizeof(T)) % 64 == 0;
    return kStore(sums, rows, to, t.hidden, aligned && product.rows >= kManyRows);
  }
  for (std::int64_t r = 0; r < rows; ++r, sums += kPanelColumns, to += t.hidden)
    for (std::int64_t i = 0; i < columns; ++i) to[i] = from_float<T>(sums[i]);
}

}  // namespace

FfnEpilogue ffn_epilogue(CpuIsa isa, DType dtype) {
#if defined(__x86_64__)
  if (dtype == DType::f32 && isa >= CpuIsa::avx512)
    return {join<float, join_avx512<Fp32Rows>>, store<float, store_avx512<Fp32Rows>>, written};
  if (dtype == DType::bf16 && isa >= CpuIsa::avx512_bf16)
    return {join<Bf16, join_avx512<Bf16Instructions>>, store<Bf16, store_avx512<Bf16Instructions>>, written};
  if (dtype == DType::bf16 && isa == CpuIsa::avx512)
    return {join<Bf16, join_avx512<Bf16Rows>>, store<Bf16, store_avx512<Bf16Rows>>, written};
#endif
  (void)isa;
  if (dtype == DType::f32) return {join<float, join_rows<float>>, store<float, store_rows<float>>};
  return {join<Bf16, join_rows<Bf16>>, store<Bf16, store_rows<Bf16>>};
}

}  // namespace topomoe::kernels
