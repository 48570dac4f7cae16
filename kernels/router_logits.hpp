// logits = tokens x weight^T, each one sum in index order of `hidden`, a product and an addition at a time (no FMA):
// the same bits on every instruction set, on a GPU, and for any number of rows.
#pragma once

#include <cstdint>

#include "kernels/cpu_context.hpp"
#include "kernels/router.hpp"

namespace topomoe::kernels {

void router_logits(const Router& op, const CpuContext& cpu);

// Some rows' products with kLogitColumns experts, over `depth` of hidden:
//   logits[r][i] (+)= sum over d of rows[r][d] * columns[d][i]
// rows are kLogitDepth apart, logits `experts`; the first `wanted` columns are written.
constexpr std::int64_t kLogitColumns = 16, kLogitDepth = 256, kLogitRows = 64;
struct LogitBlock {
  const float* rows = nullptr;     // [count][kLogitDepth]
  const float* columns = nullptr;  // [depth][kLogitColumns], 64-byte aligned
  float* logits = nullptr;
  std::int64_t count = 0, depth = 0, experts = 0, wanted = 0;
  bool first = true;  // written, not added to
};
void add_logits_portable(const LogitBlock& block);
void add_logits_avx2(const LogitBlock& block);
void add_logits_avx512(const LogitBlock& block);

// columns[d][i] = weight[i][d]; weight's rows are `stride` apart, beyond the first `wanted` columns are zeros.
void turn_portable(float* columns, const float* weight, std::int64_t stride, std::int64_t depth, std::int64_t wanted);
void turn_avx512(float* columns, const float* weight, std::int64_t stride, std::int64_t depth, std::int64_t wanted);

}  // namespace topomoe::kernels
