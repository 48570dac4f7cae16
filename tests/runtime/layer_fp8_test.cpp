// Tokens that travel as fp8: a layer has the bits of one whose tokens were converted there and back before they came to
// it, over every transport, however the passes are cut; gradients of its tokens are those of the converted ones.

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>
#include <tuple>

#include "tests/support/whole_layer.hpp"
#include "tests/support/whole_tensors.hpp"

namespace topomoe::testing {
namespace {

using Index = std::size_t;

// 160 wide: a group of 128, which fp8 keeps as it is and the router looks at, and one of 32, which is rounded. Routing
// is the router's, so uneven.
WholeCase fp8_case(DType dtype, const Layout& l, TokenSplit split, int chunks, int pieces, int back) {
  LayerShape s = whole_shape(dtype);
  s.hidden = 160;
  WholeCase c = whole_case(l, s, split, chunks, back);
  c.request.pieces = pieces;
  c.router_sees_first = true;
  return c;
}

std::vector<WholeCase> cases_of(DType dtype) {
  std::vector<WholeCase> out;
  for (const auto& [chunks, pieces, back] : {std::tuple{1, 1, 0}, {2, 2, 0}, {4, 2, 0}, {2, 1, 3}})
    for (const bool sp : {false, true})
      for (const TokenSplit split : {TokenSplit::sliced, TokenSplit::replicated})
        for (const Layout& l : {layout(4, 1, 1, 4, sp), layout(4, 2, 2, 2, sp), layout(4, 2, 1, 4, sp)})
          if (l.tp > 1 || (!sp && split == TokenSplit::sliced))
            out.push_back(fp8_case(dtype, l, split, chunks, pieces, back));
  return under_each_transport(out);
}

TEST(Fp8Dispatch, Layer_HasTheBitsOfOneThatIsGivenConvertedTokens) {
  std::set<std::string> transports;
  for (const DType dtype : {DType::f32, DType::bf16})
    for (WholeCase c : cases_of(dtype)) {
      SCOPED_TRACE(describe(c));
      transports.insert(c.transport);
      c.through_fp8 = true;
      const auto want = run_threads(c);
      c.through_fp8 = false, c.request.fp8_dispatch = true;
      const auto got = run_threads(c);
      for (Index r = 0; r < got.size(); ++r) {
        ASSERT_EQ(got[r].y, want[r].y);
        ASSERT_EQ(got[r].dx, want[r].dx);
        for (Index tensor = 1; tensor < got[r].grads.size(); ++tensor)
          ASSERT_EQ(got[r].grads[tensor], want[r].grads[tensor]);
        // The router's gradient is of tokens as they were given.
        for (Index i = 0; i < got[r].grads[0].size(); ++i)
          if (i % 160 < 128) {
            ASSERT_EQ(got[r].grads[0][i], want[r].grads[0][i]);
          }
      }
    }
  EXPECT_EQ(transports, (std::set<std::string>{"flat", "two_level", "node_dedup", "gather"}));
}

// That the test above can tell: fp8 rounds these tokens, and outputs show it.
TEST(Fp8Dispatch, Rounding_ShowsInOutputs) {
  WholeCase c = fp8_case(DType::f32, layout(4, 1, 1, 4), TokenSplit::sliced, 1, 1, 0);
  const auto exact = run_threads(c);
  c.request.fp8_dispatch = true;
  const auto rounded = run_threads(c);
  EXPECT_NE(exact[0].y, rounded[0].y);
  const Values x = whole::drawn(c, 0, whole::Salt::x), seen = whole::through_fp8(c, x);
  for (Index i = 0; i < x.size(); ++i)
    if (i % 160 < 128) {
      EXPECT_EQ(x[i], seen[i]);
    } else {
      EXPECT_LE(std::abs(x[i] - seen[i]), std::abs(x[i]) / 16 + 1e-3);
    }
}

// All that stands around the experts sees tokens as they were given: whole_matrix has cases of it by definition.
TEST(Fp8Dispatch, KeptRouting_GivesTheSameBits) {
  for (WholeCase c : cases_of(DType::bf16)) {
    if (c.request.chunks != 4) continue;
    SCOPED_TRACE(describe(c));
    c.request.fp8_dispatch = true;
    const auto all = run_threads(c);
    c.keep = MoeLayer::Keep::routing;
    const auto routing = run_threads(c);
    for (Index r = 0; r < all.size(); ++r) {
      ASSERT_EQ(all[r].y, routing[r].y);
      ASSERT_EQ(all[r].dx, routing[r].dx);
      ASSERT_EQ(all[r].grads, routing[r].grads);
    }
  }
}

}  // namespace
}  // namespace topomoe::testing
