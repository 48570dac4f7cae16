// The inner loops of gather_rows, sum_rows, row_dots and ordered_sum for one instruction set: a part of an operation,
// as rows first..last of it. The same bits from each: a row's additions have one order, and nothing is contracted.
#pragma once

#include <cstdint>

#include "kernels/cpu_isa.hpp"
#include "kernels/gather_rows.hpp"
#include "kernels/ordered_sum.hpp"
#include "kernels/progress.hpp"
#include "kernels/sum_rows.hpp"

namespace topomoe::kernels {

// `past`: the result is written past the caches. Then its rows are aligned to 64 bytes.
struct RowMovers {
  void (*gather)(const GatherRows&, std::int64_t first, std::int64_t last, bool past);
  void (*sum)(const SumRows&, std::int64_t first, std::int64_t last, bool past);
  void (*dots)(const RowDots&, std::int64_t first, std::int64_t last);
  void (*ordered_sum)(const OrderedSum&, std::int64_t first, std::int64_t last, bool past);  // elements of out
  // What an element of a row takes, in units of Progress.
  std::int64_t element = Progress::kMovedElement;
};

RowMovers row_movers(CpuIsa isa);
// What `past` is to be for a result of so many rows.
bool written_past_caches(const void* out, std::int64_t rows, std::int64_t row_bytes);

// The definitions, in *_cpu.cpp, and one file for each other instruction set.
void gather_rows_portable(const GatherRows& op, std::int64_t first, std::int64_t last, bool past);
void sum_rows_portable(const SumRows& op, std::int64_t first, std::int64_t last, bool past);
void row_dots_portable(const RowDots& op, std::int64_t first, std::int64_t last);
void ordered_sum_portable(const OrderedSum& op, std::int64_t first, std::int64_t last, bool past);
RowMovers row_movers_avx2();
RowMovers row_movers_avx512();

}  // namespace topomoe::kernels
