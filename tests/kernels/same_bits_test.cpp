// Operations that promise the same bits on a GPU as on the CPU: one order of addition, no contraction.
// (gather_rows and ordered_sum have it from their own tests, which are exact.)
#include "kernels/sum_rows.hpp"
#include "tests/kernels/on_device.hpp"
#include "topomoe/device_cpu.hpp"

namespace topomoe::test {
namespace {

class SameBitsAsCpu : public OnDevice {
 protected:
  static constexpr std::int64_t kRows = 37, kSourceRows = 50;
  static constexpr int kSlots = 6;

  Floats sums(Device& device, std::int64_t columns, DType dtype) {
    Random random(21);
    const Tensor in(device, random.reals(kSourceRows * columns), dtype);
    const Tensor out(device, random.reals(kRows * columns), dtype);
    const Tensor weight(device, random.reals(kRows * kSlots));
    const IntTensor position(device, random.wholes(kRows * kSlots, -1, kSourceRows - 1));
    device.sum_rows(Lane::compute, {.out = out.data(),
                                    .in = in.data(),
                                    .position = position.data(),
                                    .weight = weight.floats(),
                                    .rows = kRows,
                                    .columns = columns,
                                    .k = kSlots,
                                    .accumulate = true,
                                    .dtype = dtype});
    device.synchronize(soon());
    return out.read();
  }
  Floats dots(Device& device, std::int64_t columns, DType dtype) {
    Random random(22);
    const Tensor a(device, random.reals(kRows * columns), dtype);
    const Tensor b(device, random.reals(kSourceRows * columns), dtype);
    const Tensor out(device, Floats(kRows * kSlots));
    const IntTensor position(device, random.wholes(kRows * kSlots, -1, kSourceRows - 1));
    device.row_dots(Lane::compute, {.out = out.floats(),
                                    .a = a.data(),
                                    .b = b.data(),
                                    .position = position.data(),
                                    .rows = kRows,
                                    .columns = columns,
                                    .k = kSlots,
                                    .dtype = dtype});
    device.synchronize(soon());
    return out.read();
  }
};

TEST_F(SameBitsAsCpu, SumRowsAndRowDots) {
  const auto cpu = make_cpu_device();
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::int64_t columns : {1, 31, 64, 250, 1024}) {
      EXPECT_TRUE(same_bits(sums(*device_, columns, dtype), sums(*cpu, columns, dtype))) << columns << " columns";
      EXPECT_TRUE(same_bits(dots(*device_, columns, dtype), dots(*cpu, columns, dtype))) << columns << " columns";
    }
  }
}

}  // namespace
}  // namespace topomoe::test
