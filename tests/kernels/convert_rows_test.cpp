#include "kernels/convert_rows.hpp"

#include <cstring>
#include <limits>

#include "kernels/fp8.hpp"
#include "tests/kernels/on_device.hpp"

namespace topomoe::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class ConvertRows : public OnDevice {
 protected:
  struct Converted {
    Bytes codes;
    Floats scales, back;
  };
  // To fp8 and back.
  Converted convert(const Floats& values, std::int64_t rows, std::int64_t columns, DType dtype) {
    const Tensor in = tensor(values, dtype), out = tensor(Floats(values.size(), 7.0F), dtype);
    const ByteTensor codes(*device_, Bytes(values.size(), 0x55));
    const Tensor scales = tensor(Floats(static_cast<std::size_t>(rows * kernels::scales_of(columns)), 7.0F));
    device_->to_fp8(Lane::compute, {.out = codes.data(),
                                    .scales = scales.floats(),
                                    .in = in.data(),
                                    .rows = rows,
                                    .columns = columns,
                                    .dtype = dtype});
    device_->from_fp8(Lane::compute, {.out = out.data(),
                                      .in = codes.data(),
                                      .scales = scales.floats(),
                                      .rows = rows,
                                      .columns = columns,
                                      .dtype = dtype});
    device_->synchronize(soon());
    return {codes.read(), scales.read(), out.read()};
  }
};

// With a scale of 1 and 448 in each group, all 256 codes but NaNs come back as themselves.
TEST_F(ConvertRows, EveryCode_IsWhatItsValueBecomes) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Floats values;
    for (unsigned code = 0; code < 256; ++code)
      values.push_back(to_float(kernels::Fp8{static_cast<std::uint8_t>(code)}));
    // Two groups of 128: codes from 0x00, then those with a sign, each up to 448 and a NaN.
    const Converted out = convert(values, 1, 256, dtype);
    EXPECT_EQ(out.scales, (Floats{1.0F, 1.0F}));
    for (unsigned code = 0; code < 256; ++code) {
      const bool nan = (code & 0x7FU) == 0x7F;
      EXPECT_EQ(out.codes[code], nan ? kernels::kFp8Nan : code);
      EXPECT_TRUE(nan ? std::isnan(out.back[code]) : same_bits(&out.back[code], &values[code], 1)) << code;
    }
  }
}

// To one part in 16, or 2^-10 of a scale where e4m3 has no more digits.
TEST_F(ConvertRows, RandomRows_ComeBackWithinTheBound) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::int64_t columns : {1, 7, 16, 128, 130, 144, 384, 1000}) {
      constexpr std::int64_t rows = 9;
      Random random(static_cast<unsigned>(columns));
      Floats values = random.reals(rows * columns, dtype);
      for (float& v : values) v = rounded(std::ldexp(v, random.whole(-12, 12)), dtype);
      const Converted out = convert(values, rows, columns, dtype);
      for (std::size_t i = 0; i < values.size(); ++i) {
        const auto row = static_cast<std::int64_t>(i) / columns, column = static_cast<std::int64_t>(i) % columns;
        const std::int64_t group = row * kernels::scales_of(columns) + column / kernels::kScaleGroup;
        const double scale = out.scales[static_cast<std::size_t>(group)], size = std::abs(values[i]);
        const double bound = std::max(size / 16, scale * 0x1p-10) * (1 + 1e-6) + unit_roundoff(dtype) * size * 1.1;
        ASSERT_LE(std::abs(static_cast<double>(out.back[i]) - values[i]), bound) << columns << " columns, " << i;
      }
    }
  }
}

// Each group by itself: 448 times its scale is its largest.
TEST_F(ConvertRows, EachGroup_HasItsOwnScale) {
  Floats values(3 * 128 + 5, 0.5F);
  values[10] = -448.0F;
  values[130] = 896.0F;
  values[3 * 128 + 4] = 0x1p-100F * 448.0F;
  for (std::size_t i = 0; i < 4; ++i) values[3 * 128 + i] = 0;
  const Converted out = convert(values, 1, static_cast<std::int64_t>(values.size()), DType::f32);
  EXPECT_EQ(out.scales, (Floats{1.0F, 2.0F, 0.5F / 448.0F, 0x1p-100F}));
  EXPECT_EQ(out.back[10], -448.0F);
  EXPECT_EQ(out.back[130], 896.0F);
  EXPECT_EQ(out.back[0], 0.5F);
  EXPECT_EQ(out.codes[256], 0x7E);
  EXPECT_EQ(out.back.back(), 0x1p-100F * 448.0F);
}

TEST_F(ConvertRows, ZerosAndTheTiny_KeepSignsAndMakeNoNans) {
  Floats values(256);
  for (std::size_t i = 0; i < 256; i += 2) values[i] = -0.0F;
  values[128] = 0x1p-140F;  // denormal: less than half of the least code
  const Converted out = convert(values, 1, 256, DType::f32);
  EXPECT_EQ(out.scales, (Floats{kernels::kLeastScale, kernels::kLeastScale}));
  values[128] = 0.0F;
  EXPECT_TRUE(same_bits(out.back, values));
}

TEST_F(ConvertRows, WhatIsNotFinite_BecomesNanAndLeavesTheRestAlone) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Floats values(130, 1.75F);
    values[3] = kInfinity, values[5] = -kInfinity, values[7] = kNan, values[129] = kInfinity;
    const Converted out = convert(values, 1, 130, dtype);
    EXPECT_EQ(out.scales, (Floats{1.75F / 448.0F, 1.75F / 448.0F}));
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (i == 3 || i == 5 || i == 7 || i == 129) {
        EXPECT_EQ(out.codes[i], kernels::kFp8Nan);
        EXPECT_TRUE(std::isnan(out.back[i]));
      } else {
        EXPECT_EQ(out.back[i], 1.75F) << i;
      }
    }
  }
}

// In one array, as schedules have them: the same codes and scales, and what lies between stays as it was.
TEST_F(ConvertRows, RowsInOneArray_HaveTheBitsOfTwo) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const std::int64_t columns : {1, 7, 128, 130, 144, 512, 1000}) {
      constexpr std::int64_t rows = 5;
      const std::int64_t bytes = fp8_row_bytes(columns), groups = kernels::scales_of(columns);
      Random random(static_cast<unsigned>(columns));
      const Floats values = random.reals(rows * columns, dtype);
      const Converted two = convert(values, rows, columns, dtype);
      const Tensor in = tensor(values, dtype), out = tensor(Floats(values.size(), 7.0F), dtype);
      const ByteTensor one(*device_, Bytes(static_cast<std::size_t>(rows * bytes), 0x55));
      float* const scales = reinterpret_cast<float*>(one.data() + fp8_scales_at(columns));
      device_->to_fp8(Lane::compute, {.out = one.data(),
                                      .scales = scales,
                                      .in = in.data(),
                                      .rows = rows,
                                      .columns = columns,
                                      .row_bytes = bytes,
                                      .dtype = dtype});
      device_->from_fp8(Lane::compute, {.out = out.data(),
                                        .in = one.data(),
                                        .scales = scales,
                                        .rows = rows,
                                        .columns = columns,
                                        .row_bytes = bytes,
                                        .dtype = dtype});
      device_->synchronize(soon());
      Bytes want(static_cast<std::size_t>(rows * bytes), 0x55);
      for (std::int64_t row = 0; row < rows; ++row) {
        std::uint8_t* const at = want.data() + row * bytes;
        std::memcpy(at, two.codes.data() + row * columns, static_cast<std::size_t>(columns));
        std::memcpy(at + fp8_scales_at(columns), two.scales.data() + row * groups,
                    static_cast<std::size_t>(groups) * sizeof(float));
      }
      EXPECT_EQ(one.read(), want) << columns << " columns";
      EXPECT_TRUE(same_bits(out.read(), two.back)) << columns << " columns";
    }
}

// 7,168: 56 scales, and 7,392 is 462 times 16. 2,880: 23 scales, 2,972, up to 2,976. 5: scales from 8, 12 bytes, 16.
TEST(Fp8Row, Bytes_AreCodesScalesAndWhatMakesThemMultiplesOf16) {
  EXPECT_EQ(fp8_row_bytes(7168), 7168 + 4 * 56);
  EXPECT_EQ(fp8_row_bytes(2880), 2976);
  EXPECT_EQ(fp8_scales_at(5), 8);
  EXPECT_EQ(fp8_row_bytes(5), 16);
  for (std::int64_t columns = 512; columns <= 16384; columns += 512)
    EXPECT_EQ(fp8_row_bytes(columns), columns + columns / 32);
}

TEST_F(ConvertRows, NoRows_WriteNothing) {
  const Converted out = convert({}, 0, 128, DType::bf16);
  EXPECT_TRUE(out.codes.empty() && out.scales.empty() && out.back.empty());
}

}  // namespace
}  // namespace topomoe::test
