// Router options in a whole layer: scores, groups, bias, scale, and the losses with their gradients.

#include <gtest/gtest.h>

#include <cmath>

#include "planner/schedules/build.hpp"
#include "tests/support/whole_layer.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"

namespace topomoe::testing {
namespace {

TEST(LayerRouter, SigmoidGroupsBiasAndScale_MatchTheDefinition) {
  auto cases = each_intake(deepseek_v3(whole_shape()));
  for (WholeCase& c : cases) c.biased = true;
  expect_definition(cases);
}

TEST(LayerRouter, BalanceAndZLoss_AddTheirGradients) {
  for (const bool sigmoid : {false, true}) {
    LayerShape s = sigmoid ? deepseek_v3(whole_shape()) : whole_shape();
    s.router.balance_loss = 2, s.router.z_loss = 0.5;  // far larger than anyone's, to be seen
    expect_definition(each_intake(s));
  }
}

// All tokens alike, so that top_k experts get all of them: each f_e is 1/k, and P_e the scores. With equal logits
// every P_e is 1/E: E sum f_e P_e = E k (1/k) / E = 1; log sum exp of zeros is log E.
TEST(LayerRouter, EqualLogits_LossesByHand) {
  LayerShape s = whole_shape();
  s.router.balance_loss = 0.25, s.router.z_loss = 2;
  run_inproc(1, [&](Communicator& communicator) {
    const auto device = make_cpu_device();
    const std::vector<float> zeros(static_cast<std::size_t>(s.experts * s.hidden * s.ffn), 0.0F),
        x(static_cast<std::size_t>(3 * s.hidden), 1.0F);
    std::vector<float> y(x.size());
    MoeLayer layer(build_schedule("flat", {}), layout(1, 1, 1, 1), 1, s, communicator, *device);
    const LayerWeights w{zeros.data(), zeros.data(), zeros.data(), zeros.data()};
    const auto handle = layer.forward(x.data(), 3, y.data(), w);
    EXPECT_NEAR(handle.router().balance_loss, 0.25, 1e-7);
    EXPECT_NEAR(handle.router().z_loss, 2 * std::log(8) * std::log(8), 1e-5);
    EXPECT_EQ(handle.router().chosen, (std::vector<std::int64_t>{3, 3, 3, 0, 0, 0, 0, 0}));
    const auto none = layer.forward(x.data(), 0, y.data(), w);
    EXPECT_EQ(none.router().balance_loss, 0);
    EXPECT_EQ(none.router().z_loss, 0);
  });
}

}  // namespace
}  // namespace topomoe::testing
