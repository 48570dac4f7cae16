// What becomes of an expert's sums while they are in the cache: gate and up joined by SwiGLU, rows written.
//
// In: sums of up to 32 rows by 32 columns, of gate (columns 0-15) and up (16-31), or of the output. gate and up are
// rounded to the element type first, since backward sees them so; act goes where the next product reads it, as packed
// rows, and to a tensor where it is asked for. Instruction sets differ by rounding of the
// sigmoid, and those with bf16 instructions write denormals as zeros.
#pragma once

#include <cstdint>

#include "kernels/packed_product.hpp"

namespace topomoe::kernels {

struct FfnTensors {
  void* act = nullptr;              // [rows, ffn] or null
  void* gate = nullptr;             // the same
  void* up = nullptr;               // the same
  void* out = nullptr;              // [rows, hidden]
  std::byte* packed_act = nullptr;  // of all products, one after the other
  const PackedShape* packed_act_shape = nullptr;
  std::int64_t hidden = 0, ffn = 0;
};

struct FfnEpilogue {
  PanelEpilogue join;   // gate and up -> act
  PanelEpilogue store;  // -> out
};

// `tensors` must outlive it.
FfnEpilogue ffn_epilogue(CpuIsa isa, DType dtype, const FfnTensors& tensors);

// Theirs of one kernel each; one file each.
struct FfnBeside {
  decltype(PanelEpilogue::beside) join = nullptr, store = nullptr;
};
FfnBeside ffn_beside_amx();

}  // namespace topomoe::kernels
