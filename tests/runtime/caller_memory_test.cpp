// A layer in its caller's memory: all of it comes from there and goes back there.

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>

#include "tests/support/layer_cases.hpp"
#include "tests/support/layer_world.hpp"
#include "tests/support/tiny_plan.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/error.hpp"

namespace topomoe::testing {
namespace {

struct Pool {
  std::atomic<std::size_t> held = 0, taken = 0;
  std::size_t most = ~std::size_t{0};
  std::size_t off_by = 0;
  Allocator allocator() {
    return {.allocate = [](std::size_t bytes, void* state) -> void* {
              Pool& p = *static_cast<Pool*>(state);
              if (p.held + bytes > p.most) return nullptr;
              p.held += bytes, p.taken += bytes;
              return static_cast<std::byte*>(std::aligned_alloc(64, (bytes + 127) / 64 * 64)) + p.off_by;
            },
            .release =
                [](void* memory, std::size_t bytes, void* state) {
                  Pool& p = *static_cast<Pool*>(state);
                  p.held -= bytes;
                  std::free(static_cast<std::byte*>(memory) - p.off_by);
                },
            .state = this};
  }
};

TEST(CallersMemory, Layer_LivesInIt_AndGivesAllOfItBack) {
  const LayerCase c{.layout = tiny().layout, .gpus_per_node = 2, .tokens = {13, 7}};
  const ReferenceWeights weights = make_weights(c);
  run_inproc(4, [&](Communicator& ranks) {
    Pool pool;
    RankTensors ours(c, weights, ranks.rank()), theirs(c, weights, ranks.rank());
    const auto run = [&](RankTensors& t, Device& device) {
      MoeLayer layer = make_layer(c, tiny().schedule, ranks, device);
      auto handle = layer.forward(t.x.data(), t.rows, t.y.data(), t.weights());
      layer.backward(handle, t.dy.data(), t.dx.data(), t.weights(), t.gradients());
    };
    run(ours, *make_cpu_device());
    {
      const auto device = make_cpu_device(pool.allocator());
      run(theirs, *device);
      EXPECT_GT(pool.taken, 0U);
    }
    EXPECT_EQ(pool.held, 0U);
    EXPECT_TRUE(theirs.y == ours.y);
    EXPECT_TRUE(theirs.dx == ours.dx);
  });
}

TEST(CallersMemory, NoneLeft_IsMissingEnvironment) {
  Pool pool;
  pool.most = 100;
  const auto device = make_cpu_device(pool.allocator());
  EXPECT_NO_THROW((void)device->allocate(100));
  EXPECT_THROW((void)device->allocate(101), MissingEnvironment);
  EXPECT_EQ(pool.held, 0U);
}

TEST(CallersMemory, Misaligned_IsRefusedAndGivenBack) {
  Pool pool;
  pool.off_by = 8;
  const auto device = make_cpu_device(pool.allocator());
  EXPECT_THROW((void)device->allocate(16), InvalidInput);
  EXPECT_EQ(pool.held, 0U);
}

}  // namespace
}  // namespace topomoe::testing
