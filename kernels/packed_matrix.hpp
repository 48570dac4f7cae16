// A weight matrix in the order in which host GEMM kernels read it: made once, read from end to end in every product.
//
//   out[rows, n] = a[rows, k] x w^T,   w [n, k], k contiguous
//
// 32 columns of out are a panel, kGroupPanels panels a group; k is cut into slices of kSliceSteps steps of 32. A group
// lies together, slice after slice, in a slice panel after panel, in a panel step after step: a worker that computes a
// group reads memory in one run, of several groups at once in long ones. Inside a step of a panel, 32 k by 32 columns:
//   bf16_pairs   [2 halves of the columns][16 pairs of k][16 columns][2]   what TDPBF16PS and VDPBF16PS take
//   rows         [32 k][32 columns]                                        fp32, or bf16 where it is widened first
// Columns and k are padded with zeros. `interleaved` takes two matrices of the same shape (gate and up): columns 0-15
// of a panel are the first's, 16-31 the second's, so that one panel has what SwiGLU joins.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu_isa.hpp"
#include "topomoe/device.hpp"

namespace topomoe::kernels {

constexpr std::int64_t kPanelColumns = 32;
constexpr std::int64_t kStepDepth = 32;
constexpr std::int64_t kGroupPanels = 8;
constexpr std::int64_t kSliceSteps = 16;

enum class PackedOrder { bf16_pairs, rows };

struct PackedShape {
  std::int64_t n = 0;  // columns of out, both matrices' where interleaved
  std::int64_t k = 0;
  DType dtype = DType::f32;
  PackedOrder order = PackedOrder::rows;
  bool interleaved = false;

  std::int64_t panels() const;
  std::int64_t steps() const { return (k + kStepDepth - 1) / kStepDepth; }
  std::int64_t slices() const { return (steps() + kSliceSteps - 1) / kSliceSteps; }
  std::int64_t steps_of_slice(std::int64_t slice) const;
  std::size_t step_bytes() const { return kPanelColumns * kStepDepth * size_of(dtype); }
  std::size_t bytes() const { return static_cast<std::size_t>(panels() * steps()) * step_bytes(); }
  // Where the steps of a panel in a slice begin.
  std::size_t offset(std::int64_t panel, std::int64_t slice) const;
};

PackedOrder packed_order(CpuIsa isa, DType dtype);

// Writes a panel of the shape.bytes() at `to`, 64-byte aligned. `second`: of interleaved shapes, else null. Element
// (column, depth) of w is at [column * column_stride + depth * depth_stride]: a transposed matrix packs as well.
void pack_panel(const PackedShape& shape, std::int64_t panel, std::byte* to, const void* first, const void* second,
                std::int64_t column_stride, std::int64_t depth_stride);

}  // namespace topomoe::kernels
