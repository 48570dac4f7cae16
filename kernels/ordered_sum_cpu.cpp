#include "kernels/ordered_sum.hpp"

#include <algorithm>

#include "kernels/bf16.hpp"
#include "kernels/cpu_context.hpp"
#include "kernels/row_movers.hpp"

namespace topomoe::kernels {
namespace {

constexpr std::int64_t kPiece = 1024;  // elements summed at a time, so that the blocks are read in runs

}  // namespace

void ordered_sum_portable(const OrderedSum& op, std::int64_t begin, std::int64_t end, bool) {
  const std::int64_t count = op.rows * op.columns;
  float sum[kPiece];
  with_element(op.dtype, [&]<class T>(T) {
    const T* in = static_cast<const T*>(op.in);
    T* out = static_cast<T*>(op.out);
    for (std::int64_t first = begin; first < end; first += kPiece) {
      const std::int64_t length = std::min(kPiece, end - first);
      for (std::int64_t i = 0; i < length; ++i) sum[i] = op.blocks > 0 ? to_float(in[first + i]) : 0.0F;
      for (int block = 1; block < op.blocks; ++block) {
        const T* next = in + block * count + first;
        for (std::int64_t i = 0; i < length; ++i) sum[i] += to_float(next[i]);
      }
      for (std::int64_t i = 0; i < length; ++i) out[first + i] = from_float<T>(sum[i]);
    }
  });
}

void ordered_sum_cpu(const OrderedSum& op, const CpuContext& cpu) {
  const RowMovers movers = row_movers(cpu.isa);
  const std::int64_t count = op.rows * op.columns, pieces = (count + kPiece - 1) / kPiece;
  const bool past = written_past_caches(op.out, pieces, kPiece * static_cast<std::int64_t>(size_of(op.dtype)));
  share(cpu, pieces, (op.blocks + 1) * kPiece * movers.element, [&](std::int64_t first, std::int64_t last) {
    movers.ordered_sum(op, first * kPiece, std::min(count, last * kPiece), past);
  });
}

}  // namespace topomoe::kernels
