// What of the router follows its logits, row by row, for one instruction set: scores, groups, the choice of k, weights.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cpu_context.hpp"
#include "kernels/cpu_isa.hpp"
#include "kernels/router.hpp"

namespace topomoe::kernels {

// Writes ids and weights of rows first..last; their logits are there. The same bits from each.
using RouteRows = void (*)(const Router& op, std::int64_t first, std::int64_t last);
RouteRows route_rows(CpuIsa isa);

// Of Progress, for parts that are shared out: short ones pay for their beginning (measured on two threads: 64 rows of
// 256 experts 0.57 of read bandwidth, 128 of them 0.65). Vectors that leave a row to the portable way take 7 us for
// it.
constexpr std::int64_t operations_of_row(CpuIsa isa, int experts) {
  return experts * (isa >= CpuIsa::avx2 ? Progress::kExponential / 4 : Progress::kExponential / 2);
}

void route_rows_portable(const Router& op, std::int64_t first, std::int64_t last);
void route_rows_avx2(const Router& op, std::int64_t first, std::int64_t last);
void route_rows_avx512(const Router& op, std::int64_t first, std::int64_t last);

// A NaN ranks below every number.
inline float or_least(float x) { return x != x ? -HUGE_VALF : x; }

}  // namespace topomoe::kernels
