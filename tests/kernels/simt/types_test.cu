// Element types that stand in for CUDA's: bf16 against the host kernels' own, e4m3 against its definition.
#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/bf16.hpp"

namespace topomoe::kernels {
namespace {

TEST(SimtBf16, EveryValue_IsTheHostKernels) {
  for (unsigned bits = 0; bits < 0x10000U; ++bits) {
    const auto half = static_cast<unsigned short>(bits);
    const float x = __bfloat162float(__ushort_as_bfloat16(half));
    if (std::isnan(x)) continue;
    EXPECT_EQ(x, to_float(Bf16{half}));
    // What lies between this and the next: below, at and above the middle.
    for (const unsigned below : {0x0000U, 0x7FFFU, 0x8000U, 0x8001U, 0xFFFFU}) {
      const float y = __uint_as_float(bits << 16 | below);
      if (std::isnan(y)) continue;
      EXPECT_EQ(__bfloat16_as_ushort(__float2bfloat16_rn(y)), to_bf16(y).bits) << y;
    }
  }
}

TEST(SimtBf16, Nan_StaysOne) { EXPECT_EQ(__float2bfloat16_rn(std::numeric_limits<float>::quiet_NaN()).bits, 0x7FFF); }

// 2^(e - 7) (1 + m / 8), or m 2^-9 with e = 0; S.1111.111 is NaN.
TEST(SimtFp8, EveryValue_ThereAndBack) {
  for (int bits = 0; bits < 256; ++bits) {
    __nv_fp8_e4m3 x;
    x.__x = static_cast<__nv_fp8_storage_t>(bits);
    const float value = static_cast<float>(x);
    if ((bits & 0x7F) == 0x7F) {
      EXPECT_TRUE(std::isnan(value));
      continue;
    }
    const int e = bits >> 3 & 15, m = bits & 7;
    const double size = e == 0 ? std::ldexp(m, -9) : std::ldexp(8 + m, e - 10);
    EXPECT_EQ(value, bits < 128 ? size : -size);
    EXPECT_EQ(__nv_fp8_e4m3(value).__x, bits);
  }
}

TEST(SimtFp8, Rounding_IsToNearestTiesToEven) {
  const auto bits = [](double x) { return __nv_cvt_float_to_fp8(static_cast<float>(x), __NV_SATFINITE, __NV_E4M3); };
  EXPECT_EQ(bits(17.0), 0x58);                   // between 16 (m = 0) and 18: even
  EXPECT_EQ(bits(19.0), 0x5A);                   // between 18 (m = 1) and 20
  EXPECT_EQ(bits(17.01), 0x59);                  // 18
  EXPECT_EQ(bits(31.0), 0x60);                   // between 30 (m = 7) and 32, the next exponent
  EXPECT_EQ(bits(std::ldexp(1, -10)), 0x00);     // half the least: even is 0
  EXPECT_EQ(bits(std::ldexp(1.01, -10)), 0x01);  // 2^-9
  EXPECT_EQ(bits(std::ldexp(15.9, -10)), 0x08);  // the largest subnormal is 7 2^-9; up to 2^-6
  EXPECT_EQ(bits(-0.0), 0x80);
}

TEST(SimtFp8, Beyond448_IsNanOr448) {
  const auto bits = [](float x, __nv_saturation_t s) { return __nv_cvt_float_to_fp8(x, s, __NV_E4M3); };
  EXPECT_EQ(bits(464.0F, __NV_NOSAT), 0x7E);  // between 448 and 480, which there is not: even is 448
  EXPECT_EQ(bits(465.0F, __NV_NOSAT), 0x7F);
  EXPECT_EQ(bits(-1e30F, __NV_NOSAT), 0xFF);
  EXPECT_EQ(bits(-1e30F, __NV_SATFINITE), 0xFE);
  EXPECT_EQ(bits(std::numeric_limits<float>::infinity(), __NV_SATFINITE), 0x7E);
}

}  // namespace
}  // namespace topomoe::kernels
