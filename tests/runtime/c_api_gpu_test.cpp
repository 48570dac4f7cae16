// topomoe.h over GPUs, fake ones: which communicator goes with which device is found when a layer is made; a caller's
// stream waits and is waited for, the host is not; tensors say which GPU they are on.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/runtime/c_api_world.hpp"
#include "tests/runtime/fake_gpu.hpp"
#include "tests/support/deferred_device.hpp"
#include "tests/support/soon.hpp"
#include "tests/support/tiny_plan.hpp"
#include "topomoe/communicator_tcp.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/dlpack.h"

namespace topomoe::testing {
namespace {

topomoe_layer_config in_fp32() {
  topomoe_layer_config config = TOPOMOE_LAYER_CONFIG_INIT;
  config.dtype = TOPOMOE_F32;
  return config;
}

std::vector<std::vector<float>> on_cpu(const CRank& r, const Plan& plan) {
  PlannedTensors t(plan, r.rank);
  const auto device = make_cpu_device();
  MoeLayer layer(schedule_of(plan), plan.layout, plan.topology.gpus_per_node, t.shape, *r.ranks->value, *device);
  auto handle = layer.forward(t.x.data(), t.rows, t.y.data(), t.weights());
  layer.backward(handle, t.dy.data(), t.dx.data(), t.weights(), t.gradients());
  return t.written();
}

TEST(CApiGpu, InprocAndGpu_TheRankIsToldItsDeviceOnce) {
  const Plan plan = tiny();
  std::vector<topomoe_device> devices;  // a rank's copies may be on another's lane
  for (int r = 0; r < plan.layout.world; ++r) devices.push_back({make_fake_gpu(r)});
  on_c_ranks(plan, [&](const CRank& r) {
    topomoe_device& mine = devices[static_cast<std::size_t>(r.rank)];
    topomoe_device other{make_fake_gpu()};
    const topomoe_layer_config config = in_fp32();
    topomoe_layer* layer = nullptr;
    topomoe_dispatcher* dispatcher = nullptr;
    EXPECT_EQ(topomoe_layer_create(r.plan, r.ranks, &mine, &config, &layer), TOPOMOE_INVALID_INPUT);
    EXPECT_STREQ(topomoe_last_error(),
                 "device: fake gpu: the communicator was told no GPU: call use_device(), in C "
                 "topomoe_inproc_use_device()");
    EXPECT_EQ(topomoe_dispatcher_create(r.plan, r.ranks, &mine, &config, &dispatcher), TOPOMOE_INVALID_INPUT);
    EXPECT_EQ(topomoe_inproc_use_device(r.ranks, &other), TOPOMOE_OK) << topomoe_last_error();
    EXPECT_EQ(topomoe_layer_create(r.plan, r.ranks, &mine, &config, &layer), TOPOMOE_INVALID_INPUT);
    EXPECT_EQ(std::string(topomoe_last_error()).rfind("device: fake gpu: the communicator was told another one", 0), 0U)
        << topomoe_last_error();
    EXPECT_EQ(topomoe_inproc_use_device(r.ranks, &mine), TOPOMOE_OK) << topomoe_last_error();
    const auto expected = on_cpu(r, plan);
    PlannedTensors t(plan, r.rank);
    const topomoe_weights w = t.c_weights();
    const topomoe_gradients g = t.c_gradients();
    topomoe_handle* handle = nullptr;
    ASSERT_EQ(topomoe_layer_create(r.plan, r.ranks, &mine, &config, &layer), TOPOMOE_OK) << topomoe_last_error();
    ASSERT_EQ(topomoe_forward(layer, t.x.data(), t.rows, t.y.data(), &w, &handle), TOPOMOE_OK) << topomoe_last_error();
    ASSERT_EQ(topomoe_backward(layer, handle, t.dy.data(), t.dx.data(), &w, &g), TOPOMOE_OK) << topomoe_last_error();
    EXPECT_TRUE(t.written() == expected);
    topomoe_handle_free(handle), topomoe_layer_free(layer);
    r.ranks->value->barrier();
  });
}

TEST(CApiGpu, TcpMovesHostMemory_AndSaysSoBeforeAnythingMoves) {
  const auto ranks = make_tcp_communicator({});
  EXPECT_EQ(ranks->refuses(*make_cpu_device()), "");
  EXPECT_EQ(ranks->refuses(*make_fake_gpu()), "TCP moves host memory: take the cpu device, or NCCL");
}

TEST(CApiGpu, UseDevice_IsForInprocAlone) {
  topomoe_communicator tcp{make_tcp_communicator({})};
  topomoe_device gpu{make_fake_gpu()};
  EXPECT_EQ(topomoe_inproc_use_device(&tcp, &gpu), TOPOMOE_INVALID_INPUT);
  EXPECT_STREQ(topomoe_last_error(),
               "communicator: not inproc's: only ranks that are threads are told their device afterwards");
}

// A rank whose lanes run when the host waits, and a stream beside them.
struct Deferred {
  explicit Deferred(const CRank& r)
      : device{std::make_shared<DeferredDevice>(static_cast<std::uint64_t>(r.rank) + 1)},
        ranks{std::make_shared<DeferredCommunicator>(*r.ranks->value, lanes())} {}
  DeferredDevice& lanes() { return static_cast<DeferredDevice&>(*device.value); }
  topomoe_device device;
  topomoe_communicator ranks;
};

// Inputs appear on the stream, results are copied away there and then spoilt: who waits too little gets other bits.
TEST(CApiGpu, CallsOnACallersStream_AreInItsOrder_AndTheHostGoesOn) {
  const Plan plan = tiny();
  on_c_ranks(plan, [&](const CRank& r) {
    const auto expected = on_cpu(r, plan);
    Deferred d(r);
    DeferredDevice& lanes = d.lanes();
    PlannedTensors t(plan, r.rank);
    const std::vector<float> x = t.x, dy = t.dy;
    const topomoe_weights w = t.c_weights();
    const topomoe_gradients g = t.c_gradients();
    const topomoe_layer_config config = in_fp32();
    topomoe_layer* layer = nullptr;
    topomoe_handle* handle = nullptr;
    ASSERT_EQ(topomoe_layer_create(r.plan, &d.ranks, &d.device, &config, &layer), TOPOMOE_OK) << topomoe_last_error();
    ASSERT_EQ(topomoe_layer_set_stream(layer, &d), TOPOMOE_OK) << topomoe_last_error();
    std::vector<std::vector<float>> outputs, token_grads;
    const auto spoil = [](std::vector<float>& v) { v.assign(v.size(), 99); };
    constexpr std::size_t kSteps = 5;
    for (std::size_t step = 0; step < kSteps; ++step) {
      std::fill(t.dgate.begin(), t.dgate.end(), 0.0F);
      spoil(t.x), spoil(t.dy);
      lanes.on_stream([&] { std::copy(x.begin(), x.end(), t.x.begin()); });
      ASSERT_EQ(topomoe_forward(layer, t.x.data(), t.rows, t.y.data(), &w, &handle), TOPOMOE_OK)
          << topomoe_last_error();
      lanes.on_stream([&] { outputs.push_back(t.y), spoil(t.y); });
      lanes.on_stream([&] { std::copy(dy.begin(), dy.end(), t.dy.begin()); });
      ASSERT_EQ(topomoe_backward(layer, handle, t.dy.data(), t.dx.data(), &w, &g), TOPOMOE_OK) << topomoe_last_error();
      lanes.on_stream([&] { token_grads.push_back(t.dx), spoil(t.dx); });
      void* event = nullptr;
      EXPECT_EQ(topomoe_handle_event(handle, &event), TOPOMOE_OK);
      if (step + 1 == kSteps) {  // memory has settled: the call came back before its end
        EXPECT_NE(event, nullptr);
        EXPECT_LT(token_grads.size(), kSteps);
      }
      EXPECT_EQ(topomoe_handle_wait(handle), TOPOMOE_OK) << topomoe_last_error();
      lanes.synchronize(soon());
      topomoe_handle_free(handle);
    }
    EXPECT_EQ(outputs, std::vector(kSteps, expected[0]));
    EXPECT_EQ(token_grads, std::vector(kSteps, expected[1]));
    EXPECT_EQ(t.dgate, expected[3]);
    topomoe_layer_free(layer);
    r.ranks->value->barrier();
  });
}

// The caller's experts run on its stream between the calls: there and back, doubled on the way.
TEST(CApiGpu, DispatchAndCombineOnACallersStream_AreInItsOrder) {
  const Plan plan = tiny();
  on_c_ranks(plan, [&](const CRank& r) {
    Deferred d(r);
    DeferredDevice& lanes = d.lanes();
    constexpr std::size_t kRows = 4, kHidden = 16;
    std::vector<float> x(kRows * kHidden, 99), y(x.size()), dx(x.size()), weights(2 * kRows, 0.5F), dweights(2 * kRows);
    const std::vector<std::int32_t> ids{0, 3, 1, 2, 2, 0, 3, 1};
    const auto value = [&](std::size_t i) { return static_cast<float>(i) + static_cast<float>(r.rank / 2); };
    const topomoe_layer_config config = in_fp32();
    topomoe_dispatcher* dispatcher = nullptr;
    topomoe_dispatched* pass = nullptr;
    ASSERT_EQ(topomoe_dispatcher_create(r.plan, &d.ranks, &d.device, &config, &dispatcher), TOPOMOE_OK)
        << topomoe_last_error();
    ASSERT_EQ(topomoe_dispatcher_set_stream(dispatcher, &d), TOPOMOE_OK) << topomoe_last_error();
    const auto experts = [&] {
      std::int32_t count = 0;
      EXPECT_EQ(topomoe_batches(pass, &count), TOPOMOE_OK);
      for (std::int32_t i = 0; i < count; ++i) {
        topomoe_batch b = TOPOMOE_BATCH_INIT;
        EXPECT_EQ(topomoe_get_batch(pass, i, &b), TOPOMOE_OK);
        const auto values = static_cast<std::size_t>(b.rows[0] + b.rows[1]) * kHidden;
        lanes.on_stream([b, values] {
          for (std::size_t v = 0; v < values; ++v)
            static_cast<float*>(b.outputs)[v] = 2 * static_cast<const float*>(b.inputs)[v];
        });
      }
    };
    lanes.on_stream([&] {
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = value(i);
    });
    ASSERT_EQ(topomoe_dispatch(dispatcher, x.data(), kRows, ids.data(), weights.data(), &pass), TOPOMOE_OK)
        << topomoe_last_error();
    experts();
    ASSERT_EQ(topomoe_combine(pass, y.data()), TOPOMOE_OK) << topomoe_last_error();
    ASSERT_EQ(topomoe_combine_backward(pass, y.data()), TOPOMOE_OK) << topomoe_last_error();
    experts();
    ASSERT_EQ(topomoe_dispatch_backward(pass, dx.data(), dweights.data()), TOPOMOE_OK) << topomoe_last_error();
    EXPECT_EQ(topomoe_dispatched_wait(pass), TOPOMOE_OK) << topomoe_last_error();
    lanes.synchronize(soon());
    // Both shards double, both weights are 1/2: y = 4 x, and so for gradients.
    for (std::size_t i = 0; i < x.size(); ++i) {
      EXPECT_EQ(y[i], 4 * value(i));
      EXPECT_EQ(dx[i], 16 * value(i));
    }
    topomoe_dispatched_free(pass), topomoe_dispatcher_free(dispatcher);
    r.ranks->value->barrier();
  });
}

DLManagedTensor tensor_of(std::vector<float>& values, std::int64_t* shape, int gpu) {
  DLManagedTensor t{};
  t.dl_tensor = {values.data(), {kDLCUDA, gpu}, 2, {kDLFloat, 32, 1}, shape, nullptr, 0};
  return t;
}

TEST(CApiGpu, TensorsOfAnotherGpu_AreRefused_AndOursSayTheirs) {
  const Plan plan = tiny();
  std::vector<topomoe_device> devices;
  for (int r = 0; r < plan.layout.world; ++r) devices.push_back({make_fake_gpu(3 + r)});
  on_c_ranks(plan, [&](const CRank& r) {
    topomoe_device& mine = devices[static_cast<std::size_t>(r.rank)];
    ASSERT_EQ(topomoe_inproc_use_device(r.ranks, &mine), TOPOMOE_OK) << topomoe_last_error();
    const topomoe_layer_config config = in_fp32();
    topomoe_dispatcher* dispatcher = nullptr;
    topomoe_dispatched* pass = nullptr;
    ASSERT_EQ(topomoe_dispatcher_create(r.plan, r.ranks, &mine, &config, &dispatcher), TOPOMOE_OK)
        << topomoe_last_error();
    std::vector<float> x(2 * 16, 1), weights(2 * 2, 0.5F);
    std::vector<std::int32_t> ids{0, 3, 1, 2};
    std::int64_t x_shape[] = {2, 16}, k_shape[] = {2, 2};
    DLManagedTensor tokens = tensor_of(x, x_shape, 3 + r.rank), chosen{},
                    gates = tensor_of(weights, k_shape, 3 + r.rank);
    chosen.dl_tensor = {ids.data(), {kDLCUDA, 3 + r.rank}, 2, {kDLInt, 32, 1}, k_shape, nullptr, 0};
    tokens.dl_tensor.device.device_id = 0;
    EXPECT_EQ(topomoe_dispatch_dlpack(dispatcher, &tokens, &chosen, &gates, &pass), TOPOMOE_INVALID_INPUT);
    EXPECT_EQ(topomoe_last_error(), "tokens: on cuda:0: the layer is on cuda:" + std::to_string(3 + r.rank));
    tokens.dl_tensor.device.device_id = 3 + r.rank;
    ASSERT_EQ(topomoe_dispatch_dlpack(dispatcher, &tokens, &chosen, &gates, &pass), TOPOMOE_OK) << topomoe_last_error();
    DLManagedTensor *in = nullptr, *out = nullptr;
    ASSERT_EQ(topomoe_get_batch_dlpack(pass, 0, &in, &out), TOPOMOE_OK) << topomoe_last_error();
    for (DLManagedTensor* t : {in, out}) {
      EXPECT_EQ(t->dl_tensor.device.device_type, kDLCUDA);
      EXPECT_EQ(t->dl_tensor.device.device_id, 3 + r.rank);
      t->deleter(t);
    }
    topomoe_dispatched_free(pass), topomoe_dispatcher_free(dispatcher);
    r.ranks->value->barrier();
  });
}

}  // namespace
}  // namespace topomoe::testing
