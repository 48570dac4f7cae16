#include "kernels/row_movers.hpp"

namespace topomoe::kernels {

RowMovers row_movers(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa >= CpuIsa::avx512) return row_movers_avx512();
  if (isa >= CpuIsa::avx2) return row_movers_avx2();
#endif
  (void)isa;
  return {gather_rows_portable, sum_rows_portable, row_dots_portable, ordered_sum_portable};
}

bool written_past_caches(const void* out, std::int64_t rows, std::int64_t row_bytes) {
  // Assumed: twice the second-level cache of a server core. Whoever reads less after us finds it there.
  constexpr std::int64_t kKept = 4 << 20;
  return rows * row_bytes > kKept && row_bytes % 64 == 0 && reinterpret_cast<std::uintptr_t>(out) % 64 == 0;
}

}  // namespace topomoe::kernels
