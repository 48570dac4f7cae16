#include "kernels/router_logits.hpp"

#include <algorithm>

#include "kernels/bf16.hpp"

namespace topomoe::kernels {
namespace {

struct LogitKernels {
  void (*add)(const LogitBlock&);
  void (*turn)(float*, const float*, std::int64_t, std::int64_t, std::int64_t);
};

LogitKernels logit_kernels(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa >= CpuIsa::avx512) return {add_logits_avx512, turn_avx512};
  if (isa >= CpuIsa::avx2) return {add_logits_avx2, turn_portable};
#endif
  (void)isa;
  return {add_logits_portable, turn_portable};
}

// kLogitColumns experts of kLogitRows tokens. Sums wait in the logits between slices of hidden.
template <class T>
void logits_of(const Router& op, const LogitKernels& kernels, std::int64_t first_row, std::int64_t first_expert) {
  alignas(64) float columns[kLogitDepth * kLogitColumns], rows[kLogitRows * kLogitDepth];
  const std::int64_t experts = op.experts;
  LogitBlock block{.rows = rows,
                   .columns = columns,
                   .logits = op.logits + first_row * experts + first_expert,
                   .count = std::min(kLogitRows, op.rows - first_row),
                   .experts = experts,
                   .wanted = std::min(kLogitColumns, experts - first_expert)};
  for (std::int64_t at = 0; block.first || at < op.hidden; at += kLogitDepth, block.first = false) {
    block.depth = std::min(kLogitDepth, op.hidden - at);
    for (std::int64_t r = 0; r < block.count; ++r) {
      const T* token = static_cast<const T*>(op.tokens) + (first_row + r) * op.hidden + at;
      for (std::int64_t d = 0; d < block.depth; ++d) rows[r * kLogitDepth + d] = to_float(token[d]);
    }
    kernels.turn(columns, static_cast<const float*>(op.weight) + first_expert * op.hidden + at, op.hidden, block.depth,
                 block.wanted);
    kernels.add(block);
  }
}

}  // namespace

void add_logits_portable(const LogitBlock& b) {
  for (std::int64_t r = 0; r < b.count; ++r) {
    float* logits = b.logits + r * b.experts;
    float sum[kLogitColumns] = {};
    if (!b.first) std::copy_n(logits, b.wanted, sum);
    for (std::int64_t d = 0; d < b.depth; ++d)
      for (std::int64_t i = 0; i < kLogitColumns; ++i)
        sum[i] += b.rows[r * kLogitDepth + d] * b.columns[d * kLogitColumns + i];
    std::copy_n(sum, b.wanted, logits);
  }
}

void turn_portable(float* columns, const float* weight, std::int64_t stride, std::int64_t depth, std::int64_t wanted) {
  for (std::int64_t d = 0; d < depth; ++d)
    for (std::int64_t i = 0; i < kLogitColumns; ++i)
      columns[d * kLogitColumns + i] = i < wanted ? weight[i * stride + d] : 0.0F;
}

void router_logits(const Router& op, const CpuContext& cpu) {
  const LogitKernels kernels = logit_kernels(cpu.isa);
  const std::int64_t across = (op.experts + kLogitColumns - 1) / kLogitColumns;
  const std::int64_t blocks = (op.rows + kLogitRows - 1) / kLogitRows * across;
  const std::int64_t operations = 2 * std::min(kLogitRows, op.rows) * kLogitColumns * op.hidden;
  share(cpu, blocks, operations, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i)
      with_element(op.dtype,
                   [&]<class T>(T) { logits_of<T>(op, kernels, i / across * kLogitRows, i % across * kLogitColumns); });
  });
}

}  // namespace topomoe::kernels
