// dispatch and combine by hand, on one rank, and what they refuse.

#include "topomoe/dispatch.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "planner/schedules/build.hpp"
#include "tests/support/layer_cases.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/error.hpp"

namespace topomoe::testing {
namespace {

// One rank, 2 experts, top 1: tokens 1 2 3 go to experts 1 0 1, so expert 0 sees 2, expert 1 sees 1 3. Experts that
// return 10 x, weights 1 0.5 2: y = 10 10 60.
TEST(Dispatch, ByHand_ForeignRouterAndExperts) {
  const Layout l = layout(1, 1, 1, 1);
  run_inproc(1, [&](Communicator& ranks) {
    const auto device = make_cpu_device();
    Dispatcher dispatcher(build_schedule("flat", request(l, TokenSplit::sliced, 1)), l, 1, {1, 2, 1, DType::f32}, ranks,
                          *device);
    const std::vector<float> x{1, 2, 3}, weights{1, 0.5F, 2};
    const std::vector<std::int32_t> ids{1, 0, 1};
    std::vector<float> y(3);
    auto handle = dispatcher.dispatch(x.data(), 3, ids.data(), weights.data());
    ASSERT_EQ(handle.batches().size(), 1U);
    const ExpertBatch& batch = handle.batches()[0];
    EXPECT_EQ(batch.rows, (std::vector<std::int64_t>{1, 2}));
    const auto* in = static_cast<const float*>(batch.inputs);
    EXPECT_EQ(std::vector<float>(in, in + 3), (std::vector<float>{2, 1, 3}));
    for (int i = 0; i < 3; ++i) static_cast<float*>(batch.outputs)[i] = 10 * in[i];
    dispatcher.combine(handle, y.data());
    EXPECT_EQ(y, (std::vector<float>{10, 10, 60}));
    EXPECT_THROW(dispatcher.combine(handle, y.data()), InvalidInput);

    // dy = 1 2 3: what comes to the experts is weight * dy = 1 (token 1), 1, 6; dx through experts of slope 10 is 10
    // times that, and the weights' gradients are dy * 10 x.
    const std::vector<float> dy{1, 2, 3};
    std::vector<float> dx(3), dweights(3);
    EXPECT_THROW(dispatcher.dispatch_backward(handle, dx.data(), dweights.data()), InvalidInput);
    const auto gradients = dispatcher.combine_backward(handle, dy.data());
    ASSERT_EQ(gradients.size(), 1U);
    const auto* dout = static_cast<const float*>(gradients[0].inputs);
    EXPECT_EQ(std::vector<float>(dout, dout + 3), (std::vector<float>{1, 1, 6}));
    for (int i = 0; i < 3; ++i) static_cast<float*>(gradients[0].outputs)[i] = 10 * dout[i];
    dispatcher.dispatch_backward(handle, dx.data(), dweights.data());
    EXPECT_EQ(dx, (std::vector<float>{10, 10, 60}));
    EXPECT_EQ(dweights, (std::vector<float>{10, 40, 90}));
  });
}

// Room for 2 tokens, and 5 come: ceil(5 / 2) = 3 rounds, of 1, 2 and 2 tokens. Tokens 1 to 5 go to experts 1 0 1 0 0.
TEST(Dispatch, ByHand_OverflowComesInFurtherBatches) {
  const Layout l = layout(1, 1, 1, 1);
  run_inproc(1, [&](Communicator& ranks) {
    const auto device = make_cpu_device();
    Dispatcher dispatcher(build_schedule("flat", request(l, TokenSplit::sliced, 1)), l, 1, {1, 2, 1, DType::f32}, ranks,
                          *device, std::chrono::seconds(30), {.tokens = 2});
    const std::vector<float> x{1, 2, 3, 4, 5}, weights(5, 2);
    const std::vector<std::int32_t> ids{1, 0, 1, 0, 0};
    std::vector<float> y(5);
    auto handle = dispatcher.dispatch(x.data(), 5, ids.data(), weights.data());
    EXPECT_EQ(dispatcher.counters().overflow_rounds, 2);
    ASSERT_EQ(handle.batches().size(), 3U);
    const std::vector<std::vector<std::int64_t>> rows{{0, 1}, {1, 1}, {2, 0}};
    const std::vector<std::vector<float>> inputs{{1}, {2, 3}, {4, 5}};
    for (std::size_t i = 0; i < 3; ++i) {
      const ExpertBatch& batch = handle.batches()[i];
      EXPECT_EQ(batch.rows, rows[i]);
      for (std::size_t row = 0; row < inputs[i].size(); ++row) {
        EXPECT_EQ(static_cast<const float*>(batch.inputs)[row], inputs[i][row]);
        static_cast<float*>(batch.outputs)[row] = 10 * inputs[i][row];
      }
    }
    dispatcher.combine(handle, y.data());
    EXPECT_EQ(y, (std::vector<float>{20, 40, 60, 80, 100}));
  });
}

TEST(Dispatch, HandleOutlivesItsDispatcher_IsHarmless) {
  const Layout l = layout(1, 1, 1, 1);
  run_inproc(1, [&](Communicator& ranks) {
    const auto device = make_cpu_device();
    const std::vector<float> x{1, 2}, weights{1, 1};
    const std::vector<std::int32_t> ids{0, 1};
    const auto made = [&] {
      Dispatcher dispatcher(build_schedule("flat", request(l, TokenSplit::sliced, 1)), l, 1, {1, 2, 1, DType::f32},
                            ranks, *device);
      return dispatcher.dispatch(x.data(), 2, ids.data(), weights.data());
    };
    const auto handle = made();
    EXPECT_EQ(static_cast<const float*>(handle.batches()[0].inputs)[1], 2);
  });
}

TEST(Dispatch, IdOfNoExpert_IsNamedBeforeAnythingMoves) {
  const Layout l = layout(1, 1, 1, 1);
  run_inproc(1, [&](Communicator& ranks) {
    const auto device = make_cpu_device();
    Dispatcher dispatcher(build_schedule("flat", request(l, TokenSplit::sliced, 1)), l, 1, {1, 4, 2, DType::f32}, ranks,
                          *device);
    const std::vector<float> x{1, 2}, weights{1, 1, 1, 1};
    const std::vector<std::int32_t> ids{0, 1, 2, 4};
    try {
      dispatcher.dispatch(x.data(), 2, ids.data(), weights.data());
      FAIL() << "an expert that does not exist";
    } catch (const InvalidInput& e) {
      EXPECT_STREQ(e.what(), "ids[1][1]: 4: an expert, 0 to 3");
    }
    const std::vector<std::int32_t> good{0, 1, 2, 3};  // the communicator is as good as before
    dispatcher.dispatch(x.data(), 2, good.data(), weights.data());
  });
}

TEST(Dispatch, ShapeThatDoesNotFit_IsRefusedAsByTheLayer) {
  const Layout l = layout(1, 1, 1, 1);
  run_inproc(1, [&](Communicator& ranks) {
    const auto device = make_cpu_device();
    const auto made = [&](DispatchShape s) {
      return Dispatcher(build_schedule("flat", request(l, TokenSplit::sliced, 1)), l, 1, s, ranks, *device);
    };
    EXPECT_THROW(made({0, 4, 2, DType::f32}), InvalidInput);
    EXPECT_THROW(made({8, 4, 5, DType::f32}), InvalidInput);
    EXPECT_THROW(Dispatcher(build_schedule("flat", request(l, TokenSplit::sliced, 1)), l, 1, {8, 4, 2, DType::f32},
                            ranks, *device, std::chrono::seconds(30), {.tokens = 8, .skew = 0.5}),
                 InvalidInput);
  });
}

}  // namespace
}  // namespace topomoe::testing
