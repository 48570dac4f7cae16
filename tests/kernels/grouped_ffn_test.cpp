#include "kernels/grouped_ffn.hpp"

#include "tests/kernels/on_device.hpp"

namespace topomoe::test {
namespace {

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

struct Shape {
  std::vector<std::int64_t> offsets;  // of rows, experts + 1
  std::int64_t hidden, ffn;
  std::int64_t rows() const { return offsets.back(); }
  std::int64_t weights() const { return (static_cast<std::int64_t>(offsets.size()) - 1) * hidden * ffn; }
};

// The experts in double.
struct Reference {
  Shape shape;
  Doubles in, w_gate, w_up, w_down;

  Doubles out_of_row(std::int64_t row, std::int64_t expert) const {
    const std::int64_t base = expert * shape.hidden * shape.ffn;
    Doubles act(at(shape.ffn)), out(at(shape.hidden));
    for (std::int64_t f = 0; f < shape.ffn; ++f) {
      double gate = 0, up = 0;
      for (std::int64_t h = 0; h < shape.hidden; ++h) {
        gate += in[at(row * shape.hidden + h)] * w_gate[at(base + f * shape.hidden + h)];
        up += in[at(row * shape.hidden + h)] * w_up[at(base + f * shape.hidden + h)];
      }
      act[at(f)] = gate / (1 + std::exp(-gate)) * up;
    }
    for (std::int64_t h = 0; h < shape.hidden; ++h) {
      for (std::int64_t f = 0; f < shape.ffn; ++f) out[at(h)] += act[at(f)] * w_down[at(base + h * shape.ffn + f)];
    }
    return out;
  }
  template <class F>
  void for_each_row(F&& f) const {
    for (std::size_t e = 0; e + 1 < shape.offsets.size(); ++e) {
      for (std::int64_t row = shape.offsets[e]; row < shape.offsets[e + 1]; ++row) {
        f(row, out_of_row(row, static_cast<std::int64_t>(e)));
      }
    }
  }
  Doubles out() const {
    Doubles all;
    for_each_row([&](std::int64_t, const Doubles& row) { all.insert(all.end(), row.begin(), row.end()); });
    return all;
  }
  double loss(const Floats& out_grad) const {
    double total = 0;
    for_each_row([&](std::int64_t row, const Doubles& values) {
      for (std::int64_t h = 0; h < shape.hidden; ++h) total += values[at(h)] * out_grad[at(row * shape.hidden + h)];
    });
    return total;
  }
};

// Where experts' weights and gradients lie.
struct Matrices {
  ExpertMatrices gate, up, down;
  ExpertGradients gate_grad, up_grad, down_grad;
};

class GroupedFfn : public OnDevice {
 protected:
  // One expert layer on the device, forward and both halves of backward.
  struct Layer {
    Layer(Device& device, Shape s, DType type, unsigned seed)
        : shape(std::move(s)),
          dtype(type),
          random(seed),
          in_values(random.reals(shape.rows() * shape.hidden, dtype)),
          w_gate_values(random.reals(shape.weights(), dtype)),
          w_up_values(random.reals(shape.weights(), dtype)),
          w_down_values(random.reals(shape.weights(), dtype)),
          out_grad_values(random.reals(shape.rows() * shape.hidden, dtype)),
          in(device, in_values, dtype),
          w_gate(device, w_gate_values, dtype),
          w_up(device, w_up_values, dtype),
          w_down(device, w_down_values, dtype),
          out_grad(device, out_grad_values, dtype),
          out(device, Floats(in_values.size(), 7.0F), dtype),
          in_grad(device, Floats(in_values.size(), 7.0F), dtype),
          gate(device, Floats(at(shape.rows() * shape.ffn)), dtype),
          up(gate_like(device)),
          act(gate_like(device)),
          gate_grad(gate_like(device)),
          up_grad(gate_like(device)),
          w_gate_grad(device, Floats(w_gate_values.size(), 0.25F)),
          w_up_grad(device, Floats(w_gate_values.size(), 0.25F)),
          w_down_grad(device, Floats(w_gate_values.size(), 0.25F)) {}
    Tensor gate_like(Device& device) const { return {device, Floats(at(shape.rows() * shape.ffn)), dtype}; }

    Matrices in_blocks() const {
      return {w_gate.data(),        w_up.data(),        w_down.data(),
              w_gate_grad.floats(), w_up_grad.floats(), w_down_grad.floats()};
    }

    void forward(Device& device) const { forward(device, in_blocks()); }
    void forward(Device& device, const Matrices& m) const {
      device.grouped_ffn(Lane::compute, {.in = in.data(),
                                         .out = out.data(),
                                         .gate = gate.data(),
                                         .up = up.data(),
                                         .act = act.data(),
                                         .w_gate = m.gate,
                                         .w_up = m.up,
                                         .w_down = m.down,
                                         .offsets = shape.offsets,
                                         .hidden = shape.hidden,
                                         .ffn = shape.ffn,
                                         .dtype = dtype});
      device.synchronize(soon());
    }
    void backward(Device& device, float scale) const { backward(device, scale, in_blocks()); }
    void backward(Device& device, float scale, const Matrices& m) const {
      device.zero(Lane::compute, act.data(), at(shape.rows() * shape.ffn) * size_of(dtype));  // recomputed
      device.grouped_ffn_dgrad(Lane::compute, {.out_grad = out_grad.data(),
                                               .in_grad = in_grad.data(),
                                               .gate = gate.data(),
                                               .up = up.data(),
                                               .gate_grad = gate_grad.data(),
                                               .up_grad = up_grad.data(),
                                               .act = act.data(),
                                               .w_gate = m.gate,
                                               .w_up = m.up,
                                               .w_down = m.down,
                                               .offsets = shape.offsets,
                                               .hidden = shape.hidden,
                                               .ffn = shape.ffn,
                                               .dtype = dtype});
      device.grouped_ffn_wgrad(Lane::compute, {.in = in.data(),
                                               .out_grad = out_grad.data(),
                                               .act = act.data(),
                                               .gate_grad = gate_grad.data(),
                                               .up_grad = up_grad.data(),
                                               .w_gate_grad = m.gate_grad,
                                               .w_up_grad = m.up_grad,
                                               .w_down_grad = m.down_grad,
                                               .scale = scale,
                                               .offsets = shape.offsets,
                                               .hidden = shape.hidden,
                                               .ffn = shape.ffn,
                                               .dtype = dtype});
      device.synchronize(soon());
    }
    Reference reference() const {
      auto wide = [](const Floats& v) { return Doubles(v.begin(), v.end()); };
      return {shape, wide(in_values), wide(w_gate_values), wide(w_up_values), wide(w_down_values)};
    }

    Shape shape;
    DType dtype;
    Random random;
    Floats in_values, w_gate_values, w_up_values, w_down_values, out_grad_values;
    Tensor in, w_gate, w_up, w_down, out_grad, out, in_grad, gate, up, act, gate_grad, up_grad;
    Tensor w_gate_grad, w_up_grad, w_down_grad;
  };

  // Relative to the largest value of the tensor. fp32: sums of up to 512 terms, two deep. bf16: every
  // tensor on the way is rounded, to 2^-8 of its own size.
  static double bound(const Doubles& expected, DType dtype) {
    return largest(expected) * unit_roundoff(dtype) * (dtype == DType::f32 ? 200 : 6);
  }

  void check_forward(const Shape& shape, DType dtype) {
    const Layer layer(*device_, shape, dtype, 1);
    layer.forward(*device_);
    const Doubles expected = layer.reference().out();
    expect_near(layer.out.read(), expected, bound(expected, dtype), "out");
  }

  // Every gradient against central differences of the reference.
  void check_backward(const Shape& shape, DType dtype) {
    const Layer layer(*device_, shape, dtype, 2);
    layer.forward(*device_);
    layer.backward(*device_, 0.5F);
    Reference reference = layer.reference();
    auto scaled = [&](Doubles& values, double scale, double before) {
      Doubles result = differences(values, [&] { return reference.loss(layer.out_grad_values); });
      for (double& x : result) x = before + scale * x;
      return result;
    };
    auto check = [&](const Tensor& actual, const Doubles& expected, const char* what) {
      expect_near(actual.read(), expected, 1e-6 + bound(expected, dtype), what);
    };
    check(layer.in_grad, scaled(reference.in, 1.0, 0.0), "in_grad");
    check(layer.w_gate_grad, scaled(reference.w_gate, 0.5, 0.25), "w_gate_grad");
    check(layer.w_up_grad, scaled(reference.w_up, 0.5, 0.25), "w_up_grad");
    check(layer.w_down_grad, scaled(reference.w_down, 0.5, 0.25), "w_down_grad");
  }
};

TEST_F(GroupedFfn, Forward_MatchesDouble) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    check_forward({{0, 1}, 1, 1}, dtype);
    check_forward({{0, 9}, 96, 48}, dtype);                 // one expert
    check_forward({{0, 3, 3, 40, 41, 41}, 33, 17}, dtype);  // odd sizes, experts without rows
    check_forward({{0, 0, 0, 70, 70}, 64, 128}, dtype);     // all to one
    check_forward({{0, 5, 10, 16, 20, 24, 29, 30, 32}, 24, 96}, dtype);
  }
}

TEST_F(GroupedFfn, Backward_MatchesFiniteDifferences) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    check_backward({{0, 1}, 1, 1}, dtype);
    check_backward({{0, 4, 4, 9}, 5, 7}, dtype);
    check_backward({{0, 0, 11}, 9, 4}, dtype);
  }
}

TEST_F(GroupedFfn, NoRows_LeavesGradientsAsTheyAre) {
  const Layer layer(*device_, {{0, 0, 0}, 8, 16}, DType::f32, 3);
  layer.forward(*device_);
  layer.backward(*device_, 1.0F);
  EXPECT_EQ(layer.w_gate_grad.read(), Floats(at(layer.shape.weights()), 0.25F));
  EXPECT_EQ(layer.w_down_grad.read(), Floats(at(layer.shape.weights()), 0.25F));
}

// Each expert's matrices where they happen to lie, here in reverse order: the same results in the same bits.
TEST_F(GroupedFfn, ExpertsThatLieApart_GiveTheSameBits) {
  const Shape shape{{0, 7, 7, 30}, 24, 40};
  const Layer block(*device_, shape, DType::f32, 5), apart(*device_, shape, DType::f32, 5);
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
  const Matrices lie{ExpertMatrices::one_by_one(gates.data()),     ExpertMatrices::one_by_one(ups.data()),
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
    const Layer whole(*device_, {{0, 20, 70}, hidden, ffn}, DType::f32, 4);
    whole.forward(*device_);
    whole.backward(*device_, 1.0F);
    const Floats out = whole.out.read(), in_grad = whole.in_grad.read();
    // Rows 13 to 51: the last seven of the first expert, the first 31 of the second.
    Layer chunk(*device_, {{0, 7, 38}, hidden, ffn}, DType::f32, 4);
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
