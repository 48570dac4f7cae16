// The layer's contract, for every fold of TP x EP x ETP that fits on 16 ranks: whatever the schedule, the
// outputs and all gradients are those of one machine without parallelism.
//
// The bound is no tolerance found by trying: tests/support/reference_layer.hpp carries with every element
// how far roundings can take it in any order of addition, and no element may be off by more.

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "tests/support/layer_cases.hpp"

namespace topomoe::testing {
namespace {

constexpr int kRanks = 16;

void expect_matches(const DrawnCase& drawn, const Schedule& schedule) {
  SCOPED_TRACE(describe(drawn.c) + ", " + schedule.name + " " + std::to_string(schedule.pieces) + " pieces");
  const LayerResult actual = run_layer(drawn.c, schedule);
  const ExpectedResult& expected = drawn.expected;
  for (std::size_t rank = 0; rank < actual.output.size(); ++rank) {
    EXPECT_LE(worst_of_bound(actual.output[rank], expected.output[rank]), 1) << "output of rank " << rank;
    EXPECT_LE(worst_of_bound(actual.token_grads[rank], expected.token_grads[rank]), 1)
        << "token gradients of rank " << rank;
  }
  EXPECT_LE(worst_of_bound(actual.grads.router, expected.grads.router), 1);
  EXPECT_LE(worst_of_bound(actual.grads.gate, expected.grads.gate), 1);
  EXPECT_LE(worst_of_bound(actual.grads.up, expected.grads.up), 1);
  EXPECT_LE(worst_of_bound(actual.grads.down, expected.grads.down), 1);
  // A worst case is wide. Over a whole result roundings add up as a root mean square: in bf16 some thirty
  // of 2^-8 / sqrt(3) or less on a way, sqrt(30) 0.7 / sqrt(3) = 2.2 units; in fp32 those of every term too.
  const Distance d = distance(actual, expected);
  EXPECT_LE(std::sqrt(d.difference), (drawn.c.dtype == DType::bf16 ? 3 * 0x1p-8 : 16 * 0x1p-24) * std::sqrt(d.size));
}

class LayerContract : public ::testing::TestWithParam<Fold> {
 protected:
  Draw draw_{static_cast<std::uint64_t>(GetParam().tp * 100 + GetParam().ep * 10 + (GetParam().etp > 1 ? 1 : 0))};
};

TEST_P(LayerContract, F32EverySplitTransportAndChunking_MatchesReference) {
  for (const bool sp : {false, true}) {
    if (sp && GetParam().tp == 1) continue;
    DrawnCase drawn = draw_case(GetParam(), sp, DType::f32, kRanks, draw_);
    drawn.c.owners = draw_owners(drawn.c.shape.experts, GetParam().ep, draw_);
    const LayerCase& c = drawn.c;
    for (const std::string_view transport : transport_names()) {
      if (!applies(transport, c.layout, c.gpus_per_node)) continue;
      // Two chunk counts a split; the other two with the other kind of holding tokens, or in the next fold.
      const bool even = draw_.coin();
      for (const auto split : {TokenSplit::replicated, TokenSplit::sliced}) {
        if (c.layout.tp == 1 && split == TokenSplit::replicated) continue;  // the same schedule
        const bool low = even == (split == TokenSplit::sliced);
        for (const int n : low ? std::array{1, 8} : std::array{2, 3})
          expect_matches(
              drawn,
              build_schedule(transport, draw_backward(request(c.layout, split, n, draw_pieces(n, draw_)), draw_)));
      }
    }
    if (HasFailure()) return;
  }
}

TEST_P(LayerContract, Bf16_MatchesReference) {
  const bool sp = GetParam().tp > 1 && draw_.coin();
  DrawnCase drawn = draw_case(GetParam(), sp, DType::bf16, kRanks, draw_);
  drawn.c.owners = draw_owners(drawn.c.shape.experts, GetParam().ep, draw_);
  for (const std::string_view transport : transport_names()) {
    if (!applies(transport, drawn.c.layout, drawn.c.gpus_per_node)) continue;
    const int n = draw_.of({1, 2, 3, 8});
    const auto split = draw_.of({TokenSplit::replicated, TokenSplit::sliced});
    expect_matches(
        drawn,
        build_schedule(transport, draw_backward(request(drawn.c.layout, split, n, draw_pieces(n, draw_)), draw_)));
  }
}

INSTANTIATE_TEST_SUITE_P(Folds, LayerContract, ::testing::ValuesIn(folds(kRanks)),
                         [](const auto& fold) { return name(fold.param); });

}  // namespace
}  // namespace topomoe::testing
