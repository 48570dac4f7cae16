#include "kernels/fp8.hpp"

#include <gtest/gtest.h>

#include <limits>

namespace topomoe::kernels {
namespace {

// OCP 8-bit floating point, revision 1.0: (-1)^s 2^(e - 7) (1 + m / 8); e = 0: (-1)^s 2^-6 m / 8.
double value_of(unsigned code) {
  const unsigned e = code >> 3 & 15U, m = code & 7U;
  const double size = e == 0 ? std::ldexp(m / 8.0, -6) : std::ldexp(1 + m / 8.0, static_cast<int>(e) - 7);
  return code & 0x80U ? -size : size;
}

bool is_nan(unsigned code) { return (code & 0x7FU) == 0x7F; }

TEST(Fp8, EveryCode_HasItsValue) {
  for (unsigned code = 0; code < 256; ++code) {
    const float value = to_float(Fp8{static_cast<std::uint8_t>(code)});
    if (is_nan(code)) {
      EXPECT_TRUE(std::isnan(value)) << code;
    } else {
      EXPECT_EQ(static_cast<double>(value), value_of(code)) << code;
      EXPECT_EQ(std::signbit(value), (code & 0x80U) != 0) << code;
    }
  }
}

TEST(Fp8, EveryCode_ComesBack) {
  for (unsigned code = 0; code < 256; ++code) {
    const unsigned back = to_fp8(to_float(Fp8{static_cast<std::uint8_t>(code)})).code;
    EXPECT_EQ(back, is_nan(code) ? kFp8Nan : code);
  }
}

// Between neighbours: below the middle the lower, above it the upper, in the middle the even one.
TEST(Fp8, BetweenCodes_TheNearerOneThenTheEvenOne) {
  for (unsigned code = 0; code < 0x7E; ++code) {
    const float low = to_float(Fp8{static_cast<std::uint8_t>(code)});
    const float high = to_float(Fp8{static_cast<std::uint8_t>(code + 1)});
    const float middle = (low + high) / 2;
    EXPECT_EQ(to_fp8(middle).code, code % 2 == 0 ? code : code + 1) << code;
    EXPECT_EQ(to_fp8(std::nextafter(middle, 0.0F)).code, code) << code;
    EXPECT_EQ(to_fp8(std::nextafter(middle, 1000.0F)).code, code + 1) << code;
    EXPECT_EQ(to_fp8(-middle).code, to_fp8(middle).code | 0x80U) << code;
  }
}

TEST(Fp8, BeyondTheLargest_IsTheLargest) {
  for (const float x : {448.0F, 464.0F, 480.0F, 1e30F, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(to_fp8(x).code, 0x7E) << x;
    EXPECT_EQ(to_fp8(-x).code, 0xFE) << x;
  }
}

TEST(Fp8, TinyAndNan) {
  EXPECT_EQ(to_fp8(1e-30F).code, 0);
  EXPECT_EQ(to_fp8(-1e-30F).code, 0x80);
  EXPECT_EQ(to_fp8(0x1p-10F).code, 0);  // the middle between 0 and the least
  EXPECT_EQ(to_fp8(std::nextafter(0x1p-10F, 1.0F)).code, 1);
  EXPECT_EQ(to_fp8(std::numeric_limits<float>::quiet_NaN()).code, kFp8Nan);
  EXPECT_EQ(to_fp8(-std::numeric_limits<float>::quiet_NaN()).code, kFp8Nan);
}

}  // namespace
}  // namespace topomoe::kernels
