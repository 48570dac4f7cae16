// Whole layers on GPUs of one process, over the fake one: kernels, copies and exchanges run on streams of their own,
// later than they are issued, so that a step that does not wait for what it needs gets other bits than on the CPU (and
// is a race for ThreadSanitizer).

#include <gtest/gtest.h>

#include <cstring>

#include "tests/runtime/fake_gpu.hpp"
#include "tests/support/layer_cases.hpp"
#include "tests/support/soon.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/error.hpp"

namespace topomoe::testing {
namespace {

using Clock = std::chrono::steady_clock;

struct OnGpus {
  std::vector<std::vector<std::byte>> output, token_grads;  // by rank
};

OnGpus run_on_gpus(const LayerCase& c, const Schedule& schedule) {
  const auto world = static_cast<std::size_t>(c.layout.world);
  const ReferenceWeights weights = make_weights(c);
  OnGpus out;
  out.output.resize(world), out.token_grads.resize(world);
  std::vector<std::unique_ptr<Device>> devices;  // a rank's copies may be on another's lane
  for (std::size_t r = 0; r < world; ++r) devices.push_back(make_fake_gpu());
  run_inproc(c.layout.world, [&](Communicator& communicator) {
    const auto r = static_cast<std::size_t>(communicator.rank());
    use_device(communicator, *devices[r]);
    RankTensors t(c, weights, communicator.rank());
    MoeLayer layer = make_layer(c, schedule, communicator, *devices[r]);
    for (int step = 0; step < 2; ++step) {  // the second one in memory of the first
      auto handle = layer.forward(t.x.data(), t.rows, t.y.data(), t.weights());
      layer.backward(handle, t.dy.data(), t.dx.data(), t.weights(), t.gradients());
    }
    devices[r]->synchronize(soon());
    out.output[r] = t.y, out.token_grads[r] = t.dx;
    communicator.barrier();
  });
  return out;
}

bool same_bits(const std::vector<std::byte>& a, const std::vector<float>& b) {
  return a.size() == b.size() * sizeof(float) && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

class LayerOnGpus : public ::testing::TestWithParam<std::string_view> {};

TEST_P(LayerOnGpus, GivesTheBitsOfTheCpu) {
  Draw draw(7);
  for (const Fold& f : {Fold{1, 4, 1}, Fold{2, 2, 2}, Fold{2, 4, 1}}) {
    const LayerCase c = draw_case(f, draw.coin(), DType::f32, 4, draw).c;
    if (!applies(GetParam(), c.layout, c.gpus_per_node)) continue;
    for (const auto& [split, fp8] : {std::pair{TokenSplit::replicated, true}, {TokenSplit::sliced, false}}) {
      ScheduleRequest how = request(c.layout, split, 3);
      how.fp8_dispatch = fp8;
      const Schedule schedule = build_schedule(GetParam(), how);
      SCOPED_TRACE(describe(c) + ", " + schedule.name);
      const LayerResult cpu = run_layer(c, schedule);
      const OnGpus gpus = run_on_gpus(c, schedule);
      for (std::size_t r = 0; r < gpus.output.size(); ++r) {
        EXPECT_TRUE(same_bits(gpus.output[r], cpu.output[r])) << "output of rank " << r;
        EXPECT_TRUE(same_bits(gpus.token_grads[r], cpu.token_grads[r])) << "token gradients of rank " << r;
      }
    }
  }
}

// The host waits for what the router chose on a lane that gets no further: no longer than the deadline.
TEST(LayerOnAGpu, LaneNeverEnds_IsAnErrorInTimeThatNamesRankAndStep) {
  const LayerCase c{.layout = layout(1, 1, 1, 1), .gpus_per_node = 1, .shape = {8, 4, 4, 2, true}, .tokens = {9}};
  const Schedule schedule = build_schedule("flat", request(c.layout, TokenSplit::replicated, 1));
  const ReferenceWeights weights = make_weights(c);
  const auto gpu = make_fake_gpu();
  RankTensors t(c, weights, 0);
  run_inproc(1, [&](Communicator& communicator) {
    use_device(communicator, *gpu);
    MoeLayer layer = make_layer(c, schedule, communicator, *gpu, std::chrono::milliseconds(200));
    for (int warm = 0; warm < 3; ++warm) layer.forward(t.x.data(), t.rows, t.y.data(), t.weights());
    gpu->synchronize(soon());
    const Stall stall(*gpu, Lane::compute);
    const auto begin = Clock::now();
    try {
      layer.forward(t.x.data(), t.rows, t.y.data(), t.weights());
      ADD_FAILURE() << "no error";
    } catch (const TransportError& e) {
      EXPECT_EQ(e.rank, 0);
      EXPECT_EQ(e.step, "route");
    }
    EXPECT_LT(Clock::now() - begin, std::chrono::seconds(20));
  });
}

INSTANTIATE_TEST_SUITE_P(Transports, LayerOnGpus, ::testing::ValuesIn(transport_names()),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace topomoe::testing
