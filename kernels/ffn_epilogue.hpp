// What becomes of an expert's sums while they are in the cache: gate and up joined by SwiGLU, rows written.
//
// In: a block of sums [32][32], of gate (columns 0-15) and up (16-31), or of 32 columns of the output. gate and up are
// rounded to the element type first, since backward sees them so. The same bits on every instruction set (exp.hpp).
#pragma once

#include <cstdint>

#include "kernels/packed_product.hpp"

namespace topomoe::kernels {

struct FfnTensors {
  void* act = nullptr;   // [rows, ffn] or null
  void* gate = nullptr;  // the same
  void* up = nullptr;    // the same
  void* out = nullptr;   // [rows, hidden]
  std::byte* packed_act = nullptr;  // packed rows of all products, one tensor after the other
  const PackedShape* packed_act_shape = nullptr;
  std::int64_t hidden = 0, ffn = 0;
  const FfnRows* rows = nullptr;            // of each product
  const PackedProduct* products = nullptr;  // the same
};

struct FfnEpilogue {
  using Call = void (*)(const void* tensors, std::int64_t product, std::int64_t row, int rows, std::int64_t panel,
                        const float* sums);
  Call join = nullptr;   // gate and up -> act
  Call store = nullptr;  // -> out
};

FfnEpilogue ffn_epilogue(CpuIsa isa, DType dtype);

}  // namespace topomoe::kernels
