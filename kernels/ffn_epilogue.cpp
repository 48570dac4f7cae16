#include "kernels/ffn_epilogue.hpp"

#include <algorithm>
#include <utility>

#include "kernels/bf16.hpp"
#include "kernels/exp.hpp"
#include "kernels/ffn_epilogue_avx512.hpp"
#include "kernels/ffn_targets.hpp"

namespace topomoe::kernels {
namespace {

template <class T>
void join_rows(const float* sums, std::int64_t rows, const JoinTargets<T>& to) {
  for (std::int64_t r = 0; r < rows; ++r, sums += kPanelColumns)
    for (std::int64_t i = 0; i < kJoinedColumns; ++i) {
      const T gate = from_float<T>(sums[i]), up = from_float<T>(sums[kJoinedColumns + i]);
      const float g = to_float(gate);
      const T act = from_float<T>(g * sigmoid_of(g) * to_float(up));
      to.packed[r * kStepDepth + i] = act;
      if (to.gate != nullptr) to.gate[r * to.stride + i] = gate;
      if (to.up != nullptr) to.up[r * to.stride + i] = up;
      if (to.act != nullptr) to.act[r * to.stride + i] = act;
    }
}
template <class T>
void store_rows(const float* sums, std::int64_t rows, const StoreTarget<T>& t) {
  for (std::int64_t r = 0; r < rows; ++r, sums += kPanelColumns)
    for (std::int64_t i = 0; i < t.columns; ++i) t.to[r * t.stride + i] = from_float<T>(sums[i]);
}

#if defined(__x86_64__)
template <class V, class T = typename V::Element>
TOPOMOE_AVX512 void join_avx512(const float* sums, std::int64_t rows, const JoinTargets<T>& to) {
  for (std::int64_t r = 0; r < rows; ++r) join_row<V, true>(sums, r, to);
}
template <class V, class T = typename V::Element>
TOPOMOE_AVX512 void store_avx512(const float* sums, std::int64_t rows, const StoreTarget<T>& to) {
  for (std::int64_t r = 0; r < rows; ++r)
    to.past_cache ? store_row<V, true>(sums, r, to) : store_row<V, false>(sums, r, to);
}
// Lines written past the cache are in no order with what says that they are there.
TOPOMOE_AVX512 void written() { _mm_sfence(); }
#endif

template <class T, void (*kJoin)(const float*, std::int64_t, const JoinTargets<T>&)>
void join(const void* state, const BlockSums& s) {
  const FfnTensors& t = *static_cast<const FfnTensors*>(state);
  const auto [first, columns] = join_columns(t, s);
  const JoinTargets<T> to = join_targets<T>(t, s);
  if (columns == kJoinedColumns) {
    kJoin(s.sums, s.rows, to);
  } else {  // the last columns: beside, then what there is of them
    T gate[kBlockRows * kJoinedColumns], up[kBlockRows * kJoinedColumns], act[kBlockRows * kJoinedColumns];
    kJoin(s.sums, s.rows, {to.packed, gate, up, act, kJoinedColumns});
    for (std::int64_t r = 0; r < s.rows; ++r)
      for (const auto& [from, whole] : {std::pair{gate, to.gate}, {up, to.up}, {act, to.act}})
        if (whole != nullptr) std::copy_n(from + r * kJoinedColumns, columns, whole + r * t.ffn);
  }
  // Up to the end of the step nobody else writes: the padding of k.
  if (first + kJoinedColumns >= t.ffn)
    for (std::int64_t r = 0; r < s.rows; ++r)
      std::fill(to.packed + r * kStepDepth + columns, to.packed + (r + 1) * kStepDepth - first % kStepDepth, T{});
}

template <class T, void (*kStore)(const float*, std::int64_t, const StoreTarget<T>&)>
void store(const void* state, const BlockSums& s) {
  const StoreTarget<T> to = store_target<T>(*static_cast<const FfnTensors*>(state), s);
  to.columns == kPanelColumns ? kStore(s.sums, s.rows, to) : store_rows(s.sums, s.rows, to);
}

}  // namespace

FfnEpilogue ffn_epilogue(CpuIsa isa, DType dtype, const FfnTensors& tensors) {
  const auto of = [&](auto join, auto store, FfnBeside beside, decltype(PanelEpilogue::finish) stored) {
    return FfnEpilogue{{.call = join, .beside = beside.join, .state = &tensors},
                       {.call = store, .beside = beside.store, .state = &tensors, .finish = stored}};
  };
#if defined(__x86_64__)
  if (dtype == DType::f32 && isa >= CpuIsa::avx512)
    return of(join<float, join_avx512<Fp32Rows>>, store<float, store_avx512<Fp32Rows>>, {}, written);
  if (dtype == DType::bf16 && isa >= CpuIsa::avx512_bf16)
    return of(join<Bf16, join_avx512<Bf16Instructions>>, store<Bf16, store_avx512<Bf16Instructions>>,
              isa == CpuIsa::amx ? ffn_beside_amx() : FfnBeside{}, written);
  if (dtype == DType::bf16 && isa == CpuIsa::avx512)
    return of(join<Bf16, join_avx512<Bf16Rows>>, store<Bf16, store_avx512<Bf16Rows>>, {}, written);
#endif
  (void)isa;
  if (dtype == DType::f32) return of(join<float, join_rows<float>>, store<float, store_rows<float>>, {}, nullptr);
  return of(join<Bf16, join_rows<Bf16>>, store<Bf16, store_rows<Bf16>>, {}, nullptr);
}

}  // namespace topomoe::kernels
