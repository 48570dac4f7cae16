#include "kernels/router.hpp"

#include <limits>

#include "tests/kernels/on_device.hpp"

namespace topomoe::test {
namespace {

struct Shape {
  std::int64_t rows, hidden;
  int experts, k;
};

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

// The router's definition in double, given the choice of experts (so that it can be differentiated).
struct Reference {
  Shape shape;
  bool renormalize;
  Doubles tokens, weight;

  Doubles probabilities(std::int64_t row) const {
    Doubles p(at(shape.experts));
    double sum = 0;
    for (std::int64_t e = 0; e < shape.experts; ++e) {
      double logit = 0;
      for (std::int64_t i = 0; i < shape.hidden; ++i) {
        logit += tokens[at(row * shape.hidden + i)] * weight[at(e * shape.hidden + i)];
      }
      sum += p[at(e)] = std::exp(logit);
    }
    for (double& x : p) x /= sum;
    return p;
  }
  // sum over rows and slots of grads * weights: the loss whose gradient backward computes.
  double loss(const Ints& ids, const Floats& grads) const {
    double total = 0;
    for (std::int64_t row = 0; row < shape.rows; ++row) {
      const Doubles p = probabilities(row);
      double chosen = 0, weighted = 0;
      for (std::int64_t slot = row * shape.k; slot < (row + 1) * shape.k; ++slot) {
        chosen += p[at(ids[at(slot)])];
        weighted += grads[at(slot)] * p[at(ids[at(slot)])];
      }
      total += renormalize ? weighted / chosen : weighted;
    }
    return total;
  }
};

class Router : public OnDevice {
 protected:
  struct Result {
    Floats probabilities, logits, weights;
    Ints ids;
  };

  Result route(const Shape& s, const Floats& tokens, const Floats& weight, bool renormalize, DType dtype) {
    const Tensor in = tensor(tokens, dtype);
    const Tensor gate = tensor(weight);
    const Tensor logits = zeros(s.rows * s.experts);
    const Tensor weights = zeros(s.rows * s.k);
    const IntTensor ids = ints(Ints(at(s.rows * s.k), -7));
    device_->router(Lane::compute, {.tokens = in.data(),
                                    .weight = gate.data(),
                                    .logits = logits.floats(),
                                    .ids = ids.data(),
                                    .weights = weights.floats(),
                                    .rows = s.rows,
                                    .hidden = s.hidden,
                                    .experts = s.experts,
                                    .k = s.k,
                                    .renormalize = renormalize,
                                    .dtype = dtype});
    device_->synchronize(soon());
    const Floats l = logits.read();
    return {softmax(l, s.experts), l, weights.read(), ids.read()};
  }
  // In fp32, in the order of the contract: 32 parts, folded in halves. But e^x is the library's.
  static Floats softmax(Floats rows, int experts) {
    for (auto row = rows.begin(); row != rows.end(); row += experts) {
      const float largest = *std::max_element(row, row + experts);
      float part[32] = {};
      for (int e = 0; e < experts; ++e) part[e % 32] += row[e] = std::exp(row[e] - largest);
      for (int half = 16; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) part[i] += part[i + half];
      for (int e = 0; e < experts; ++e) row[e] *= 1.0F / part[0];
    }
    return rows;
  }

  void check(const Shape& s, bool renormalize, DType dtype) {
    Random random(static_cast<unsigned>(s.rows + s.experts));
    const Floats tokens = random.reals(s.rows * s.hidden, dtype);
    const Floats weight = random.reals(s.experts * s.hidden);
    const Result result = route(s, tokens, weight, renormalize, dtype);
    const Reference reference{s, renormalize, Doubles(tokens.begin(), tokens.end()),
                              Doubles(weight.begin(), weight.end())};
    for (std::int64_t row = 0; row < s.rows; ++row) {
      const Floats p(result.probabilities.begin() + row * s.experts,
                     result.probabilities.begin() + (row + 1) * s.experts);
      // A logit is off by hidden^2 roundings at most, and a probability by that much relative to itself.
      const double bound = static_cast<double>(s.hidden * s.hidden + s.experts) * unit_roundoff(DType::f32);
      expect_near(p, reference.probabilities(row), std::min(bound, 1e-3), "probabilities");
      // The choice is exact with regard to the logits that the device reports.
      const float* const l = &result.logits[at(row * s.experts)];
      Ints order(at(s.experts));
      for (int e = 0; e < s.experts; ++e) order[at(e)] = e;
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return l[a] > l[b]; });
      float sum = 0;
      for (int slot = 0; slot < s.k; ++slot) {
        ASSERT_EQ(result.ids[at(row * s.k + slot)], order[at(slot)]) << "row " << row << ", slot " << slot;
        sum += p[at(order[at(slot)])];
      }
      for (int slot = 0; slot < s.k; ++slot) {
        const float expected = p[at(order[at(slot)])] / (renormalize ? sum : 1.0F);
        EXPECT_NEAR(result.weights[at(row * s.k + slot)], expected, 1e-6F * expected);
      }
    }
  }
};

TEST_F(Router, RandomShapes_MatchTheDefinition) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const bool renormalize : {false, true}) {
      for (const Shape& s :
           {Shape{1, 1, 1, 1}, {5, 7, 3, 2}, {40, 64, 8, 2}, {3, 96, 65, 16}, {70, 33, 256, 8}, {2, 5, 1024, 16}}) {
        check(s, renormalize, dtype);
      }
    }
  }
}

TEST_F(Router, NoRows_WritesNothing) { check({0, 8, 4, 2}, true, DType::f32); }

TEST_F(Router, EqualProbabilities_GoToTheLowerExpert) {
  const Result result = route({2, 1, 6, 4}, {1, 0}, {0, 3, 3, 1, 3, 1}, false, DType::f32);
  EXPECT_EQ(result.ids, (Ints{1, 2, 4, 3, 0, 1, 2, 3}));
}

TEST_F(Router, NanToken_StillChoosesDistinctExperts) {
  const Result result = route({1, 1, 4, 3}, {std::numeric_limits<float>::quiet_NaN()}, {0, 1, 2, 3}, true, DType::f32);
  EXPECT_EQ(result.ids, (Ints{0, 1, 2}));
}

// e^-500 and e^-2000 are both 0, but logits tell which is more.
TEST_F(Router, HugeLogits_DoNotOverflow) {
  const Result result = route({1, 1, 3, 2}, {1000.0F}, {1.0F, -1.0F, 0.5F}, true, DType::f32);
  EXPECT_EQ(result.ids, (Ints{0, 2}));
  EXPECT_EQ(result.weights, (Floats{1.0F, 0.0F}));
}

TEST_F(Router, Row_AloneOrAmongOthers_HasTheSameBits) {
  for (const std::int64_t hidden : {8, 64, 96, 256}) {
    Random random(4);
    const Floats tokens = random.reals(70 * hidden);
    const Floats weight = random.reals(16 * hidden);
    const Result all = route({70, hidden, 16, 2}, tokens, weight, true, DType::f32);
    for (const std::int64_t count : {1, 3, 8, 33, 69}) {
      for (const std::int64_t first : {std::int64_t{0}, 70 - count}) {
        const Floats some(tokens.begin() + first * hidden, tokens.begin() + (first + count) * hidden);
        const Result part = route({count, hidden, 16, 2}, some, weight, true, DType::f32);
        EXPECT_TRUE(same_bits(part.logits.data(), &all.logits[at(first * 16)], at(count * 16)));
        EXPECT_TRUE(same_bits(part.weights.data(), &all.weights[at(first * 2)], at(count * 2)));
      }
    }
  }
}

TEST_F(Router, OutOfRange_IsRefused) {
  EXPECT_THROW(route({1, 4, 4, 5}, Floats(4), Floats(16), false, DType::f32), InvalidInput);
  EXPECT_THROW(route({1, 1, 20, 17}, Floats(1), Floats(20), false, DType::f32), InvalidInput);
  EXPECT_THROW(route({1, 1, 1025, 1}, Floats(1), Floats(1025), false, DType::f32), InvalidInput);
}

// Central differences of the reference in double, against the device's gradients.
TEST_F(Router, Backward_MatchesFiniteDifferences) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const bool renormalize : {false, true}) {
      for (const Shape& s : {Shape{1, 3, 2, 1}, {6, 9, 5, 2}, {4, 40, 17, 4}}) {
        Random random(8);
        const Floats tokens = random.reals(s.rows * s.hidden, dtype);
        const Floats weight = random.reals(s.experts * s.hidden);
        const Floats grads = random.reals(s.rows * s.k);
        const Floats tokens_before = random.reals(s.rows * s.hidden, dtype);
        const Floats weight_before = random.reals(s.experts * s.hidden);
        const Result forward = route(s, tokens, weight, renormalize, dtype);

        const Tensor in = tensor(tokens, dtype), gate = tensor(weight), logits = tensor(forward.logits);
        const Tensor weight_grads = tensor(grads), logit_grads = zeros(s.rows * s.experts);
        const Tensor token_grads = tensor(tokens_before, dtype), weight_grad = tensor(weight_before);
        const IntTensor ids = ints(forward.ids);
        device_->router_backward(Lane::compute, {.tokens = in.data(),
                                                 .weight = gate.data(),
                                                 .logits = logits.floats(),
                                                 .ids = ids.data(),
                                                 .weight_grads = weight_grads.floats(),
                                                 .logit_grads = logit_grads.floats(),
                                                 .token_grads = token_grads.data(),
                                                 .weight_grad = weight_grad.floats(),
                                                 .weight_grad_scale = 0.5F,
                                                 .rows = s.rows,
                                                 .hidden = s.hidden,
                                                 .experts = s.experts,
                                                 .k = s.k,
                                                 .renormalize = renormalize,
                                                 .dtype = dtype});
        device_->synchronize(soon());

        Reference reference{s, renormalize, Doubles(tokens.begin(), tokens.end()),
                            Doubles(weight.begin(), weight.end())};
        const auto loss = [&] { return reference.loss(forward.ids, grads); };
        Doubles expected_tokens = differences(reference.tokens, loss),
                expected_weight = differences(reference.weight, loss);
        for (std::size_t i = 0; i < tokens.size(); ++i) expected_tokens[i] += tokens_before[i];
        for (std::size_t i = 0; i < weight.size(); ++i)
          expected_weight[i] = weight_before[i] + 0.5 * expected_weight[i];
        const double fp32_bound = 1e-5;
        expect_near(token_grads.read(), expected_tokens, fp32_bound + unit_roundoff(dtype) * largest(expected_tokens),
                    "token gradient");
        expect_near(weight_grad.read(), expected_weight, fp32_bound, "weight gradient");
      }
    }
  }
}

TEST_F(Router, Backward_WithoutTargets_WritesLogitGradsOnly) {
  const Tensor logits = tensor({std::log(3.0F), 0.0F}), grads = tensor({1.0F}), logit_grads = zeros(2);
  const IntTensor ids = ints({0});
  device_->router_backward(Lane::compute, {.logits = logits.floats(),
                                           .ids = ids.data(),
                                           .weight_grads = grads.floats(),
                                           .logit_grads = logit_grads.floats(),
                                           .rows = 1,
                                           .hidden = 4,
                                           .experts = 2,
                                           .k = 1});
  device_->synchronize(soon());
  // p = (3/4, 1/4); d p0 / d logits = p0 (1 - p0), -p0 p1.
  expect_near(logit_grads.read(), {0.1875, -0.1875}, 1e-7, "logit gradients");
}

}  // namespace
}  // namespace topomoe::test
