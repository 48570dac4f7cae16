// Which instructions the host kernels use. Asked of the CPU once (cpuid; for AMX also the operating system, which has
// to let a process use tile registers); tests take less to run what other machines would.
//
// Results differ between levels by rounding only, and are the same for any number of rows and threads on one level.
#pragma once

#include <string_view>
#include <vector>

namespace topomoe::kernels {

enum class CpuIsa {
  portable,     // what the compiler makes of plain C++
  avx2,         // with FMA
  avx512,       // F, BW, VL, DQ
  avx512_bf16,  // and dot products of bf16
  amx,          // and tiles of bf16
};

// The best that this process may use.
CpuIsa best_isa();
std::string_view name(CpuIsa);  // "avx512_bf16"
// By name, at most best_isa(); InvalidInput lists what there is.
CpuIsa isa_named(std::string_view name);
// All that this process may use, portable first.
std::vector<CpuIsa> usable_isas();

}  // namespace topomoe::kernels
