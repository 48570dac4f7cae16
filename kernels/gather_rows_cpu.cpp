#include <algorithm>

#include "kernels/bf16.hpp"
#include "kernels/gather_rows.hpp"
#include "kernels/progress.hpp"

namespace topomoe::kernels {

void gather_rows_cpu(const GatherRows& op, const ProgressHook& hook) {
  Progress progress(hook);
  with_element(op.dtype, [&]<class T>(T) {
    for (std::int64_t row = 0; row < op.rows; ++row) {
      T* out = static_cast<T*>(op.out) + row * op.columns;
      const std::int32_t source = op.source_row[row];
      if (source < 0) {
        std::fill_n(out, op.columns, T{});
      } else {
        const T* in = static_cast<const T*>(op.in) + source * op.columns;
        if (op.scale == nullptr) {
          std::copy_n(in, op.columns, out);
        } else {
          const float scale = op.scale[row];
          for (std::int64_t i = 0; i < op.columns; ++i) out[i] = from_float<T>(scale * to_float(in[i]));
        }
      }
      progress.did(op.columns * Progress::kMovedElement);
    }
  });
}

}  // namespace topomoe::kernels
