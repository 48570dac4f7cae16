#include "kernels/ordered_sum.hpp"

#include "tests/kernels/on_device.hpp"

namespace topomoe::test {
namespace {

class OrderedSum : public OnDevice {
 protected:
  // Exact: the reference adds in the same order in fp32.
  void check(std::int64_t rows, std::int64_t columns, int blocks, DType dtype, bool in_place) {
    const auto count = static_cast<std::size_t>(rows * columns);
    const Floats in = Random(3).reals(rows * columns * blocks, dtype);
    Floats expected(count);
    for (std::size_t i = 0; i < count; ++i) {
      for (int block = 0; block < blocks; ++block) {
        const float value = in[static_cast<std::size_t>(block) * count + i];
        expected[i] = block == 0 ? value : expected[i] + value;
      }
      expected[i] = rounded(expected[i], dtype);
    }
    const Tensor source = tensor(in, dtype);
    const Tensor other = tensor(Floats(count, 7.0F), dtype);
    const Tensor& out = in_place ? source : other;
    device_->ordered_sum(
        Lane::compute,
        {.out = out.data(), .in = source.data(), .rows = rows, .columns = columns, .blocks = blocks, .dtype = dtype});
    device_->synchronize(soon());
    Floats actual = out.read();
    actual.resize(count);
    EXPECT_TRUE(same_bits(actual, expected)) << rows << " x " << columns << ", " << blocks << " blocks";
  }
};

TEST_F(OrderedSum, AnyNumberOfBlocks_AddsInBlockOrder) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const int blocks : {0, 1, 2, 3, 8}) {
      for (const int columns : {1, 7, 64, 515}) check(5, columns, blocks, dtype, false);
    }
  }
}

TEST_F(OrderedSum, OutIsTheFirstBlock_Works) {
  check(9, 130, 4, DType::f32, true);
  check(9, 130, 4, DType::bf16, true);
}

TEST_F(OrderedSum, NoRows_WritesNothing) { check(0, 64, 4, DType::f32, false); }

}  // namespace
}  // namespace topomoe::test
