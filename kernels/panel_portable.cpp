// Plain loops over 32 columns, which compilers make vectors of; and who takes which kernel.
#include "kernels/bf16.hpp"
#include "kernels/panel_kernels.hpp"

namespace topomoe::kernels {
namespace {

template <class T>
void multiply(const PanelBlock& b) {
  for (int r = 0; r < b.rows; ++r) {
    float* const c = b.c + r * 32;
    if (b.first)
      for (int j = 0; j < 32; ++j) c[j] = 0.0F;
    const T* a = reinterpret_cast<const T*>(b.a) + r * 32;
    const T* w = reinterpret_cast<const T*>(b.panel);
    for (int k = 0; k < b.steps * 32; ++k, w += 32) {
      const float x = to_float(a[k / 32 * 1024 + k % 32]);
      for (int j = 0; j < 32; ++j) c[j] += x * to_float(w[j]);
    }
  }
}

}  // namespace

PanelKernel panel_kernel_portable(DType dtype) { return {dtype == DType::f32 ? multiply<float> : multiply<Bf16>}; }

PanelKernel panel_kernel(CpuIsa isa, DType dtype) {
#if defined(__x86_64__)
  if (dtype == DType::bf16 && isa == CpuIsa::amx) return panel_kernel_amx();
  if (dtype == DType::bf16 && isa == CpuIsa::avx512_bf16) return panel_kernel_avx512_bf16();
  if (isa >= CpuIsa::avx512) return panel_kernel_avx512(dtype);
  if (isa == CpuIsa::avx2) return panel_kernel_avx2(dtype);
#endif
  return panel_kernel_portable(dtype);
}

}  // namespace topomoe::kernels
