#include "kernels/ordered_sum.hpp"

#include <algorithm>

#include "kernels/bf16.hpp"
#include "kernels/progress.hpp"

namespace topomoe::kernels {

void ordered_sum_cpu(const OrderedSum& op, const ProgressHook& hook) {
  Progress progress(hook);
  constexpr std::int64_t kPiece = 1024;  // elements summed at a time, so that the blocks are read in runs
  const std::int64_t count = op.rows * op.columns;
  with_element(op.dtype, [&]<class T>(T) {
    const T* in = static_cast<const T*>(op.in);
    T* out = static_cast<T*>(op.out);
    float sum[kPiece];
    for (std::int64_t first = 0; first < count; first += kPiece) {
      const std::int64_t length = std::min(kPiece, count - first);
      for (std::int64_t i = 0; i < length; ++i) sum[i] = op.blocks > 0 ? to_float(in[first + i]) : 0.0F;
      for (int block = 1; block < op.blocks; ++block) {
        const T* next = in + block * count + first;
        for (std::int64_t i = 0; i < length; ++i) sum[i] += to_float(next[i]);
      }
      for (std::int64_t i = 0; i < length; ++i) out[first + i] = from_float<T>(sum[i]);
      progress.did((op.blocks + 1) * length * Progress::kMovedElement);
    }
  });
}

}  // namespace topomoe::kernels
