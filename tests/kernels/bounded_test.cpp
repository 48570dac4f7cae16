// Bounded mode against exact mode: the same where nothing overflows, and what the contract says where something does.
#include "tests/kernels/moe_pass.hpp"

namespace topomoe::test {
namespace {

class Bounded : public OnDevice {
 protected:
  // In fp32 a CPU's rows have the same bits wherever they lie.
  void expect_alike(const MoePass& bounded, const MoePass& exact) {
    const bool same = device_->memory_space() == MemorySpace::host && bounded.sizes.dtype == DType::f32;
    if (same) {
      EXPECT_TRUE(same_bits(bounded.out.read(), exact.out.read()));
      EXPECT_TRUE(same_bits(bounded.token_grad.read(), exact.token_grad.read()));
    }
    const double error = bounded.sizes.dtype == DType::f32 ? 1e-5 : 16 * unit_roundoff(DType::bf16);
    const auto near = [&](const Tensor& a, const Tensor& b, const char* what) {
      const Floats values = b.read();
      const Doubles expected(values.begin(), values.end());
      expect_near(a.read(), expected, error * (1 + largest(expected)), what);
    };
    near(bounded.out, exact.out, "out");
    near(bounded.token_grad, exact.token_grad, "token gradient");
    near(bounded.experts.w_up_grad, exact.experts.w_up_grad, "w_up gradient");
    near(bounded.experts.w_down_grad, exact.experts.w_down_grad, "w_down gradient");
    if (bounded.experts.shape.gated()) near(bounded.experts.w_gate_grad, exact.experts.w_gate_grad, "w_gate gradient");
  }
};

TEST_F(Bounded, EnoughPlaces_GivesWhatExactModeGives) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const kernels::Activation activation : {kernels::Activation::swiglu, kernels::Activation::gelu}) {
      const MoeSizes sizes{
          .rows = 21, .hidden = 24, .ffn = 10, .k = 3, .experts = 5, .dtype = dtype, .activation = activation};
      const Ints ids = Random(31).wholes(21 * 3, -1, 4);
      const MoePass exact(*device_, sizes, ids, 0, 8), bounded(*device_, sizes, ids, 25, 8);
      exact.run(*device_);
      bounded.run(*device_);
      EXPECT_EQ(bounded.map.read().overflow, 0);
      EXPECT_EQ(bounded.map.read().counts, exact.map.read().counts);
      expect_alike(bounded, exact);
    }
  }
}

TEST_F(Bounded, AllToOneAndNoRows) {
  for (const std::int64_t rows : {0, 13}) {
    const MoeSizes sizes{.rows = rows, .hidden = 8, .ffn = 6, .k = 1, .experts = 3};
    const Ints ids(at(rows), 2);
    const MoePass exact(*device_, sizes, ids, 0, 9), bounded(*device_, sizes, ids, 13, 9);
    exact.run(*device_);
    bounded.run(*device_);
    expect_alike(bounded, exact);
  }
}

// What has no place adds nothing, forward or backward: as if its weight were 0. The rest is what it was.
TEST_F(Bounded, TooFewPlaces_LeaveOutWhatOverflowsAndCountIt) {
  const MoeSizes sizes{.rows = 30, .hidden = 16, .ffn = 8, .k = 2, .experts = 4};
  const Ints ids = Random(32).wholes(60, 0, 3);
  const MoePass exact(*device_, sizes, ids, 0, 10), bounded(*device_, sizes, ids, 10, 10);
  bounded.run(*device_);
  const MapResult map = bounded.map.read();
  int lost = 0;
  for (const int count : map.counts) lost += std::max(0, count - 10);
  EXPECT_GT(lost, 0);
  EXPECT_EQ(map.overflow, lost);
  Floats weights = exact.weights.read();
  for (std::size_t pair = 0; pair < 60; ++pair)
    if (map.position[pair] < 0) weights[pair] = 0;
  exact.weights.write(weights);
  exact.run(*device_);
  expect_alike(bounded, exact);
}

}  // namespace
}  // namespace topomoe::test
