#include "kernels/gather_rows.hpp"

#include "tests/kernels/on_device.hpp"

namespace topomoe::test {
namespace {

class GatherRows : public OnDevice {
 protected:
  // Exact: one multiplication and one rounding, or none.
  void check(std::int64_t rows, std::int64_t source_rows, std::int64_t columns, bool scaled, DType dtype) {
    Random random(static_cast<unsigned>(rows * 31 + columns));
    const Floats in = random.reals(source_rows * columns, dtype);
    const Ints map = random.wholes(rows, -1, static_cast<int>(source_rows) - 1);
    const Floats scale = random.reals(rows);
    Floats expected;
    for (std::size_t row = 0; row < map.size(); ++row) {
      for (std::int64_t i = 0; i < columns; ++i) {
        const float value = map[row] < 0 ? 0.0F : in[static_cast<std::size_t>(map[row] * columns + i)];
        expected.push_back(map[row] < 0 ? 0.0F : rounded(scaled ? scale[row] * value : value, dtype));
      }
    }
    const Tensor source = tensor(in, dtype);
    const Tensor factors = tensor(scale);
    const IntTensor source_row = ints(map);
    const Tensor out = tensor(Floats(expected.size(), 7.0F), dtype);
    device_->gather_rows(Lane::copy, {.out = out.data(),
                                      .in = source.data(),
                                      .source_row = source_row.data(),
                                      .scale = scaled ? factors.floats() : nullptr,
                                      .rows = rows,
                                      .columns = columns,
                                      .dtype = dtype});
    device_->synchronize(soon());
    EXPECT_TRUE(same_bits(out.read(), expected)) << rows << " rows of " << columns << (scaled ? ", scaled" : "");
  }
};

TEST_F(GatherRows, RandomMaps_MatchExactly) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const bool scaled : {false, true}) {
      for (const int rows : {1, 3, 33, 130}) {
        for (const int columns : {1, 7, 8, 64, 250, 1024}) check(rows, 17, columns, scaled, dtype);
      }
    }
  }
}

TEST_F(GatherRows, NoRows_WritesNothing) { check(0, 4, 16, true, DType::f32); }

TEST_F(GatherRows, NoSourceRows_WritesZeros) { check(5, 0, 16, false, DType::bf16); }

}  // namespace
}  // namespace topomoe::test
