// Stands in for CUDA's header of that name, for the SIMT harness: e4m3 alone (OCP 8-bit floating point, revision 1.0:
// bias 7, no infinities, largest 448, all ones are NaN).
#pragma once

#include <cuda_runtime.h>

using __nv_fp8_storage_t = unsigned char;
enum __nv_saturation_t { __NV_NOSAT, __NV_SATFINITE };
enum __nv_fp8_interpretation_t { __NV_E4M3 };

// To nearest, ties to even. Beyond 448: 448 with __NV_SATFINITE, else NaN from where rounding leaves 448.
inline __nv_fp8_storage_t __nv_cvt_float_to_fp8(float x, __nv_saturation_t saturation, __nv_fp8_interpretation_t) {
  if (isnan(x)) return 0x7F;
  const unsigned sign = signbit(x) ? 0x80U : 0U;
  const float size = fabsf(x);
  if (size > 464.0F || (size > 448.0F && saturation == __NV_SATFINITE))
    return static_cast<__nv_fp8_storage_t>(sign | (saturation == __NV_SATFINITE ? 0x7EU : 0x7FU));
  int exponent = size < 0x1p-6F ? -6 : ilogbf(size);  // subnormals share the least exponent
  unsigned eighths = static_cast<unsigned>(nearbyintf(ldexpf(size, 3 - exponent)));
  if (eighths == 16) {
    eighths = 8;
    ++exponent;
  }
  return static_cast<__nv_fp8_storage_t>(
      sign | (eighths < 8 ? eighths : (static_cast<unsigned>(exponent + 7) << 3 | (eighths - 8))));
}

struct __nv_fp8_e4m3 {
  __nv_fp8_storage_t __x;
  __nv_fp8_e4m3() = default;
  explicit __nv_fp8_e4m3(float x) : __x(__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3)) {}
  explicit operator float() const {
    const unsigned exponent = __x >> 3 & 15U, eighths = __x & 7U;
    if ((__x & 0x7FU) == 0x7FU) return __uint_as_float(0x7FFFFFFFU);
    const float size = exponent == 0 ? ldexpf(static_cast<float>(eighths), -9)
                                     : ldexpf(static_cast<float>(8 + eighths), static_cast<int>(exponent) - 10);
    return __x & 0x80U ? -size : size;
  }
};
