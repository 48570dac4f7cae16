// Operations that promise the same bits on a GPU as on the CPU: one order of addition, no contraction.
// (gather_rows and ordered_sum have it from their own tests, which are exact.)
#include <array>
#include <limits>

#include "kernels/router.hpp"
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

// Logits are tokens of one column times a weight a row: tokens of 1 give them as they are.
struct Routing {
  Floats logits, bias;
  Ints ids;
  Floats weights;
};

Routing route(Device& device, Random random, Scoring scoring) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
  const int of_group = std::array{1, 2, 5, 32}[static_cast<std::size_t>(random.whole(0, 3))],
            groups = random.whole(1, 9);
  const int experts = of_group * groups, topk_groups = random.whole((groups + 1) / 2, groups);
  const int k = random.whole(1, std::min(topk_groups * of_group, kernels::kMaxTopK));
  constexpr std::int64_t rows = 7;
  Routing r;
  const float spread = std::array{1e-6F, 1.0F, 10.0F, 200.0F}[static_cast<std::size_t>(random.whole(0, 3))];
  for (int e = 0; e < experts; ++e) {
    const int kind = random.whole(0, 40);
    const bool tie = kind < 12 && e > 0;
    r.logits.push_back(tie ? r.logits[static_cast<std::size_t>(random.whole(0, e - 1))] : spread * random.real());
    if (kind == 40)
      r.logits.back() = std::array{kInfinity, -kInfinity, kNan, -0.0F}[static_cast<std::size_t>(random.whole(0, 3))];
    r.bias.push_back(random.whole(0, 3) == 0 ? 0.0F : random.real());
  }
  const Tensor tokens(device, {1, 1, -1, 0.5F, 0, 3, -0.001F}), weight(device, r.logits), bias(device, r.bias);
  const Tensor logits(device, Floats(static_cast<std::size_t>(rows * experts)));
  const Tensor weights(device, Floats(static_cast<std::size_t>(rows * k)));
  const IntTensor ids(device, Ints(static_cast<std::size_t>(rows * k), -7));
  device.router(Lane::compute,
                {.tokens = tokens.data(),
                 .weight = weight.data(),
                 .bias = random.whole(0, 1) == 0 ? nullptr : bias.floats(),
                 .logits = logits.floats(),
                 .ids = ids.data(),
                 .weights = weights.floats(),
                 .rows = rows,
                 .hidden = 1,
                 .experts = experts,
                 .k = k,
                 .renormalize = random.whole(0, 1) == 0,
                 .options = {.scoring = scoring, .groups = groups, .topk_groups = topk_groups, .scale = 2.5F}});
  device.synchronize(soon());
  r.logits = logits.read(), r.ids = ids.read(), r.weights = weights.read();
  for (Floats* values : {&r.logits, &r.weights})
    for (float& v : *values) v = std::isnan(v) ? kNan : v;  // which NaN is nobody's promise
  return r;
}

// Ties, NaN, infinities, groups, bias: the same choice and the same weights.
TEST_F(SameBitsAsCpu, RouterIdsAndWeights) {
  const auto cpu = make_cpu_device();
  for (const Scoring scoring : {Scoring::softmax, Scoring::sigmoid}) {
    for (unsigned seed = 1; seed <= 60; ++seed) {
      const Routing here = route(*device_, Random(seed), scoring), there = route(*cpu, Random(seed), scoring);
      EXPECT_TRUE(same_bits(here.logits, there.logits)) << seed;
      EXPECT_EQ(here.ids, there.ids) << seed;
      EXPECT_TRUE(same_bits(here.weights, there.weights)) << seed;
    }
  }
}

TEST_F(SameBitsAsCpu, SumRowsAndRowDots) {
  const auto cpu = make_cpu_device();
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::int64_t columns : {1, 31, 64, 250, 264, 300, 1024}) {
      EXPECT_TRUE(same_bits(sums(*device_, columns, dtype), sums(*cpu, columns, dtype))) << columns << " columns";
      EXPECT_TRUE(same_bits(dots(*device_, columns, dtype), dots(*cpu, columns, dtype))) << columns << " columns";
    }
  }
}

}  // namespace
}  // namespace topomoe::test
