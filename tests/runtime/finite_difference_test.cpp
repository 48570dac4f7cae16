// Gradients against finite differences of the loss sum over tokens of <y, dy>, one direction for each tensor, the
// chosen experts held fixed (no nudge may change them): of the reference, which backward and forward know of each other
// only by this, and of the layer itself, whose roundings bound how close the two can be.

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/layer_cases.hpp"

namespace topomoe::testing {
namespace {

using Index = std::size_t;
constexpr std::array kTensors = {"tokens", "router", "gate", "up", "down"};

// `tensor` of the five, by value.
Values tensor_of(const LayerCase& c, Index tensor) {
  const ReferenceWeights w = make_weights(c);
  switch (tensor) {
    case 0: return make_tokens(c);
    case 1: return w.router;
    case 2: return w.gate;
    case 3: return w.up;
    default: return w.down;
  }
}

// Of a TP group's tokens each is held by all of its ranks: counted once.
template <class Visit>
void each_output(const LayerCase& c, Visit visit) {  // visit(rank, first element among its own)
  for (int rank = 0; rank < c.layout.world; ++rank)
    if (c.layout.sequence_parallel || rank % c.layout.tp == 0) visit(static_cast<Index>(rank));
}

struct Loss {
  double value = 0, bound = 0;  // what roundings in fp32 may do to it
};

// dy as ranks hold it, one after another.
template <class Rows>
Loss loss_of(const LayerCase& c, const Rows& output) {
  const Values dy = make_output_grads(c);
  Loss loss;
  Index at = 0;
  each_output(c, [&](Index rank) { output(rank, dy, at, loss); });
  return loss;
}

Loss reference_loss(const LayerCase& c, const ExpectedResult& r) {
  return loss_of(c, [&](Index rank, const Values& dy, Index& at, Loss& loss) {
    const Tensor& y = r.output[rank];
    for (Index i = 0; i < y.value.size(); ++i, ++at)
      loss.value += dy[at] * y.value[i], loss.bound += std::abs(dy[at]) * y.bound[i];
  });
}

Loss layer_loss(const LayerCase& c, const LayerResult& r) {
  return loss_of(c, [&](Index rank, const Values& dy, Index& at, Loss& loss) {
    for (const float y : r.output[rank]) loss.value += dy[at++] * static_cast<double>(y);
  });
}

// Of the same layout as tensor_of().
Tensor gradient_of(const LayerCase& c, const ExpectedResult& r, Index tensor) {
  if (tensor == 1) return r.grads.router;
  if (tensor == 2) return r.grads.gate;
  if (tensor == 3) return r.grads.up;
  if (tensor == 4) return r.grads.down;
  Tensor all;
  each_output(c, [&](Index rank) {
    const Tensor& dx = r.token_grads[rank];
    all.value.insert(all.value.end(), dx.value.begin(), dx.value.end());
    all.bound.insert(all.bound.end(), dx.bound.begin(), dx.bound.end());
  });
  return all;
}

Values gradient_of(const LayerCase& c, const LayerResult& r, Index tensor) {
  if (tensor == 1) return r.grads.router;
  if (tensor == 2) return r.grads.gate;
  if (tensor == 3) return r.grads.up;
  if (tensor == 4) return r.grads.down;
  Values all;
  each_output(c, [&](Index rank) { all.insert(all.end(), r.token_grads[rank].begin(), r.token_grads[rank].end()); });
  return all;
}

// One step along a tensor's direction, both ways, as far as fp32 can be.
struct Step2 {
  LayerCase plus, minus;
  Values direction;  // (plus - minus) / 2: steps that were taken
};
Step2 step_along(const LayerCase& c, Index tensor, double h) {
  Step2 s{c, c, {}};
  s.plus.nudge[tensor] = h, s.minus.nudge[tensor] = -h;
  s.direction = tensor_of(s.plus, tensor);
  const Values minus = tensor_of(s.minus, tensor);
  for (Index i = 0; i < minus.size(); ++i) s.direction[i] = (s.direction[i] - minus[i]) / 2;
  return s;
}

double along(const Values& gradient, const Values& direction) {
  double sum = 0;
  EXPECT_EQ(gradient.size(), direction.size());
  for (Index i = 0; i < direction.size(); ++i) sum += gradient[i] * direction[i];
  return sum;
}

LayerCase settled(LayerCase c) {
  // All nudged neighbours must choose as the case itself: what a step crosses has no derivative.
  for (;; ++c.seed) {
    const ExpectedResult at = expect_layer(c);
    bool same = at.decided;
    for (Index tensor = 0; tensor < 2 && same; ++tensor)
      for (const double h : {0x1p-7, -0x1p-7}) {
        LayerCase near = c;
        near.nudge[tensor] = h;
        const ExpectedResult r = expect_layer(near);
        same = same && r.decided && r.ids == at.ids;
      }
    if (same) return c;
  }
}

LayerCase small(const Layout& l) {
  return {.layout = l, .gpus_per_node = 2, .shape = {8, 6, 4, 2, true}, .tokens = {5, 3, 0, 4}};
}

// Central differences of step h are off by h^2 / 6 of a third derivative and, in double, by some 1e-16 / h of the loss:
// at h = 2^-12 both are below 1e-6 of it. Nudges are rounded to fp32, which `direction` knows of.
TEST(FiniteDifferences, Reference_BackwardIsTheDerivativeOfItsForward) {
  for (const bool renormalize : {true, false})
    for (const double capacity_factor : {0.0, 0.75}) {
      LayerCase c = small(layout(4, 1, 1, 4));
      c.shape.renormalize = renormalize, c.shape.capacity_factor = capacity_factor;
      c = settled(c);
      SCOPED_TRACE(describe(c));
      const ExpectedResult r = expect_layer(c);
      for (Index tensor = 0; tensor < kTensors.size(); ++tensor) {
        const Step2 s = step_along(c, tensor, 0x1p-12);
        const double difference = (reference_loss(s.plus, expect_layer(s.plus)).value -
                                   reference_loss(s.minus, expect_layer(s.minus)).value) /
                                  2;
        const double derivative = along(gradient_of(c, r, tensor).value, s.direction);
        double size = 0;  // of the terms, which may cancel
        const Values g = gradient_of(c, r, tensor).value;
        for (Index i = 0; i < g.size(); ++i) size += std::abs(g[i] * s.direction[i]);
        EXPECT_GT(size, 0) << kTensors[tensor];
        EXPECT_NEAR(difference, derivative, 2e-6 * size) << kTensors[tensor];
      }
    }
}

// |difference of the layer - its gradient along the step| is at most: what roundings do to the two losses, what they do
// to the gradient, and what the step's length does, which the reference shows at the same step.
void expect_derivative(const LayerCase& c, const Schedule& schedule) {
  SCOPED_TRACE(describe(c) + ", " + schedule.name);
  const ExpectedResult r = expect_layer(c);
  const LayerResult layer = run_layer(c, schedule);
  for (Index tensor = 0; tensor < kTensors.size(); ++tensor) {
    const Step2 s = step_along(c, tensor, 0x1p-7);
    const Loss plus = reference_loss(s.plus, expect_layer(s.plus)),
               minus = reference_loss(s.minus, expect_layer(s.minus));
    const Tensor exact = gradient_of(c, r, tensor);
    double tolerance = (plus.bound + minus.bound) / 2;
    for (Index i = 0; i < s.direction.size(); ++i) tolerance += exact.bound[i] * std::abs(s.direction[i]);
    tolerance += std::abs((plus.value - minus.value) / 2 - along(exact.value, s.direction));
    const double difference = (layer_loss(s.plus, run_layer(s.plus, schedule)).value -
                               layer_loss(s.minus, run_layer(s.minus, schedule)).value) /
                              2;
    const double derivative = along(gradient_of(c, layer, tensor), s.direction);
    EXPECT_NEAR(difference, derivative, tolerance) << kTensors[tensor];
    // A gradient that is missing, halved or doubled would not pass.
    EXPECT_LT(tolerance, 0.25 * std::abs(derivative)) << kTensors[tensor];
  }
}

TEST(FiniteDifferences, LayerOnFourRanks_BackwardIsTheDerivativeOfItsForward) {
  LayerCase c = settled(small(layout(4, 2, 2, 2)));
  expect_derivative(c, build_schedule("flat", request(c.layout, TokenSplit::sliced, 2)));
  c.owners = {{1}, {0, 1}, {1}, {1, 0}};
  expect_derivative(c, build_schedule("flat", request(c.layout, TokenSplit::replicated, 3, 1)));
  LayerCase wide = small(layout(4, 1, 1, 4));
  wide.owners = {{3}, {0, 3, 2}, {3}, {2}};
  wide = settled(wide);
  expect_derivative(wide, build_schedule("node_dedup", request(wide.layout, TokenSplit::sliced, 2)));
  expect_derivative(wide, build_schedule("gather", request(wide.layout, TokenSplit::sliced, 1)));
  wide.shape.capacity_factor = 0.75;
  expect_derivative(wide, build_schedule("two_level", request(wide.layout, TokenSplit::sliced, 2)));
}

}  // namespace
}  // namespace topomoe::testing
