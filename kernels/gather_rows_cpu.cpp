#include <algorithm>

#include "kernels/bf16.hpp"
#include "kernels/cpu_context.hpp"
#include "kernels/gather_rows.hpp"
#include "kernels/row_movers.hpp"

namespace topomoe::kernels {

void gather_rows_portable(const GatherRows& op, std::int64_t first, std::int64_t last, bool) {
  with_element(op.dtype, [&]<class T>(T) {
    for (std::int64_t row = first; row < last; ++row) {
      T* out = static_cast<T*>(op.out) + row * op.columns;
      const std::int32_t source = op.source_row[row];
      if (source < 0) {
        std::fill_n(out, op.columns, T{});
        continue;
      }
      const T* in = static_cast<const T*>(op.in) + source * op.columns;
      if (op.scale == nullptr) {
        std::copy_n(in, op.columns, out);
      } else {
        const float scale = op.scale[row];
        for (std::int64_t i = 0; i < op.columns; ++i) out[i] = from_float<T>(scale * to_float(in[i]));
      }
    }
  });
}

void gather_rows_cpu(const GatherRows& op, const CpuContext& cpu) {
  const RowMovers movers = row_movers(cpu.isa);
  const bool past = written_past_caches(op.out, op.rows, op.columns * static_cast<std::int64_t>(size_of(op.dtype)));
  share(cpu, op.rows, op.columns * movers.element,
        [&](std::int64_t first, std::int64_t last) { movers.gather(op, first, last, past); });
}

}  // namespace topomoe::kernels
