#include "kernels/bf16.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace topomoe::kernels {
namespace {

float from_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }

TEST(Bf16, EveryValue_ToFloatAndBack_IsUnchanged) {
  for (std::uint32_t bits = 0; bits < 0x10000U; ++bits) {
    const Bf16 value{static_cast<std::uint16_t>(bits)};
    const float wide = to_float(value);
    if (std::isnan(wide)) {
      ASSERT_TRUE(std::isnan(to_float(to_bf16(wide))));
    } else {
      ASSERT_EQ(to_bf16(wide).bits, value.bits);
    }
  }
}

TEST(Bf16, HalfWay_RoundsToEven) {
  // 1 + 2^-8 lies half way between 1 (0x3F80, even) and 1 + 2^-7 (0x3F81, odd).
  EXPECT_EQ(to_bf16(from_bits(0x3F808000U)).bits, 0x3F80);
  EXPECT_EQ(to_bf16(from_bits(0x3F818000U)).bits, 0x3F82);
  EXPECT_EQ(to_bf16(from_bits(0x3F808001U)).bits, 0x3F81);
  EXPECT_EQ(to_bf16(from_bits(0x3F807FFFU)).bits, 0x3F80);
}

TEST(Bf16, BeyondTheLargest_BecomesInfinity) {
  EXPECT_TRUE(std::isinf(to_float(to_bf16(std::numeric_limits<float>::max()))));
  EXPECT_EQ(to_bf16(-std::numeric_limits<float>::infinity()).bits, 0xFF80);
}

TEST(Bf16, NanWithLowPayload_StaysNan) {
  // Plain rounding would carry 0x7FFFFFFF into -0, and truncation 0x7F800001 into infinity.
  EXPECT_TRUE(std::isnan(to_float(to_bf16(from_bits(0x7FFFFFFFU)))));
  EXPECT_TRUE(std::isnan(to_float(to_bf16(from_bits(0x7F800001U)))));
  EXPECT_TRUE(std::isnan(to_float(to_bf16(from_bits(0xFF800001U)))));
}

}  // namespace
}  // namespace topomoe::kernels
