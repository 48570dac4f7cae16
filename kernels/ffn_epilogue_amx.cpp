// join and store of ffn_epilogue.cpp in the AMX kernel's own loop, a row or two between its products.
#include "kernels/ffn_epilogue_avx512.hpp"
#include "kernels/panel_amx.hpp"

#if defined(__x86_64__)
namespace topomoe::kernels {
namespace {

template <bool kSaved>
class JoinBeside {
 public:
  JoinBeside(const BlockSums& s, const JoinTargets<Bf16>& to) : sums_(s.sums), rows_(s.rows), to_(to) {}
  std::int64_t rows() const { return rows_; }
  TOPOMOE_AVX512 TOPOMOE_INLINE void row() {
    if (done_ < rows_) join_row<Bf16Instructions, kSaved>(sums_, done_++, to_);
  }

 private:
  const float* sums_;
  std::int64_t rows_, done_ = 0;
  JoinTargets<Bf16> to_;
};

template <bool kPastCache>
class StoreBeside {
 public:
  StoreBeside(const BlockSums& s, const StoreTarget<Bf16>& to) : sums_(s.sums), rows_(s.rows), to_(to) {}
  std::int64_t rows() const { return rows_; }
  TOPOMOE_AVX512 TOPOMOE_INLINE void row() {
    if (done_ < rows_) store_row<Bf16Instructions, kPastCache>(sums_, done_++, to_);
  }

 private:
  const float* sums_;
  std::int64_t rows_, done_ = 0;
  StoreTarget<Bf16> to_;
};

// The last columns are left to `call`: what is beyond them is not to be written, or to be padding.
TOPOMOE_AMX bool join(const PanelBlock& next, const void* state, const BlockSums& s) {
  const FfnTensors& t = *static_cast<const FfnTensors*>(state);
  if (const JoinColumns columns = join_columns(t, s); columns.first + kJoinedColumns >= t.ffn) return false;
  const JoinTargets<Bf16> to = join_targets<Bf16>(t, s);
  if (t.gate == nullptr && t.up == nullptr && t.act == nullptr)
    multiply_amx(next, JoinBeside<false>(s, to));
  else
    multiply_amx(next, JoinBeside<true>(s, to));
  return true;
}
TOPOMOE_AMX bool store(const PanelBlock& next, const void* state, const BlockSums& s) {
  const StoreTarget<Bf16> to = store_target<Bf16>(*static_cast<const FfnTensors*>(state), s);
  if (to.columns < kPanelColumns) return false;
  to.past_cache ? multiply_amx(next, StoreBeside<true>(s, to)) : multiply_amx(next, StoreBeside<false>(s, to));
  return true;
}

}  // namespace

FfnBeside ffn_beside_amx() { return {join, store}; }

}  // namespace topomoe::kernels
#endif
