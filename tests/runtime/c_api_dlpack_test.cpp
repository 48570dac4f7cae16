// topomoe.h with DLPack's tensors: the bits of the calls with pointers, and refusals by name before anything moves.

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/support/tiny_plan.hpp"
#include "topomoe/dlpack.h"
#include "topomoe/topomoe.h"

namespace topomoe::testing {
namespace {

constexpr std::int64_t kRows = 6, kHidden = 16;

// A framework's tensor [rows, columns] of float32 or int32.
template <class T>
struct Theirs {
  std::vector<T> values;
  std::vector<std::int64_t> shape;
  DLManagedTensor tensor{};
  explicit Theirs(std::vector<std::int64_t> its_shape) : shape(std::move(its_shape)) {
    std::size_t count = 1;
    for (const std::int64_t s : shape) count *= static_cast<std::size_t>(s);
    values.resize(count);
    const std::uint8_t code = std::is_same_v<T, float> ? kDLFloat : kDLInt;
    tensor.dl_tensor = {
        values.data(), {kDLCPU, 0}, static_cast<std::int32_t>(shape.size()), {code, 32, 1}, shape.data(), nullptr, 0};
  }
  Theirs(const Theirs&) = delete;
};

struct Rank {
  topomoe_plan* plan = nullptr;
  topomoe_device* device = nullptr;
  topomoe_dispatcher* dispatcher = nullptr;
  explicit Rank(topomoe_communicator* ranks) {
    const std::string text = write_plan(tiny());
    topomoe_layer_config config = TOPOMOE_LAYER_CONFIG_INIT;
    config.dtype = TOPOMOE_F32;
    EXPECT_EQ(topomoe_plan_read(text.data(), text.size(), "tiny", &plan), TOPOMOE_OK);
    EXPECT_EQ(topomoe_device_create(nullptr, &device), TOPOMOE_OK);
    EXPECT_EQ(topomoe_dispatcher_create(plan, ranks, device, &config, &dispatcher), TOPOMOE_OK) << topomoe_last_error();
  }
  ~Rank() { topomoe_dispatcher_free(dispatcher), topomoe_device_free(device), topomoe_plan_free(plan); }
};

// On both ranks of each ETP group experts return their input: y = 2 x with weights of 1/2, and so for gradients.
void echo(topomoe_dispatched* pass) {
  std::int32_t count = 0;
  ASSERT_EQ(topomoe_batches(pass, &count), TOPOMOE_OK);
  for (std::int32_t i = 0; i < count; ++i) {
    DLManagedTensor *in = nullptr, *out = nullptr;
    ASSERT_EQ(topomoe_get_batch_dlpack(pass, i, &in, &out), TOPOMOE_OK) << topomoe_last_error();
    ASSERT_EQ(in->dl_tensor.ndim, 2);
    EXPECT_EQ(in->dl_tensor.shape[1], kHidden);
    EXPECT_EQ(in->dl_tensor.shape[0], out->dl_tensor.shape[0]);
    std::copy_n(static_cast<const float*>(in->dl_tensor.data), in->dl_tensor.shape[0] * kHidden,
                static_cast<float*>(out->dl_tensor.data));
    in->deleter(in), out->deleter(out);
  }
}

template <class Body>
void on_four_ranks(Body body) {
  std::vector<topomoe_communicator*> ranks(4);
  ASSERT_EQ(topomoe_inproc_world(4, ranks.data()), TOPOMOE_OK);
  std::vector<std::thread> threads;
  for (int r = 0; r < 4; ++r)
    threads.emplace_back([&, r] {
      Rank rank(ranks[static_cast<std::size_t>(r)]);
      body(rank, r);
      if (::testing::Test::HasFailure()) topomoe_communicator_abort(ranks[static_cast<std::size_t>(r)], "it failed");
    });
  for (std::thread& t : threads) t.join();
  for (topomoe_communicator* c : ranks) topomoe_communicator_free(c);
}

TEST(CApiDlpack, DispatchAndCombine_ThereAndBack) {
  on_four_ranks([](Rank& rank, int r) {
    Theirs<float> x({2, 3, kHidden}), weights({kRows, 2}), y({kRows, kHidden}), dy({kRows, kHidden}),
        dx({kRows, kHidden}), dweights({kRows, 2});
    Theirs<std::int32_t> ids({kRows, 2});
    for (std::size_t i = 0; i < x.values.size(); ++i) x.values[i] = static_cast<float>(i) + static_cast<float>(r / 2);
    weights.values.assign(weights.values.size(), 0.5F), dy.values.assign(dy.values.size(), 1);
    for (std::size_t i = 0; i < ids.values.size(); ++i) ids.values[i] = static_cast<std::int32_t>((3 * i + i / 4) % 4);
    topomoe_dispatched* pass = nullptr;
    ASSERT_EQ(topomoe_dispatch_dlpack(rank.dispatcher, &x.tensor, &ids.tensor, &weights.tensor, &pass), TOPOMOE_OK)
        << topomoe_last_error();
    echo(pass);
    ASSERT_EQ(topomoe_combine_dlpack(pass, &y.tensor), TOPOMOE_OK) << topomoe_last_error();
    DLManagedTensor *in = nullptr, *out = nullptr;
    EXPECT_EQ(topomoe_get_batch_dlpack(pass, 0, &in, &out), TOPOMOE_INVALID_INPUT);
    EXPECT_EQ(in, nullptr);
    ASSERT_EQ(topomoe_combine_backward_dlpack(pass, &dy.tensor), TOPOMOE_OK) << topomoe_last_error();
    echo(pass);
    ASSERT_EQ(topomoe_dispatch_backward_dlpack(pass, &dx.tensor, &dweights.tensor), TOPOMOE_OK) << topomoe_last_error();
    topomoe_dispatched_free(pass);
    for (std::size_t i = 0; i < x.values.size(); ++i) {
      EXPECT_EQ(y.values[i], 2 * x.values[i]);
      EXPECT_EQ(dx.values[i], 2);
    }
    for (std::size_t row = 0; row < kRows; ++row) {
      float sum = 0;
      for (std::size_t i = 0; i < kHidden; ++i) sum += 2 * x.values[row * kHidden + i];
      EXPECT_EQ(dweights.values[2 * row], sum);
      EXPECT_EQ(dweights.values[2 * row + 1], sum);
    }
  });
}

// What was handed out lives until its own deleter, though everything that made it is freed.
TEST(CApiDlpack, BatchOutlivesTheDispatched) {
  on_four_ranks([](Rank& rank, int) {
    Theirs<float> x({kRows, kHidden}), weights({kRows, 2});
    Theirs<std::int32_t> ids({kRows, 2});
    x.values.assign(x.values.size(), 3);
    for (std::size_t i = 0; i < ids.values.size(); ++i) ids.values[i] = static_cast<std::int32_t>(i % 4);
    topomoe_dispatched* pass = nullptr;
    ASSERT_EQ(topomoe_dispatch_dlpack(rank.dispatcher, &x.tensor, &ids.tensor, &weights.tensor, &pass), TOPOMOE_OK)
        << topomoe_last_error();
    DLManagedTensor *in = nullptr, *out = nullptr;
    ASSERT_EQ(topomoe_get_batch_dlpack(pass, 0, &in, &out), TOPOMOE_OK);
    topomoe_dispatched_free(pass);
    out->deleter(out);
    ASSERT_GT(in->dl_tensor.shape[0], 0);
    for (std::int64_t i = 0; i < in->dl_tensor.shape[0] * kHidden; ++i)
      EXPECT_EQ(static_cast<const float*>(in->dl_tensor.data)[i], 3);
    in->deleter(in);
  });
}

TEST(CApiDlpack, WhatDoesNotFit_IsRefusedByName) {
  std::vector<topomoe_communicator*> ranks(4);
  ASSERT_EQ(topomoe_inproc_world(4, ranks.data()), TOPOMOE_OK);
  {
    std::vector<std::thread> threads;
    for (std::size_t r = 1; r < 4; ++r) threads.emplace_back([&, r] { const Rank rank(ranks[r]); });
    const Rank rank(ranks[0]);
    for (std::thread& t : threads) t.join();
    Theirs<float> x({kRows, kHidden}), weights({kRows, 2}), short_weights({kRows - 1, 2});
    Theirs<std::int32_t> ids({kRows, 2});
    topomoe_dispatched* pass = nullptr;
    const auto refused = [&](const DLManagedTensor* tokens, const DLManagedTensor* with) {
      EXPECT_EQ(topomoe_dispatch_dlpack(rank.dispatcher, tokens, &ids.tensor, with, &pass), TOPOMOE_INVALID_INPUT);
      EXPECT_EQ(pass, nullptr);
      return std::string(topomoe_last_error());
    };
    EXPECT_EQ(refused(&x.tensor, &short_weights.tensor), "weights: 5 rows: there are 6 tokens");
    EXPECT_EQ(refused(&weights.tensor, &weights.tensor), "tokens: [6, 2]: [rows, 16] is needed");
    EXPECT_EQ(refused(nullptr, &weights.tensor), "tokens: null: a pointer is needed");
    x.tensor.dl_tensor.dtype = {kDLBfloat, 16, 1};
    EXPECT_EQ(refused(&x.tensor, &weights.tensor), "tokens: bfloat16: float32 is needed");
    ids.values[3] = 9;  // an error of the inner call keeps its text
    x.tensor.dl_tensor.dtype = {kDLFloat, 32, 1};
    EXPECT_EQ(refused(&x.tensor, &weights.tensor), "ids[1][1]: 9: an expert, 0 to 3");
  }
  for (topomoe_communicator* c : ranks) topomoe_communicator_free(c);
}

}  // namespace
}  // namespace topomoe::testing
