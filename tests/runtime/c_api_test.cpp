// topomoe.h: what a program in C gets is bit for bit what MoeLayer gives, and whatever it does wrong is told.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/runtime/c_api_layer.h"
#include "tests/support/layer_cases.hpp"
#include "tests/support/layer_world.hpp"
#include "tests/support/tiny_plan.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"

namespace topomoe::testing {
namespace {

std::string last() { return topomoe_last_error(); }

struct Opened {  // frees in an order that a careless program might choose
  topomoe_plan* plan = nullptr;
  topomoe_device* device = nullptr;
  std::vector<topomoe_communicator*> ranks = std::vector<topomoe_communicator*>(4);
  explicit Opened(const Plan& p = tiny()) {
    const std::string text = write_plan(p);
    EXPECT_EQ(topomoe_plan_read(text.data(), text.size(), "tiny", &plan), TOPOMOE_OK) << last();
    EXPECT_EQ(topomoe_device_create(nullptr, &device), TOPOMOE_OK) << last();
    EXPECT_EQ(topomoe_inproc_world(4, ranks.data()), TOPOMOE_OK) << last();
  }
  ~Opened() {
    topomoe_plan_free(plan);
    for (topomoe_communicator* c : ranks) topomoe_communicator_free(c);
    topomoe_device_free(device);
  }
  topomoe_status layer(const topomoe_layer_config* config, topomoe_layer** out) {
    return topomoe_layer_create(plan, ranks[0], device, config, out);
  }
};

class CLayer : public ::testing::TestWithParam<DType> {};

TEST_P(CLayer, ForwardAndBackward_HaveTheBitsOfMoeLayer) {
  const LayerCase c{.layout = tiny().layout, .gpus_per_node = 2, .tokens = {13, 7}, .dtype = GetParam()};
  const ReferenceWeights weights = make_weights(c);
  std::vector<RankTensors> expected, actual;
  for (int rank = 0; rank < 4; ++rank) expected.emplace_back(c, weights, rank), actual.emplace_back(c, weights, rank);
  run_inproc(4, [&](Communicator& ranks) {
    const auto device = make_cpu_device();
    RankTensors& t = expected[static_cast<std::size_t>(ranks.rank())];
    MoeLayer layer = make_layer(c, tiny().schedule, ranks, *device);
    auto handle = layer.forward(t.x.data(), t.rows, t.y.data(), t.weights());
    layer.backward(handle, t.dy.data(), t.dx.data(), t.weights(), t.gradients());
  });

  std::vector<topomoe_communicator*> ranks(4);
  ASSERT_EQ(topomoe_inproc_world(4, ranks.data()), TOPOMOE_OK) << last();
  const std::string plan = write_plan(tiny());
  std::vector<std::string> errors(4);
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < 4; ++r)
    threads.emplace_back([&, r] {
      RankTensors& t = actual[r];
      const c_layer in{t.x.data(),     t.dy.data(),
                       t.y.data(),     t.dx.data(),
                       t.rows,         t.router.data(),
                       t.gate.data(),  t.up.data(),
                       t.down.data(),  t.drouter.data(),
                       t.dgate.data(), t.dup.data(),
                       t.ddown.data(), GetParam() == DType::f32 ? 0 : 1};
      if (run_c_layer(plan.data(), plan.size(), ranks[r], &in) != TOPOMOE_OK) {
        errors[r] = last();
        topomoe_communicator_abort(ranks[r], "the test failed");
      }
    });
  for (std::thread& t : threads) t.join();
  for (topomoe_communicator* rank : ranks) topomoe_communicator_free(rank);
  for (std::size_t r = 0; r < 4; ++r) {
    EXPECT_EQ(errors[r], "");
    EXPECT_TRUE(actual[r].y == expected[r].y) << r;
    EXPECT_TRUE(actual[r].dx == expected[r].dx) << r;
    EXPECT_TRUE(actual[r].drouter == expected[r].drouter) << r;
    EXPECT_TRUE(actual[r].dgate == expected[r].dgate) << r;
    EXPECT_TRUE(actual[r].dup == expected[r].dup) << r;
    EXPECT_TRUE(actual[r].ddown == expected[r].ddown) << r;
    EXPECT_NE(actual[r].y, std::vector<std::byte>(actual[r].y.size())) << r;
  }
}
INSTANTIATE_TEST_SUITE_P(, CLayer, ::testing::Values(DType::f32, DType::bf16),
                         [](const auto& p) { return p.param == DType::f32 ? "f32" : "bf16"; });

TEST(CApi, Versions_AreTheHeaders) {
  EXPECT_EQ(topomoe_abi_version(), TOPOMOE_ABI_VERSION);
  EXPECT_STREQ(topomoe_version(), "0.1.0");
  EXPECT_STREQ(topomoe_status_name(TOPOMOE_TRANSPORT_ERROR), "transport error");
}

TEST(CApi, PlanInfo_SaysWhatIsPlanned) {
  const Opened o;
  topomoe_plan_info info = TOPOMOE_PLAN_INFO_INIT;
  ASSERT_EQ(topomoe_plan_get_info(o.plan, 0, &info), TOPOMOE_OK) << last();
  EXPECT_EQ(info.kinds, 1);
  EXPECT_EQ(info.world, 4);
  EXPECT_EQ(info.tp, 2);
  EXPECT_EQ(info.ep, 2);
  EXPECT_EQ(info.etp, 2);
  EXPECT_EQ(info.gpus_per_node, 2);
  EXPECT_EQ(info.experts, 4);
  EXPECT_EQ(info.top_k, 2);
  EXPECT_EQ(info.renormalize, 1);
  EXPECT_EQ(info.hidden, 16);
  EXPECT_EQ(info.ffn, 24);
  EXPECT_EQ(info.dtype, TOPOMOE_BF16);
  EXPECT_EQ(info.tokens_per_tp_group, 16);
  EXPECT_EQ(topomoe_plan_get_info(o.plan, 1, &info), TOPOMOE_INVALID_INPUT);
  EXPECT_EQ(last(), "kind: 1: the plan has kinds 0 to 0");
  char hash[17] = {};
  ASSERT_EQ(topomoe_plan_hash(o.plan, hash), TOPOMOE_OK);
  EXPECT_EQ(hash, plan_hash(tiny()));
}

TEST(CApi, PlanFile_ReadsAsItsText_AndAMissingOneIsNamed) {
  const std::string path = ::testing::TempDir() + "c_api_test_plan.json";
  std::ofstream(path) << write_plan(tiny());
  topomoe_plan* plan = nullptr;
  ASSERT_EQ(topomoe_plan_read_file(path.c_str(), &plan), TOPOMOE_OK) << last();
  char hash[17] = {};
  EXPECT_EQ(topomoe_plan_hash(plan, hash), TOPOMOE_OK);
  EXPECT_EQ(hash, plan_hash(tiny()));
  topomoe_plan_free(plan);
  std::remove(path.c_str());
  EXPECT_EQ(topomoe_plan_read_file(path.c_str(), &plan), TOPOMOE_INVALID_INPUT);
  EXPECT_EQ(plan, nullptr);
  EXPECT_EQ(last(), path + ": No such file or directory: a plan.json that can be read is needed");
}

TEST(CApi, BadPlan_IsNamed) {
  topomoe_plan* plan = nullptr;
  EXPECT_EQ(topomoe_plan_read("{}", 2, "theirs", &plan), TOPOMOE_INVALID_INPUT);
  EXPECT_EQ(last().rfind("theirs", 0), 0U) << last();
  EXPECT_EQ(topomoe_plan_read(nullptr, 2, "theirs", &plan), TOPOMOE_INVALID_INPUT);
  EXPECT_EQ(last(), "text: null: a pointer is needed");
  EXPECT_EQ(topomoe_plan_read("{}", 2, "theirs", nullptr), TOPOMOE_INVALID_INPUT);
  EXPECT_EQ(last(), "plan: null: a pointer is needed");
}

TEST(CApi, NullObjects_AreNamed_NeverFollowed) {
  topomoe_weights weights = TOPOMOE_WEIGHTS_INIT;
  topomoe_gradients gradients = TOPOMOE_GRADIENTS_INIT;
  topomoe_layer* layer = nullptr;
  int32_t rank = 0;
  EXPECT_EQ(topomoe_layer_create(nullptr, nullptr, nullptr, nullptr, &layer), TOPOMOE_INVALID_INPUT);
  EXPECT_EQ(last(), "plan: null: a pointer is needed");
  EXPECT_EQ(topomoe_forward(nullptr, nullptr, 0, nullptr, &weights, nullptr), TOPOMOE_INVALID_INPUT);
  EXPECT_EQ(last(), "layer: null: a pointer is needed");
  EXPECT_EQ(topomoe_backward(nullptr, nullptr, nullptr, nullptr, &weights, &gradients), TOPOMOE_INVALID_INPUT);
  EXPECT_EQ(topomoe_communicator_rank(nullptr, &rank, nullptr), TOPOMOE_INVALID_INPUT);
  EXPECT_EQ(topomoe_communicator_abort(nullptr, nullptr), TOPOMOE_INVALID_INPUT);
  EXPECT_EQ(topomoe_plan_get_info(nullptr, 0, nullptr), TOPOMOE_INVALID_INPUT);
  EXPECT_EQ(topomoe_plan_hash(nullptr, nullptr), TOPOMOE_INVALID_INPUT);
  EXPECT_EQ(topomoe_inproc_world(2, nullptr), TOPOMOE_INVALID_INPUT);
  EXPECT_EQ(topomoe_device_create(nullptr, nullptr), TOPOMOE_INVALID_INPUT);
  EXPECT_EQ(topomoe_mpi_communicator(nullptr, nullptr), TOPOMOE_INVALID_INPUT);
  topomoe_plan_free(nullptr), topomoe_communicator_free(nullptr), topomoe_device_free(nullptr);
  topomoe_layer_free(nullptr), topomoe_handle_free(nullptr);
}

TEST(CApi, Mpi_WithoutInitialisation_IsTold) {
  topomoe_communicator* c = nullptr;
  EXPECT_NE(topomoe_mpi_communicator(nullptr, &c), TOPOMOE_OK);
  EXPECT_EQ(c, nullptr);
  EXPECT_NE(last().find("MPI"), std::string::npos) << last();
}

TEST(CApi, Device_TakesTheCallersMemory_OrSaysWhatIsMissing) {
  static std::atomic<int> held, most;
  held = most = 0;
  topomoe_device_config config = TOPOMOE_DEVICE_CONFIG_INIT;
  config.allocate = [](size_t bytes, void*) -> void* {
    most = std::max<int>(most, ++held);
    return std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  };
  config.release = [](void* memory, size_t, void*) { --held, std::free(memory); };
  {
    const Opened o;
    std::vector<std::thread> threads;
    for (topomoe_communicator* rank : o.ranks)
      threads.emplace_back([&, rank] {
        topomoe_device* device = nullptr;
        topomoe_layer* layer = nullptr;
        topomoe_layer_config as = TOPOMOE_LAYER_CONFIG_INIT;
        as.dtype = TOPOMOE_F32;
        EXPECT_EQ(topomoe_device_create(&config, &device), TOPOMOE_OK) << last();
        EXPECT_EQ(topomoe_layer_create(o.plan, rank, device, &as, &layer), TOPOMOE_OK) << last();
        topomoe_device_free(device);
        const std::vector<float> x(3 * 16, 0.5F), router(4 * 16, 0.1F), matrix(2 * 12 * 16, 0.1F);
        std::vector<float> y(x.size());
        topomoe_weights weights = TOPOMOE_WEIGHTS_INIT;
        weights.router = router.data(), weights.gate = weights.up = weights.down = matrix.data();
        EXPECT_EQ(topomoe_forward(layer, x.data(), 3, y.data(), &weights, nullptr), TOPOMOE_OK) << last();
        topomoe_layer_free(layer);
      });
    for (std::thread& t : threads) t.join();
  }
  EXPECT_GT(most, 0);
  EXPECT_EQ(held, 0);
  topomoe_device* device = nullptr;
  config.allocate = nullptr;
  EXPECT_EQ(topomoe_device_create(&config, &device), TOPOMOE_INVALID_INPUT);
  EXPECT_EQ(last(), "config.allocate: null: release comes with allocate");
  config = TOPOMOE_DEVICE_CONFIG_INIT;
  config.cuda = -2;
  EXPECT_EQ(topomoe_device_create(&config, &device), TOPOMOE_INVALID_INPUT);
  config.cuda = 1000;  // without CUDA, without a driver, without so many
  EXPECT_EQ(topomoe_device_create(&config, &device), TOPOMOE_MISSING_ENVIRONMENT);
  EXPECT_EQ(device, nullptr);
}

TEST(CApi, Nccl_NeedsAGpu) {
  const Opened o;
  topomoe_communicator* c = nullptr;
  EXPECT_EQ(topomoe_nccl_communicator(o.device, nullptr, nullptr, &c), TOPOMOE_INVALID_INPUT);
  EXPECT_EQ(last(), "host: null: a pointer is needed");
  EXPECT_NE(topomoe_nccl_communicator(o.device, nullptr, o.ranks[0], &c), TOPOMOE_OK);
  EXPECT_EQ(c, nullptr);
}

// tiny() has ranks 0 and 1 on host0, 2 and 3 on host1; here they are dealt round robin.
TEST(CApi, RankCheck_ReportsAndOrders) {
  const Opened o;
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < 4; ++r)
    threads.emplace_back([&, r] {
      topomoe_rank_check check = TOPOMOE_RANK_CHECK_INIT;
      char text[64];
      ASSERT_EQ(topomoe_check_ranks(o.plan, o.ranks[r], r % 2 == 0 ? "x" : "y", nullptr, &check, text, sizeof text),
                TOPOMOE_OK)
          << last();
      EXPECT_EQ(check.mismatches, 2);
      EXPECT_EQ(check.plans_differ, 0);
      EXPECT_EQ(check.planned_rank, (std::vector{0, 2, 1, 3}[r]));
      EXPECT_STREQ(text, "rank 1 is on y, planned on host0, which is x\nrank 2 is on x, pl");
    });
  for (std::thread& t : threads) t.join();
}

TEST(CApi, TcpConfig_OneRankNeedsNobody_AndWhatIsWrongIsNamed) {
  topomoe_communicator* c = nullptr;
  topomoe_tcp_config config = TOPOMOE_TCP_CONFIG_INIT;
  config.world_size = 1;
  ASSERT_EQ(topomoe_tcp_communicator(&config, &c), TOPOMOE_OK) << last();
  int32_t rank = -1, size = -1;
  EXPECT_EQ(topomoe_communicator_rank(c, &rank, &size), TOPOMOE_OK);
  EXPECT_EQ(rank, 0);
  EXPECT_EQ(size, 1);
  topomoe_communicator_free(c);
  const auto refused = [&] {
    EXPECT_EQ(topomoe_tcp_communicator(&config, &c), TOPOMOE_INVALID_INPUT);
    EXPECT_EQ(c, nullptr);
    return last();
  };
  config.world_size = 2;
  EXPECT_EQ(refused(), "address: missing: the host of rank 0");
  config.address = "127.0.0.1";
  EXPECT_EQ(refused(), "port: 0: 1 to 65535");
  config.rank = 2;
  EXPECT_EQ(refused(), "rank: 2: 0 to 1");
  config.deadline_ms = -1;
  EXPECT_EQ(refused(), "config.deadline_ms: -1: at least 1, or 0");
  config.version = 2;
  EXPECT_EQ(refused(), "config.version: 2: this library speaks 1");
}

TEST(CApi, ValuesThatDoNotFit_AreNamed) {
  Opened o;
  topomoe_layer* layer = nullptr;
  const auto refused = [&](auto set) {
    topomoe_layer_config config = TOPOMOE_LAYER_CONFIG_INIT;
    set(config);
    EXPECT_EQ(o.layer(&config, &layer), TOPOMOE_INVALID_INPUT);
    EXPECT_EQ(layer, nullptr);
    return last();
  };
  EXPECT_EQ(refused([](auto& c) { c.kind = 1; }), "kind: 1: the plan has kinds 0 to 0");
  EXPECT_EQ(refused([](auto& c) { c.hidden = -4; }), "config.hidden: -4: at least 1, or 0 as planned");
  EXPECT_EQ(refused([](auto& c) { c.ffn = 25; }), "shape.ffn: 25: a positive multiple of ETP 2");
  EXPECT_EQ(refused([](auto& c) { c.dtype = 2; }), "config.dtype: 2: TOPOMOE_F32, TOPOMOE_BF16, or -1 as planned");
  EXPECT_EQ(refused([](auto& c) { c.deadline_ms = -1; }), "config.deadline_ms: -1: at least 1, or 0");
  EXPECT_EQ(refused([](auto& c) { c.shared_ffn = 8; }), "config.shared_ffn: 8: 0: the plan has no shared expert");
  EXPECT_EQ(refused([](auto& c) { c.z_loss = std::nan(""); }).rfind("shape.router", 0), 0U) << last();
  EXPECT_EQ(refused([](auto& c) { c.memory_tokens = -2; }).rfind("config.memory_tokens", 0), 0U) << last();
  topomoe_dispatcher* dispatcher = nullptr;
  const auto dispatcher_refused = [&](auto set) {
    topomoe_layer_config config = TOPOMOE_LAYER_CONFIG_INIT;
    set(config);
    EXPECT_EQ(topomoe_dispatcher_create(o.plan, o.ranks[0], o.device, &config, &dispatcher), TOPOMOE_INVALID_INPUT);
    EXPECT_EQ(dispatcher, nullptr);
    return last();
  };
  EXPECT_EQ(dispatcher_refused([](auto& c) { c.ffn = 4; }), "config.ffn: 4: 0: the experts are the caller's");
  EXPECT_EQ(dispatcher_refused([](auto& c) { c.balance_loss = 1; }).rfind("config.balance_loss", 0), 0U) << last();
  EXPECT_EQ(refused([](auto& c) { c.memory_skew = 2; }).rfind("config.memory_skew", 0), 0U) << last();
  EXPECT_EQ(refused([](auto& c) { c.memory_tokens = 9, c.memory_skew = 0.5; }).rfind("config.memory_skew", 0), 0U)
      << last();
  EXPECT_EQ(dispatcher_refused([](auto& c) { c.memory_tokens = -2; }).rfind("config.memory_tokens", 0), 0U) << last();
  topomoe_communicator* alone = nullptr;
  ASSERT_EQ(topomoe_inproc_world(1, &alone), TOPOMOE_OK);
  EXPECT_EQ(topomoe_layer_create(o.plan, alone, o.device, nullptr, &layer), TOPOMOE_INVALID_INPUT);
  EXPECT_EQ(last(), "communicator: 1 ranks: the layout has 4");
  topomoe_communicator_free(alone);
  EXPECT_EQ(topomoe_inproc_world(0, &alone), TOPOMOE_INVALID_INPUT);
}

// Experts that return what they get, on both ranks of each ETP group, whose outputs are added up; both weights 1/2:
// y = 2 x. Back: dx = 2 dy, and the gradient of each weight is dy . 2 x.
TEST(CApi, DispatchAndCombine_WithExpertsThatReturnTheirInput) {
  Opened o;
  std::vector<std::string> errors(4);
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < 4; ++r)
    threads.emplace_back([&, r] {
      topomoe_layer_config config = TOPOMOE_LAYER_CONFIG_INIT;
      config.dtype = TOPOMOE_F32;
      topomoe_dispatcher* dispatcher = nullptr;
      topomoe_dispatched* pass = nullptr;
      constexpr std::size_t kRows = 5, kHidden = 16;
      std::vector<float> x(kRows * kHidden), y(x.size()), dx(x.size()), weights(2 * kRows, 0.5F), dweights(2 * kRows);
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i + r / 2);  // alike in a TP group
      const std::vector<float> dy(x.size(), 1);
      const std::vector<std::int32_t> ids{0, 3, 1, 2, 2, 0, 3, 1, 0, 1};
      const auto echo = [&] {
        std::int32_t count = 0;
        EXPECT_EQ(topomoe_batches(pass, &count), TOPOMOE_OK);
        for (std::int32_t i = 0; i < count; ++i) {
          topomoe_batch batch = TOPOMOE_BATCH_INIT;
          EXPECT_EQ(topomoe_get_batch(pass, i, &batch), TOPOMOE_OK) << last();
          EXPECT_EQ(batch.experts, 2);
          const auto values = static_cast<std::size_t>(batch.rows[0] + batch.rows[1]) * kHidden;
          std::copy_n(static_cast<const float*>(batch.inputs), values, static_cast<float*>(batch.outputs));
        }
        return TOPOMOE_OK;
      };
      topomoe_device* device = nullptr;  // a rank's own
      topomoe_status status = topomoe_device_create(nullptr, &device);
      if (status == TOPOMOE_OK) status = topomoe_dispatcher_create(o.plan, o.ranks[r], device, &config, &dispatcher);
      if (status == TOPOMOE_OK)
        status = topomoe_dispatch(dispatcher, x.data(), kRows, ids.data(), weights.data(), &pass);
      topomoe_dispatcher_free(dispatcher), topomoe_device_free(device);
      if (status == TOPOMOE_OK) status = echo();
      if (status == TOPOMOE_OK) status = topomoe_combine(pass, y.data());
      if (status == TOPOMOE_OK) status = topomoe_combine_backward(pass, dy.data());
      if (status == TOPOMOE_OK) status = echo();
      if (status == TOPOMOE_OK) status = topomoe_dispatch_backward(pass, dx.data(), dweights.data());
      if (status != TOPOMOE_OK) {
        errors[r] = last();
        topomoe_communicator_abort(o.ranks[r], "the test failed");
      } else {
        EXPECT_EQ(topomoe_combine(pass, y.data()), TOPOMOE_INVALID_INPUT);
        EXPECT_EQ(last(), "handle: next for it is nothing: combine comes once, in order");
      }
      topomoe_dispatched_free(pass);
      for (std::size_t row = 0; row < kRows; ++row) {
        float sum = 0;
        for (std::size_t i = row * kHidden; i < (row + 1) * kHidden; ++i) {
          sum += 2 * x[i];
          EXPECT_EQ(y[i], 2 * x[i]);
          EXPECT_EQ(dx[i], 2);
        }
        EXPECT_EQ(dweights[2 * row], sum);
        EXPECT_EQ(dweights[2 * row + 1], sum);
      }
    });
  for (std::thread& t : threads) t.join();
  for (const std::string& error : errors) EXPECT_EQ(error, "");
}

TEST(CApi, AbortOfOneRank_EndsTheOthersForwardWithATransportError) {
  const LayerCase c{.layout = tiny().layout, .gpus_per_node = 2, .tokens = {13, 7}};
  const ReferenceWeights weights = make_weights(c);
  std::vector<topomoe_communicator*> ranks(4);
  ASSERT_EQ(topomoe_inproc_world(4, ranks.data()), TOPOMOE_OK);
  const std::string plan = write_plan(tiny());
  std::vector<topomoe_status> statuses(4);
  std::vector<std::string> errors(4);
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < 4; ++r)
    threads.emplace_back([&, r] {
      RankTensors t(c, weights, static_cast<int>(r));
      // Rank 3 hands in no weights: refused there before anything moves.
      const c_layer in{t.x.data(),
                       t.dy.data(),
                       t.y.data(),
                       t.dx.data(),
                       t.rows,
                       t.router.data(),
                       r == 3 ? nullptr : t.gate.data(),
                       t.up.data(),
                       t.down.data(),
                       t.drouter.data(),
                       t.dgate.data(),
                       t.dup.data(),
                       t.ddown.data(),
                       TOPOMOE_F32};
      statuses[r] = run_c_layer(plan.data(), plan.size(), ranks[r], &in);
      errors[r] = last();
      if (r == 3) topomoe_communicator_abort(ranks[r], "no weights");
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(statuses[3], TOPOMOE_INVALID_INPUT);
  EXPECT_EQ(errors[3], "weights.gate: null: the rank holds 2 experts");
  for (std::size_t r = 0; r < 3; ++r) {
    EXPECT_EQ(statuses[r], TOPOMOE_TRANSPORT_ERROR);
    EXPECT_NE(errors[r].find("rank 3 failed: no weights"), std::string::npos) << errors[r];
  }
  for (topomoe_communicator* rank : ranks) topomoe_communicator_free(rank);
}

}  // namespace
}  // namespace topomoe::testing
