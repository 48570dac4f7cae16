// The innermost loops of host GEMM: a block of up to 32 rows times one slice of a packed panel, for each instruction
// set.
//
//   c[rows, 32] (+)= a[rows, steps * 32] x panel
//
// c is fp32, kept between slices, so that an element is one sum in order of k however many rows there are and wherever
// the row stands (row-invariant, DESIGN 8): with FMA (avx2, avx512), without (portable), or as the dot-product
// instructions add pairs (avx512_bf16, amx; both flush denormals). While it computes, a kernel fetches what is read
// next.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu_isa.hpp"
#include "topomoe/device.hpp"

namespace topomoe::kernels {

// Lines of 64 bytes to fetch in each step, from here on. Fetching memory that is not there does nothing.
struct PanelAhead {
  const std::byte* from = nullptr;
  int lines = 0;
};

struct PanelBlock {
  const std::byte* a = nullptr;  // [steps][32 rows][32 k] of packed_rows.hpp; beyond `rows` anything
  int rows = 0;                  // 1..32
  int steps = 0;                 // of 32 k
  const std::byte* panel = nullptr;
  float* c = nullptr;  // [32][32], 64-byte aligned; beyond `rows` anything is left; the next call's lies behind it
  bool first = true;   // c is written, not added to
  PanelAhead weights_ahead = {}, rows_ahead = {};
};

struct PanelKernel {
  void (*multiply)(const PanelBlock&);
  // Around all calls of a thread in one piece: tile registers have a state. Null: nothing to do.
  void (*begin)() = nullptr;
  void (*end)() = nullptr;
  // In multiples of AVX-512 in fp32, which progress.hpp counts in.
  std::int64_t speed = 1;
};

PanelKernel panel_kernel(CpuIsa isa, DType dtype);

// One file each.
PanelKernel panel_kernel_portable(DType dtype);
PanelKernel panel_kernel_avx2(DType dtype);
PanelKernel panel_kernel_avx512(DType dtype);
PanelKernel panel_kernel_avx512_bf16();
PanelKernel panel_kernel_amx();

}  // namespace topomoe::kernels
