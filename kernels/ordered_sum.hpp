// The local half of an ordered reduce-scatter: partial sums of several ranks, added in rank order.
//
//   out = ((in[0] + in[1]) + in[2]) + ...
//
// The accumulator is fp32, rounded once to dtype. The order is part of the contract: every rank and
// every schedule that adds in rank order gets the same bits. No blocks: out is zeros. `out` may be
// in[0] itself, and overlaps no other block.
//
// Bytes: (blocks + 1) rows columns b. Eight blocks of 8,192 rows of 4,096 in bf16: 604 MB, 180 us at 3.35 TB/s (H100
// SXM's datasheet). Not measured.
#pragma once

#include <cstdint>

#include "kernels/gpu_stream.hpp"
#include "topomoe/device.hpp"

namespace topomoe::kernels {

struct CpuContext;

struct OrderedSum {
  void* out = nullptr;       // [rows, columns] of dtype
  const void* in = nullptr;  // [blocks, rows, columns] of dtype, contiguous
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  int blocks = 0;
  DType dtype = DType::f32;
};

void ordered_sum_cpu(const OrderedSum& op, const CpuContext& cpu);
void ordered_sum_gpu(const OrderedSum& op, GpuStream stream);

}  // namespace topomoe::kernels
