// The mix of shared and routed rows, and its gradients, against the definition in double.
#include "kernels/mix.hpp"

#include "tests/kernels/on_device.hpp"

namespace topomoe::test {
namespace {

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

struct Mixed {
  std::int64_t rows, columns;
  SharedGate gate;
  Doubles tokens, weight, routed, shared;

  // Of one row: what routed and shared are multiplied by.
  std::pair<double, double> factors(std::int64_t row) const {
    double dots[2] = {0, 0};
    for (int g = 0; g < kernels::gates_of(gate); ++g)
      for (std::int64_t i = 0; i < columns; ++i) dots[g] += tokens[at(row * columns + i)] * weight[at(g * columns + i)];
    if (gate == SharedGate::none) return {1, 1};
    if (gate == SharedGate::sigmoid) return {1, 1 / (1 + std::exp(-dots[0]))};
    const double a = std::exp(dots[0]), b = std::exp(dots[1]);
    return {a / (a + b), b / (a + b)};
  }
  Doubles out() const {
    Doubles y(routed.size());
    for (std::int64_t row = 0; row < rows; ++row) {
      const auto [a, b] = factors(row);
      for (std::int64_t i = row * columns; i < (row + 1) * columns; ++i)
        y[at(i)] = a * routed[at(i)] + b * shared[at(i)];
    }
    return y;
  }
};

Doubles doubles(const Floats& f) { return {f.begin(), f.end()}; }

class Mix : public OnDevice {
 protected:
  // Result of the mix, and the copy of what was routed.
  std::pair<Floats, Floats> mix(const Mixed& m, const Floats& tokens, const Floats& weight, const Floats& routed,
                                const Floats& shared, DType dtype) {
    const Tensor x = tensor(tokens, dtype), w = tensor(weight), s = tensor(shared, dtype), y = tensor(routed, dtype),
                 copy = zeros(m.rows * m.columns, dtype);
    device_->mix(Lane::compute, {.tokens = x.data(),
                                 .weight = w.floats(),
                                 .shared = s.data(),
                                 .out = y.data(),
                                 .routed = copy.data(),
                                 .rows = m.rows,
                                 .columns = m.columns,
                                 .gate = m.gate,
                                 .dtype = dtype});
    device_->synchronize(soon());
    return {y.read(), copy.read()};
  }
};

TEST_F(Mix, EachGate_MatchesTheDefinition) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const SharedGate gate : {SharedGate::none, SharedGate::sigmoid, SharedGate::residual})
      for (const auto& [rows, columns] : {std::pair{std::int64_t{0}, std::int64_t{4}}, {1, 1}, {5, 33}, {70, 128}}) {
        Random random(static_cast<unsigned>(rows + 1));
        const Floats x = random.reals(rows * columns, dtype), w = random.reals(2 * columns),
                     r = random.reals(rows * columns, dtype), s = random.reals(rows * columns, dtype);
        const Mixed m{rows, columns, gate, doubles(x), doubles(w), doubles(r), doubles(s)};
        const auto [out, copy] = mix(m, x, w, r, s, dtype);
        expect_near(out, m.out(), 2 * unit_roundoff(dtype) + 1e-5, "mix");
        EXPECT_TRUE(same_bits(copy, r));
      }
}

// w . x = 0: sigmoid gives a half of the shared row, the two-way softmax halves of both.
TEST_F(Mix, ZeroGate_HalvesByHand) {
  const Mixed m{1, 2, SharedGate::sigmoid, {}, {}, {}, {}};
  EXPECT_EQ(mix(m, {1, 1}, {0, 0}, {2, 4}, {6, 10}, DType::f32).first, (Floats{5, 9}));
  const Mixed residual{1, 2, SharedGate::residual, {}, {}, {}, {}};
  EXPECT_EQ(mix(residual, {1, 1}, {0, 0, 0, 0}, {2, 4}, {6, 10}, DType::f32).first, (Floats{4, 7}));
}

TEST_F(Mix, Backward_MatchesFiniteDifferences) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const SharedGate gate : {SharedGate::sigmoid, SharedGate::residual})
      for (const auto& [rows, columns] : {std::pair{std::int64_t{0}, std::int64_t{3}}, {1, 1}, {4, 5}}) {
        Random random(11);
        const int gates = kernels::gates_of(gate);
        const Floats x = random.reals(rows * columns, dtype), w = random.reals(gates * columns),
                     r = random.reals(rows * columns, dtype), s = random.reals(rows * columns, dtype),
                     g = random.reals(rows * columns, dtype), before = random.reals(gates * columns);
        const Tensor tx = tensor(x, dtype), tw = tensor(w), tr = tensor(r, dtype), ts = tensor(s, dtype),
                     tg = tensor(g, dtype), dr = zeros(rows * columns, dtype), ds = zeros(rows * columns, dtype),
                     dx = zeros(rows * columns, dtype), logits = zeros(rows * gates), dw = tensor(before);
        device_->mix_backward(Lane::compute, {.tokens = tx.data(),
                                              .weight = tw.floats(),
                                              .out_grad = tg.data(),
                                              .routed = tr.data(),
                                              .shared = ts.data(),
                                              .routed_grad = dr.data(),
                                              .shared_grad = ds.data(),
                                              .token_grad = dx.data(),
                                              .logit_grads = logits.floats(),
                                              .weight_grad = dw.floats(),
                                              .weight_grad_scale = 0.5F,
                                              .rows = rows,
                                              .columns = columns,
                                              .gate = gate,
                                              .dtype = dtype});
        device_->synchronize(soon());
        Mixed m{rows, columns, gate, doubles(x), doubles(w), doubles(r), doubles(s)};
        const auto loss = [&] {
          const Doubles y = m.out();
          double sum = 0;
          for (std::size_t i = 0; i < y.size(); ++i) sum += static_cast<double>(g[i]) * y[i];
          return sum;
        };
        const double bound = 1e-5 + 2 * unit_roundoff(dtype);
        expect_near(dr.read(), differences(m.routed, loss), bound, "routed");
        expect_near(ds.read(), differences(m.shared, loss), bound, "shared");
        expect_near(dx.read(), differences(m.tokens, loss), bound, "tokens");
        Doubles weight = differences(m.weight, loss);
        for (std::size_t i = 0; i < weight.size(); ++i) weight[i] = static_cast<double>(before[i]) + 0.5 * weight[i];
        expect_near(dw.read(), weight, 1e-5, "gate");
      }
}

}  // namespace
}  // namespace topomoe::test
