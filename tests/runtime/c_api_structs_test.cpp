// Structs of programs that were compiled with another topomoe.h: an older one's are read and written as far as they go,
// a later one's are taken where they ask for nothing unknown.

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/tiny_plan.hpp"
#include "topomoe/topomoe.h"

namespace topomoe::testing {
namespace {

// As the first topomoe.h had them.
struct FirstPlanInfo {
  size_t size;
  uint32_t version;
  int32_t kinds, world, tp, ep, etp, gpus_per_node, sequence_parallel, experts, top_k, renormalize;
  int64_t hidden, ffn;
  topomoe_dtype dtype;
  double tokens_per_tp_group;
};
struct FirstLayerConfig {
  size_t size;
  uint32_t version;
  int32_t kind;
  int64_t hidden, ffn;
  int32_t dtype, deadline_ms, accept_unlike;
};
// As topomoe.h had it before a layer could have several schedules.
struct LayerConfigOfOneSchedule {
  size_t size;
  uint32_t version;
  int32_t kind;
  int64_t hidden, ffn;
  int32_t dtype, deadline_ms, accept_unlike;
  double balance_loss, z_loss;
  int64_t shared_ffn;
  double memory_tokens, memory_skew;
};
struct FirstWeights {
  size_t size;
  uint32_t version;
  const float* router;
  const void *gate, *up, *down;
};
struct FirstGradients {
  size_t size;
  uint32_t version;
  float *router, *gate, *up, *down;
};

// A struct with what must neither be read nor written behind it.
template <class T>
struct Fenced {
  T value;
  std::array<unsigned char, 256> fence;
  explicit Fenced(const T& its_value) : value(its_value) { fence.fill(0xAB); }
  bool untouched() const {
    for (const unsigned char c : fence)
      if (c != 0xAB) return false;
    return true;
  }
  template <class Now>
  Now* as() {
    return reinterpret_cast<Now*>(&value);
  }
};

struct Rank {
  topomoe_plan* plan = nullptr;
  topomoe_device* device = nullptr;
  Rank() {
    const std::string text = write_plan(tiny());
    EXPECT_EQ(topomoe_plan_read(text.data(), text.size(), "tiny", &plan), TOPOMOE_OK);
    EXPECT_EQ(topomoe_device_create(nullptr, &device), TOPOMOE_OK);
  }
  ~Rank() { topomoe_device_free(device), topomoe_plan_free(plan); }
};

template <class Body>
void on_four_ranks(Body body) {
  std::vector<topomoe_communicator*> ranks(4);
  ASSERT_EQ(topomoe_inproc_world(4, ranks.data()), TOPOMOE_OK);
  std::vector<std::thread> threads;
  for (topomoe_communicator* rank : ranks)
    threads.emplace_back([&, rank] {
      Rank r;
      body(r, rank);
      if (::testing::Test::HasFailure()) topomoe_communicator_abort(rank, "it failed");
    });
  for (std::thread& t : threads) t.join();
  for (topomoe_communicator* c : ranks) topomoe_communicator_free(c);
}

TEST(CApiStructs, PlanInfoOfTheFirstHeader_IsWrittenAsFarAsItGoes) {
  Rank r;
  Fenced<FirstPlanInfo> old({sizeof(FirstPlanInfo), 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, TOPOMOE_F32, 0});
  ASSERT_EQ(topomoe_plan_get_info(r.plan, 0, old.as<topomoe_plan_info>()), TOPOMOE_OK) << topomoe_last_error();
  EXPECT_EQ(old.value.size, sizeof(FirstPlanInfo));
  EXPECT_EQ(old.value.world, 4);
  EXPECT_EQ(old.value.ffn, 24);
  EXPECT_EQ(old.value.dtype, TOPOMOE_BF16);
  EXPECT_EQ(old.value.tokens_per_tp_group, 16);
  EXPECT_TRUE(old.untouched());
}

// All structs of a program of the first header, with garbage behind each: the bits of today's, which say nothing more.
TEST(CApiStructs, LayerOfTheFirstHeader_HasTheBitsOfTodays) {
  on_four_ranks([](Rank& r, topomoe_communicator* ranks) {
    constexpr std::size_t kRows = 3, kHidden = 16, kMatrix = 2 * 12 * kHidden;
    std::vector<float> x(kRows * kHidden), router(4 * kHidden), matrix(kMatrix);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7) - 3;
    for (std::size_t i = 0; i < router.size(); ++i) router[i] = static_cast<float>(i % 5) / 4 - 0.5F;
    for (std::size_t i = 0; i < matrix.size(); ++i) matrix[i] = static_cast<float>(i % 11) / 20 - 0.25F;
    struct Result {
      std::vector<float> y = std::vector<float>(kRows * kHidden), dx = y, drouter = std::vector<float>(4 * kHidden),
                         dgate = std::vector<float>(kMatrix), dup = dgate, ddown = dgate;
      double losses = -1;
    };
    const auto run = [&](const topomoe_layer_config* config, const topomoe_weights* w, const topomoe_gradients* g,
                         Result& out) {
      topomoe_layer* layer = nullptr;
      topomoe_handle* handle = nullptr;
      ASSERT_EQ(topomoe_layer_create(r.plan, ranks, r.device, config, &layer), TOPOMOE_OK) << topomoe_last_error();
      ASSERT_EQ(topomoe_forward(layer, x.data(), kRows, out.y.data(), w, &handle), TOPOMOE_OK) << topomoe_last_error();
      ASSERT_EQ(topomoe_backward(layer, handle, x.data(), out.dx.data(), w, g), TOPOMOE_OK) << topomoe_last_error();
      topomoe_router_report report = TOPOMOE_ROUTER_REPORT_INIT;
      ASSERT_EQ(topomoe_handle_router(handle, &report), TOPOMOE_OK) << topomoe_last_error();
      out.losses = report.balance_loss + report.z_loss;
      topomoe_handle_free(handle), topomoe_layer_free(layer);
    };
    Result now, then;
    topomoe_layer_config config = TOPOMOE_LAYER_CONFIG_INIT;
    topomoe_weights w = TOPOMOE_WEIGHTS_INIT;
    topomoe_gradients g = TOPOMOE_GRADIENTS_INIT;
    config.dtype = TOPOMOE_F32;
    w.router = router.data(), w.gate = w.up = w.down = matrix.data();
    g.router = now.drouter.data(), g.gate = now.dgate.data(), g.up = now.dup.data(), g.down = now.ddown.data();
    run(&config, &w, &g, now);
    Fenced<FirstLayerConfig> old_config({sizeof(FirstLayerConfig), 1, 0, 0, 0, TOPOMOE_F32, 0, 0});
    Fenced<FirstWeights> old_w({sizeof(FirstWeights), 1, router.data(), matrix.data(), matrix.data(), matrix.data()});
    Fenced<FirstGradients> old_g(
        {sizeof(FirstGradients), 1, then.drouter.data(), then.dgate.data(), then.dup.data(), then.ddown.data()});
    run(old_config.as<topomoe_layer_config>(), old_w.as<topomoe_weights>(), old_g.as<topomoe_gradients>(), then);
    EXPECT_EQ(then.y, now.y);
    EXPECT_EQ(then.dx, now.dx);
    EXPECT_EQ(then.drouter, now.drouter);
    EXPECT_EQ(then.dgate, now.dgate);
    EXPECT_EQ(then.dup, now.dup);
    EXPECT_EQ(then.ddown, now.ddown);
    EXPECT_EQ(then.losses, 0);
    // What lies behind it, which would be plans and their number, is not read.
    Fenced<LayerConfigOfOneSchedule> later_config(
        {sizeof(LayerConfigOfOneSchedule), 1, 0, 0, 0, TOPOMOE_F32, 0, 0, 0.5, 0, 0, 0, 0});
    Result between;
    g.router = between.drouter.data();
    g.gate = between.dgate.data(), g.up = between.dup.data(), g.down = between.ddown.data();
    run(later_config.as<topomoe_layer_config>(), &w, &g, between);
    EXPECT_EQ(between.y, now.y);
    EXPECT_GT(between.losses, 0);
    EXPECT_TRUE(old_config.untouched() && old_w.untouched() && old_g.untouched());
  });
}

TEST(CApiStructs, OfALaterHeader_AreTakenWhereTheyAskForNothingUnknown) {
  Rank r;
  struct Later {
    topomoe_plan_info known = TOPOMOE_PLAN_INFO_INIT;
    std::uint64_t more = 0;
  } later;
  later.known.size = sizeof later;
  EXPECT_EQ(topomoe_plan_get_info(r.plan, 0, &later.known), TOPOMOE_OK) << topomoe_last_error();
  EXPECT_EQ(later.known.size, sizeof later);
  EXPECT_EQ(later.known.world, 4);
  EXPECT_EQ(later.more, 0U);
  later.more = 1;
  EXPECT_EQ(topomoe_plan_get_info(r.plan, 0, &later.known), TOPOMOE_INVALID_INPUT);
  EXPECT_EQ(topomoe_last_error(), "info.size: " + std::to_string(sizeof later) +
                                      ": it sets a field that this library (" +
                                      std::to_string(sizeof(topomoe_plan_info)) + " bytes) does not know");
}

TEST(CApiStructs, OfNoHeader_AreRefused) {
  Rank r;
  topomoe_layer* layer = nullptr;
  topomoe_layer_config config = TOPOMOE_LAYER_CONFIG_INIT;
  std::vector<topomoe_communicator*> ranks(1);
  ASSERT_EQ(topomoe_inproc_world(1, ranks.data()), TOPOMOE_OK);
  const auto refused = [&] {
    EXPECT_EQ(topomoe_layer_create(r.plan, ranks[0], r.device, &config, &layer), TOPOMOE_INVALID_INPUT);
    EXPECT_EQ(layer, nullptr);
    return std::string(topomoe_last_error());
  };
  config.version = 7;
  EXPECT_EQ(refused(), "config.version: 7: this library speaks 1");
  config.size = 0;
  EXPECT_EQ(refused(), "config.size: 0: fill the struct with its _INIT macro");
  config.version = TOPOMOE_ABI_VERSION;
  config.size = sizeof(FirstLayerConfig) - 1;
  EXPECT_EQ(refused(), "config.size: 47: it had 48 bytes from the first");
  topomoe_communicator_free(ranks[0]);
}

}  // namespace
}  // namespace topomoe::testing
