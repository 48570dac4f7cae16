#include "kernels/sum_rows.hpp"

#include "tests/kernels/on_device.hpp"

namespace topomoe::test {
namespace {

struct Shape {
  std::int64_t rows, source_rows, columns;
  int k;
};

class SumRows : public OnDevice {
 protected:
  // Bound: k roundings of fp32 in the sum, k in the products, and one of dtype.
  void check(const Shape& shape, bool weighted, bool accumulate, DType dtype) {
    Random random(static_cast<unsigned>(shape.rows * 7 + shape.columns));
    const Floats in = random.reals(shape.source_rows * shape.columns, dtype);
    const Floats before = random.reals(shape.rows * shape.columns, dtype);
    const Ints map = random.wholes(shape.rows * shape.k, -1, static_cast<int>(shape.source_rows) - 1);
    const Floats weights = random.reals(shape.rows * shape.k);
    Doubles expected;
    for (std::int64_t row = 0; row < shape.rows; ++row) {
      for (std::int64_t i = 0; i < shape.columns; ++i) {
        double sum = accumulate ? before[static_cast<std::size_t>(row * shape.columns + i)] : 0.0;
        for (std::int64_t slot = row * shape.k; slot < (row + 1) * shape.k; ++slot) {
          const std::int32_t position = map[static_cast<std::size_t>(slot)];
          if (position < 0) continue;
          const double weight = weighted ? weights[static_cast<std::size_t>(slot)] : 1.0;
          sum += weight * in[static_cast<std::size_t>(position * shape.columns + i)];
        }
        expected.push_back(sum);
      }
    }
    const Tensor source = tensor(in, dtype);
    const Tensor factors = tensor(weights);
    const IntTensor position = ints(map);
    const Tensor out = tensor(before, dtype);
    device_->sum_rows(Lane::compute, {.out = out.data(),
                                      .in = source.data(),
                                      .position = position.data(),
                                      .weight = weighted ? factors.floats() : nullptr,
                                      .rows = shape.rows,
                                      .columns = shape.columns,
                                      .k = shape.k,
                                      .accumulate = accumulate,
                                      .dtype = dtype});
    device_->synchronize(soon());
    const double terms = shape.k + 1;  // each at most 1
    const double bound = terms * (2 * terms * unit_roundoff(DType::f32) + unit_roundoff(dtype));
    expect_near(out.read(), expected, bound, "sum");
  }
};

TEST_F(SumRows, RandomMaps_StayWithinTheBound) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const auto& [weighted, accumulate] : {std::pair(true, false), std::pair(false, true), std::pair(true, true)}) {
      for (const Shape& shape : {Shape{1, 1, 1, 1}, {5, 9, 33, 2}, {33, 40, 64, 8}, {4, 3, 1000, 16}}) {
        check(shape, weighted, accumulate, dtype);
      }
    }
  }
}

TEST_F(SumRows, NoRowsOrNoSlots_Work) {
  check({0, 3, 8, 2}, true, false, DType::f32);
  check({3, 0, 8, 2}, true, false, DType::f32);  // all positions are -1: zeros
  check({3, 3, 8, 0}, true, true, DType::bf16);  // nothing to add: out stays
}

TEST_F(SumRows, SlotsAreAddedInOrder) {
  // 1 + 2^-24 is 1 in fp32, twice over; 2^-24 + 2^-24 + 1 is not.
  const float tiny = std::ldexp(1.0F, -24);
  const Tensor in = tensor({1.0F, tiny, tiny});
  const IntTensor position = ints({0, 1, 2, 1, 2, 0});
  const Tensor out = zeros(2);
  device_->sum_rows(Lane::compute,
                    {.out = out.data(), .in = in.data(), .position = position.data(), .rows = 2, .columns = 1, .k = 3});
  device_->synchronize(soon());
  EXPECT_EQ(out.read(), (Floats{1.0F, 1.0F + 2 * tiny}));
}

class RowDots : public OnDevice {
 protected:
  Floats dots(const Floats& a, const Floats& b, const Ints& map, std::int64_t columns, int k, DType dtype) {
    const Tensor left = tensor(a, dtype);
    const Tensor right = tensor(b, dtype);
    const IntTensor position = ints(map);
    const Tensor out = tensor(Floats(map.size(), 7.0F));
    device_->row_dots(Lane::compute, {.out = out.floats(),
                                      .a = left.data(),
                                      .b = right.data(),
                                      .position = position.data(),
                                      .rows = static_cast<std::int64_t>(a.size()) / columns,
                                      .columns = columns,
                                      .k = k,
                                      .dtype = dtype});
    device_->synchronize(soon());
    return out.read();
  }
};

TEST_F(RowDots, RandomMaps_StayWithinTheBound) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Shape& shape : {Shape{1, 1, 1, 1}, {5, 9, 31, 2}, {9, 4, 100, 8}, {3, 3, 1024, 16}, {0, 3, 8, 2}}) {
      Random random(5);
      const Floats a = random.reals(shape.rows * shape.columns, dtype);
      const Floats b = random.reals(shape.source_rows * shape.columns, dtype);
      const Ints map = random.wholes(shape.rows * shape.k, -1, static_cast<int>(shape.source_rows) - 1);
      Doubles expected;
      for (std::size_t slot = 0; slot < map.size(); ++slot) {
        double sum = 0;
        const std::int64_t row = static_cast<std::int64_t>(slot) / shape.k;
        for (std::int64_t i = 0; i < shape.columns && map[slot] >= 0; ++i) {
          sum += static_cast<double>(a[static_cast<std::size_t>(row * shape.columns + i)]) *
                 b[static_cast<std::size_t>(map[slot] * shape.columns + i)];
        }
        expected.push_back(sum);
      }
      // A lane adds columns/32 products, then five foldings; every product is at most 1.
      const double additions = static_cast<double>(shape.columns) / 32 + 7;
      const double bound = additions * static_cast<double>(shape.columns) * unit_roundoff(DType::f32);
      expect_near(dots(a, b, map, shape.columns, shape.k, dtype), expected, bound, "dots");
    }
  }
}

TEST_F(RowDots, Row_AloneOrAmongOthers_HasTheSameBits) {
  for (const std::int64_t columns : {8, 64, 96, 256}) {
    Random random(6);
    const Floats a = random.reals(70 * columns);
    const Floats b = random.reals(70 * columns);
    Ints map(70);
    for (int i = 0; i < 70; ++i) map[static_cast<std::size_t>(i)] = 69 - i;
    const Floats all = dots(a, b, map, columns, 1, DType::f32);
    for (const int row : {0, 1, 31, 32, 68, 69}) {
      const Floats only(a.begin() + row * columns, a.begin() + (row + 1) * columns);
      const Floats alone = dots(only, b, {map[static_cast<std::size_t>(row)]}, columns, 1, DType::f32);
      EXPECT_TRUE(same_bits(alone.data(), &all[static_cast<std::size_t>(row)], 1)) << "row " << row;
    }
  }
}

}  // namespace
}  // namespace topomoe::test
