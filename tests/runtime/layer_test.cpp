// Every schedule on ranks that are threads: outputs and all gradients against a double-precision
// reference, and bit for bit among schedules that add in the same order.

#include <gtest/gtest.h>

#include <numeric>

#include "planner/schedules/build.hpp"
#include "tests/support/layer_world.hpp"

namespace topomoe::testing {
namespace {

// fp32 sums of up to hidden + ffn terms of size 1, and the fp32 rounding of activations between them.
constexpr double kBoundF32 = 2e-5;

Layout folded(int world, int tp, int etp, int ep, bool sp, ExpertOrder order = ExpertOrder::ep_inner) {
  Layout l = make_layout(world, tp, 1, 1, etp, ep, order);
  l.sequence_parallel = sp;
  return l;
}

ScheduleRequest request(const Layout& l, TokenSplit split, int n, int r = 0) {
  return {split, l.tp, l.etp, l.ep, l.sequence_parallel, n, r == 0 ? n : r};
}

void expect_matches(const LayerCase& c, const Schedule& schedule, double bound = kBoundF32) {
  SCOPED_TRACE(name(c.layout) + ", " + schedule.name);
  const auto expected = expect_layer(c);
  const auto actual = run_layer(c, schedule);
  for (std::size_t rank = 0; rank < actual.output.size(); ++rank) {
    EXPECT_LE(error(actual.output[rank], expected.output[rank]), bound) << "output of rank " << rank;
    EXPECT_LE(error(actual.token_grads[rank], expected.token_grads[rank]), bound) << "token gradients of rank " << rank;
  }
  EXPECT_LE(error(actual.grads.router, expected.grads.router), bound);
  EXPECT_LE(error(actual.grads.gate, expected.grads.gate), bound);
  EXPECT_LE(error(actual.grads.up, expected.grads.up), bound);
  EXPECT_LE(error(actual.grads.down, expected.grads.down), bound);
}

TEST(Layer, SlicedFlat_TwoNodesOfTwo_MatchesReference) {
  const Layout l = folded(4, 2, 2, 2, false);
  LayerCase c{.layout = l, .gpus_per_node = 2, .tokens = {13, 7}};
  for (const int n : {1, 2, 3}) expect_matches(c, build_schedule("flat", request(l, TokenSplit::sliced, n)));
  expect_matches(c, build_schedule("flat", request(l, TokenSplit::sliced, 4, 2)));
  expect_matches(c, build_schedule("flat", request(l, TokenSplit::sliced, 4, 1)));
}

TEST(Layer, ReplicatedFlat_TwoNodesOfTwo_MatchesReference) {
  const Layout l = folded(4, 2, 2, 2, false);
  LayerCase c{.layout = l, .gpus_per_node = 2, .tokens = {13, 0}};
  for (const int n : {1, 2, 3}) expect_matches(c, build_schedule("flat", request(l, TokenSplit::replicated, n)));
}

TEST(Layer, NodeDedup_TwoNodesOfTwo_MatchesReference) {
  for (const int tp : {1, 2}) {
    const Layout l = folded(4, tp, 1, 4, false);
    LayerCase c{.layout = l, .gpus_per_node = 2, .shape = {16, 24, 8, 3, true}, .tokens = {13, 0, 5, 1}};
    for (const auto split : {TokenSplit::replicated, TokenSplit::sliced})
      for (const int n : {1, 2, 3}) expect_matches(c, build_schedule("node_dedup", request(l, split, n)));
  }
}

}  // namespace
}  // namespace topomoe::testing
