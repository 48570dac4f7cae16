#include "kernels/grouped_ffn.hpp"

#include "tests/kernels/ffn_layer.hpp"

namespace topomoe::test {
namespace {

class GroupedFfn : public OnDevice {
 protected:
  static FfnReference reference_of(const FfnLayer& layer) {
    auto wide = [](const Floats& v) { return Doubles(v.begin(), v.end()); };
    return {layer.shape, wide(layer.in_values), wide(layer.w_gate_values), wide(layer.w_up_values),
            wide(layer.w_down_values)};
  }

  // Relative to the largest value of the tensor. fp32: sums of up to 512 terms, two deep. bf16: every
  // tensor on the way is rounded, to 2^-8 of its own size.
  static double bound(const Doubles& expected, DType dtype) {
    return largest(expected) * unit_roundoff(dtype) * (dtype == DType::f32 ? 200 : 6);
  }

  void check_forward(const FfnShape& shape, DType dtype) {
    const FfnLayer layer(*device_, shape, dtype, 1);
    layer.forward(*device_);
    const Doubles expected = reference_of(layer).out();
    expect_near(layer.out.read(), expected, bound(expected, dtype), "out");
  }

  // Every gradient against central differences of the reference.
  void check_backward(const FfnShape& shape, DType dtype) {
    const FfnLayer layer(*device_, shape, dtype, 2);
    layer.forward(*device_);
    layer.backward(*device_, 0.5F);
    FfnReference reference = reference_of(layer);
    auto scaled = [&](Doubles& values, double scale, double before) {
      Doubles result = differences(values, [&] { return reference.loss(layer.out_grad_values); });
      for (double& x : result) x = before + scale * x;
      return result;
    };
    auto check = [&](const Tensor& actual, const Doubles& expected, const char* what) {
      expect_near(actual.read(), expected, 1e-6 + bound(expected, dtype), what);
    };
    check(layer.in_grad, scaled(reference.in, 1.0, 0.0), "in_grad");
    if (shape.gated()) check(layer.w_gate_grad, scaled(reference.w_gate, 0.5, 0.25), "w_gate_grad");
    check(layer.w_up_grad, scaled(reference.w_up, 0.5, 0.25), "w_up_grad");
    check(layer.w_down_grad, scaled(reference.w_down, 0.5, 0.25), "w_down_grad");
  }
};

constexpr kernels::Activation kAll[] = {kernels::Activation::swiglu, kernels::Activation::gelu};

TEST_F(GroupedFfn, Forward_MatchesDouble) {
  for (const kernels::Activation activation : kAll) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      check_forward({{0, 1}, 1, 1, activation}, dtype);
      check_forward({{0, 9}, 96, 48, activation}, dtype);                 // one expert
      check_forward({{0, 3, 3, 40, 41, 41}, 33, 17, activation}, dtype);  // odd sizes, experts without rows
      check_forward({{0, 0, 0, 70, 70}, 64, 128, activation}, dtype);     // all to one
      check_forward({{0, 5, 10, 15, 20}, 24, 40, activation}, dtype);     // as many to each
      check_forward({{0, 5, 10, 16, 20, 24, 29, 30, 32}, 24, 96, activation}, dtype);
    }
  }
}

TEST_F(GroupedFfn, Backward_MatchesFiniteDifferences) {
  for (const kernels::Activation activation : kAll) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      check_backward({{0, 1}, 1, 1, activation}, dtype);
      check_backward({{0, 4, 4, 9}, 5, 7, activation}, dtype);
      check_backward({{0, 3, 6}, 6, 5, activation}, dtype);  // as many to each
      check_backward({{0, 0, 11}, 9, 4, activation}, dtype);
    }
  }
}

TEST_F(GroupedFfn, NoRows_LeavesGradientsAsTheyAre) {
  const FfnLayer layer(*device_, {{0, 0, 0}, 8, 16}, DType::f32, 3);
  layer.forward(*device_);
  layer.backward(*device_, 1.0F);
  EXPECT_EQ(layer.w_gate_grad.read(), Floats(at(layer.shape.weights()), 0.25F));
  EXPECT_EQ(layer.w_down_grad.read(), Floats(at(layer.shape.weights()), 0.25F));
}

// Each expert's matrices where they happen to lie, here in reverse order: the same results in the same bits.
TEST_F(GroupedFfn, ExpertsThatLieApart_GiveTheSameBits) {
  const FfnShape shape{{0, 7, 7, 30}, 24, 40};
  const FfnLayer block(*device_, shape, DType::f32, 5), apart(*device_, shape, DType::f32, 5);
  block.forward(*device_);
  block.backward(*device_, 0.5F);
  constexpr std::size_t kExperts = 3, kMatrix = 24 * 40;
  std::vector<Tensor> weights;
  std::vector<const void*> gates, ups, downs;
  const auto place = [&](const Floats& values, std::vector<const void*>& pointers) {
    for (std::size_t e = kExperts; e-- > 0;) {
      const auto first = values.begin() + static_cast<std::ptrdiff_t>(e * kMatrix);
      weights.emplace_back(*device_, Floats(first, first + kMatrix), DType::f32);
      pointers.insert(pointers.begin(), weights.back().data());
    }
  };
  weights.reserve(3 * kExperts);
  place(apart.w_gate_values, gates), place(apart.w_up_values, ups), place(apart.w_down_values, downs);
  std::vector<float*> gate_grads, up_grads, down_grads;
  for (std::size_t e = 0; e < kExperts; ++e) {
    gate_grads.push_back(apart.w_gate_grad.floats() + (kExperts - 1 - e) * kMatrix);
    up_grads.push_back(apart.w_up_grad.floats() + (kExperts - 1 - e) * kMatrix);
    down_grads.push_back(apart.w_down_grad.floats() + (kExperts - 1 - e) * kMatrix);
  }
  const FfnMatrices lie{ExpertMatrices::one_by_one(gates.data()),     ExpertMatrices::one_by_one(ups.data()),
                        ExpertMatrices::one_by_one(downs.data()),     ExpertGradients::one_by_one(gate_grads.data()),
                        ExpertGradients::one_by_one(up_grads.data()), ExpertGradients::one_by_one(down_grads.data())};
  apart.forward(*device_, lie);
  apart.backward(*device_, 0.5F, lie);
  EXPECT_TRUE(same_bits(apart.out.read(), block.out.read()));
  EXPECT_TRUE(same_bits(apart.in_grad.read(), block.in_grad.read()));
  for (const auto& [theirs, ours] : {std::pair(&apart.w_gate_grad, &block.w_gate_grad),
                                     {&apart.w_up_grad, &block.w_up_grad},
                                     {&apart.w_down_grad, &block.w_down_grad}}) {
    const Floats reversed = theirs->read(), expected = ours->read();
    for (std::size_t e = 0; e < kExperts; ++e)
      EXPECT_TRUE(same_bits(&reversed[(kExperts - 1 - e) * kMatrix], &expected[e * kMatrix], kMatrix)) << e;
  }
}

TEST_F(GroupedFfn, Fp32RowsCutIntoChunks_GiveTheSameBits) {
  if (device_->memory_space() != MemorySpace::host) GTEST_SKIP() << "cuBLAS does not promise row invariance";
  for (const auto& [hidden, ffn] : {std::pair(8, 16), {64, 48}, {96, 512}, {256, 128}}) {
    const FfnLayer whole(*device_, {{0, 20, 70}, hidden, ffn}, DType::f32, 4);
    whole.forward(*device_);
    whole.backward(*device_, 1.0F);
    const Floats out = whole.out.read(), in_grad = whole.in_grad.read();
    // Rows 13 to 51: the last seven of the first expert, the first 31 of the second.
    FfnLayer chunk(*device_, {{0, 7, 38}, hidden, ffn}, DType::f32, 4);
    const std::int64_t first = 13 * hidden, count = 38 * hidden;
    chunk.in.write(Floats(whole.in_values.begin() + first, whole.in_values.begin() + first + count));
    chunk.out_grad.write(Floats(whole.out_grad_values.begin() + first, whole.out_grad_values.begin() + first + count));
    chunk.w_gate.write(whole.w_gate_values);
    chunk.w_up.write(whole.w_up_values);
    chunk.w_down.write(whole.w_down_values);
    chunk.forward(*device_);
    chunk.backward(*device_, 1.0F);
    EXPECT_TRUE(same_bits(chunk.out.read().data(), &out[at(first)], at(count)));
    EXPECT_TRUE(same_bits(chunk.in_grad.read().data(), &in_grad[at(first)], at(count)));
  }
}

}  // namespace
}  // namespace topomoe::test
