// dispatch, experts of one's own, combine: the bits of the layer whose steps they are, also beside other handles.

#include "topomoe/dispatch.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <thread>

#include "kernels/grouped_ffn.hpp"
#include "kernels/router.hpp"
#include "tests/support/deferred_device.hpp"
#include "tests/support/soon.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/error.hpp"

namespace topomoe::testing {
namespace {

DispatchShape shape_of(const LayerCase& c) { return {c.shape.hidden, c.shape.experts, c.shape.top_k, c.dtype}; }

struct Routing {
  std::vector<std::int32_t> ids;
  std::vector<float> weights, logits;
};

// A router of the caller's: the layer's own, so that there is something to compare with.
Routing route(const LayerCase& c, const RankTensors& t, Device& device) {
  const auto pairs = static_cast<std::size_t>(t.rows * c.shape.top_k);
  Routing out{std::vector<std::int32_t>(pairs), std::vector<float>(pairs),
              std::vector<float>(static_cast<std::size_t>(t.rows * c.shape.experts))};
  device.router(Lane::compute, {.tokens = t.x.data(),
                                .weight = t.router.data(),
                                .logits = out.logits.data(),
                                .ids = out.ids.data(),
                                .weights = out.weights.data(),
                                .rows = t.rows,
                                .hidden = c.shape.hidden,
                                .experts = c.shape.experts,
                                .k = c.shape.top_k,
                                .renormalize = c.shape.renormalize,
                                .dtype = c.dtype});
  return out;
}

// Its gradients on top of those that came through the experts.
void route_backward(const LayerCase& c, const RankTensors& t, const Routing& r, const std::vector<float>& dweights,
                    std::vector<std::byte>& dx, Device& device) {
  std::vector<float> scratch(r.logits.size());
  device.router_backward(Lane::compute, {.tokens = t.x.data(),
                                         .weight = t.router.data(),
                                         .logits = r.logits.data(),
                                         .ids = r.ids.data(),
                                         .weight_grads = dweights.data(),
                                         .logit_grads = scratch.data(),
                                         .token_grads = dx.data(),
                                         .rows = t.rows,
                                         .hidden = c.shape.hidden,
                                         .experts = c.shape.experts,
                                         .k = c.shape.top_k,
                                         .renormalize = c.shape.renormalize,
                                         .dtype = c.dtype});
  device.synchronize(soon());
}

struct Kept {
  std::vector<std::byte> gate, up;
};

// Experts of the caller's: the same kernel on each batch.
Kept compute(const LayerCase& c, const RankTensors& t, const ExpertBatch& batch, Device& device) {
  std::vector<std::int64_t> offsets(batch.rows.size() + 1, 0);
  std::partial_sum(batch.rows.begin(), batch.rows.end(), offsets.begin() + 1);
  const std::int64_t ffn = c.shape.ffn / c.layout.etp;
  const auto inner = static_cast<std::size_t>(offsets.back() * ffn) * size_of(c.dtype);
  Kept kept{std::vector<std::byte>(inner), std::vector<std::byte>(inner)};
  std::vector<std::byte> act(inner);
  device.grouped_ffn(Lane::compute, {.in = batch.inputs,
                                     .out = batch.outputs,
                                     .gate = kept.gate.data(),
                                     .up = kept.up.data(),
                                     .act = act.data(),
                                     .w_gate = t.gate.data(),
                                     .w_up = t.up.data(),
                                     .w_down = t.down.data(),
                                     .offsets = offsets,
                                     .hidden = c.shape.hidden,
                                     .ffn = ffn,
                                     .dtype = c.dtype});
  device.synchronize(soon());  // `act` goes
  return kept;
}

void compute_backward(const LayerCase& c, const RankTensors& t, const Kept& kept, const ExpertBatch& batch,
                      Device& device) {
  std::vector<std::int64_t> offsets(batch.rows.size() + 1, 0);
  std::partial_sum(batch.rows.begin(), batch.rows.end(), offsets.begin() + 1);
  std::vector<std::byte> gate(kept.gate.size()), up(kept.gate.size()), act(kept.gate.size());
  device.grouped_ffn_dgrad(Lane::compute, {.out_grad = batch.inputs,
                                           .in_grad = batch.outputs,
                                           .gate = kept.gate.data(),
                                           .up = kept.up.data(),
                                           .gate_grad = gate.data(),
                                           .up_grad = up.data(),
                                           .act = act.data(),
                                           .w_gate = t.gate.data(),
                                           .w_up = t.up.data(),
                                           .w_down = t.down.data(),
                                           .offsets = offsets,
                                           .hidden = c.shape.hidden,
                                           .ffn = c.shape.ffn / c.layout.etp,
                                           .dtype = c.dtype});
  device.synchronize(soon());
}

// One step with experts of the caller's.
struct OneStep {
  std::vector<std::byte> y, dx;
  std::vector<float> dweights;
  std::size_t batches = 0;
};

// `forward` as far as combine.
OneStep run_step(const LayerCase& c, const RankTensors& t, const Routing& routing, Dispatcher& dispatcher,
                 Device& device, bool forward = false) {
  OneStep out{std::vector<std::byte>(t.y.size(), std::byte{0x7F}), std::vector<std::byte>(t.dx.size(), std::byte{0x7F}),
              std::vector<float>(routing.weights.size(), -1)};
  auto handle = dispatcher.dispatch(t.x.data(), t.rows, routing.ids.data(), routing.weights.data());
  out.batches = handle.batches().size();
  std::vector<Kept> kept;
  for (const ExpertBatch& batch : handle.batches()) kept.push_back(compute(c, t, batch, device));
  dispatcher.combine(handle, out.y.data());
  device.synchronize(soon());
  if (forward) {
    EXPECT_THROW(dispatcher.combine_backward(handle, t.dy.data()), InvalidInput);
    return out;
  }
  const auto gradients = dispatcher.combine_backward(handle, t.dy.data());
  EXPECT_EQ(gradients.size(), kept.size());
  for (std::size_t i = 0; i < kept.size(); ++i) {
    EXPECT_EQ(gradients[i].rows, handle.batches()[i].rows);
    compute_backward(c, t, kept[i], gradients[i], device);
  }
  dispatcher.dispatch_backward(handle, out.dx.data(), out.dweights.data());
  device.synchronize(soon());
  route_backward(c, t, routing, out.dweights, out.dx, device);
  return out;
}

// Of the layer itself: into t.y, t.dx.
void run_layer_itself(const LayerCase& c, const Schedule& schedule, RankTensors& t, Communicator& ranks) {
  const auto device = make_cpu_device();
  MoeLayer layer = make_layer(c, schedule, ranks, *device);
  auto handle = layer.forward(t.x.data(), t.rows, t.y.data(), t.weights());
  layer.backward(handle, t.dy.data(), t.dx.data(), t.weights(), t.gradients());
}

void expect_the_layers_bits(const LayerCase& c, const Schedule& schedule, bool other_pieces) {
  SCOPED_TRACE(schedule.name + ", " + describe(c));
  const ReferenceWeights weights = make_weights(c);
  run_inproc(c.layout.world, [&](Communicator& ranks) {
    const auto device = make_cpu_device();
    RankTensors t(c, weights, ranks.rank());
    run_layer_itself(c, schedule, t, ranks);
    Dispatcher dispatcher(schedule, c.layout, c.gpus_per_node, shape_of(c), ranks, *device);
    const OneStep step = run_step(c, t, route(c, t, *device), dispatcher, *device, other_pieces);
    EXPECT_EQ(step.batches, static_cast<std::size_t>(schedule.pieces));
    EXPECT_TRUE(step.y == t.y) << "rank " << ranks.rank();
    EXPECT_TRUE(step.y.empty() || step.y != std::vector<std::byte>(step.y.size()));
    EXPECT_TRUE(other_pieces || step.dx == t.dx) << "rank " << ranks.rank();
    EXPECT_EQ(dispatcher.counters().overflow_rounds, 0);
  });
}

// Some steps on a device whose lanes run late; all tokens go to a few experts, which options may leave no room for.
void expect_the_layers_bits_and_steady_memory(const LayerCase& c, const Schedule& schedule,
                                              const LayerOptions& options) {
  SCOPED_TRACE(schedule.name + ", " + describe(c));
  const ReferenceWeights weights = make_weights(c);
  run_inproc(c.layout.world, [&](Communicator& ranks) {
    RankTensors t(c, weights, ranks.rank());
    make_zipf(c, t, 6);
    run_layer_itself(c, schedule, t, ranks);
    DeferredDevice device(3);
    DeferredCommunicator communicator(ranks, device);
    Dispatcher dispatcher(schedule, c.layout, c.gpus_per_node, shape_of(c), communicator, device,
                          std::chrono::seconds(60), options);
    const Routing routing = route(c, t, device);
    device.synchronize(soon());
    constexpr int kSteps = 4;
    long allocations = 0;
    for (int i = 0; i < kSteps; ++i) {
      if (i == kSteps - 1) allocations = device.counts.allocations;
      const OneStep step = run_step(c, t, routing, dispatcher, device);
      EXPECT_TRUE(step.y == t.y) << "rank " << ranks.rank();
      EXPECT_TRUE(step.dx == t.dx) << "rank " << ranks.rank();
      const std::int64_t rounds = 1 + dispatcher.counters().overflow_rounds / (i + 1);
      EXPECT_EQ(static_cast<std::int64_t>(step.batches), schedule.pieces * rounds);
      EXPECT_EQ(rounds > 1, options.tokens > 0);
    }
    EXPECT_EQ(device.counts.allocations, allocations) << schedule.name << ", " << describe(c);
    ranks.barrier();
  });
}

class DispatchOf : public ::testing::TestWithParam<std::string_view> {};

TEST_P(DispatchOf, WithOwnExperts_HasTheLayersBits_EverySplitAndFold) {
  int run = 0;
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const auto& [tp, etp, sp] :
         {std::tuple{1, 1, false}, {2, 1, false}, {2, 2, false}, {2, 1, true}, {2, 2, true}})
      for (const TokenSplit split : {TokenSplit::sliced, TokenSplit::replicated})
        for (const auto& [chunks, pieces] : {std::pair{1, 1}, {4, 2}}) {
          const Layout l = layout(8, tp, etp, 4, sp);
          if (!applies(GetParam(), l, 4)) continue;
          ScheduleRequest r = request(l, split, chunks, pieces);
          const bool other_pieces = run % 5 == 1;
          if (other_pieces) r.backward_chunks = 3, r.backward_pieces = 3;
          if (run % 5 == 3) r.backward_chunks = 3 * pieces, r.backward_pieces = pieces;
          r.fp8_dispatch = run % 3 == 2;
          if (!find_transport(GetParam()).refuses(r).empty()) continue;
          expect_the_layers_bits({.layout = l,
                                  .gpus_per_node = 4,
                                  .shape = {16, 24, 8, 3, run % 2 == 0},
                                  .tokens = {9, 0, 5, 1},
                                  .dtype = dtype,
                                  .seed = static_cast<std::uint64_t>(++run)},
                                 build_schedule(GetParam(), r), other_pieces);
        }
  EXPECT_GE(run, 24);
}
TEST_P(DispatchOf, AnyMemory_RoundsHaveTheLayersBitsAndAllocateNothing) {
  int run = 0;
  for (const auto& [tp, etp, sp] : {std::tuple{1, 1, false}, {2, 1, false}, {2, 2, false}, {2, 1, true}})
    for (const TokenSplit split : {TokenSplit::sliced, TokenSplit::replicated})
      for (const bool bounded : {false, true}) {
        const Layout l = layout(4, tp, etp, 4 / etp, sp);
        const int pieces = 1 + run % 2;
        const ScheduleRequest r = request(l, split, 2 * pieces, pieces);
        if (!applies(GetParam(), l, 2) || !find_transport(GetParam()).refuses(r).empty()) continue;
        const LayerCase c{.layout = l,
                          .gpus_per_node = 2,
                          .shape = {16, 24, 8, 3, true},
                          .tokens = {40, 36, 0, 40},
                          .seed = static_cast<std::uint64_t>(++run)};
        expect_the_layers_bits_and_steady_memory(c, build_schedule(GetParam(), r),
                                                 {bounded ? tokens_of_group(c) : 0, 1});
      }
  EXPECT_GE(run, 8);
}
INSTANTIATE_TEST_SUITE_P(, DispatchOf, ::testing::ValuesIn(transport_names()),
                         [](const auto& p) { return std::string(p.param); });

TEST(Dispatch, TwoHandlesOutstanding_DoNotMix) {
  const LayerCase c{.layout = layout(4, 1, 1, 4), .gpus_per_node = 2, .shape = {16, 24, 8, 2, true}, .tokens = {6, 3}};
  const ReferenceWeights weights = make_weights(c);
  const Schedule schedule = build_schedule("node_dedup", request(c.layout, TokenSplit::sliced, 2));
  run_inproc(4, [&](Communicator& ranks) {
    const auto device = make_cpu_device();
    const RankTensors t(c, weights, ranks.rank());
    Dispatcher dispatcher(schedule, c.layout, 2, shape_of(c), ranks, *device);
    const Routing all = route(c, t, *device);
    const auto whole = [&](auto& handle) {
      std::vector<std::byte> y(t.y.size());
      for (const ExpertBatch& batch : handle.batches()) compute(c, t, batch, *device);
      dispatcher.combine(handle, y.data());
      return y;
    };
    Routing other = all;
    for (std::int32_t& id : other.ids) id = (id + 1) % 8;
    auto alone = dispatcher.dispatch(t.x.data(), t.rows, all.ids.data(), all.weights.data());
    const auto expected = whole(alone);
    auto first = dispatcher.dispatch(t.x.data(), t.rows, all.ids.data(), all.weights.data());
    auto second = dispatcher.dispatch(t.x.data(), t.rows, other.ids.data(), other.weights.data());
    const auto y2 = whole(second), y1 = whole(first);
    EXPECT_TRUE(y1 == expected);
    EXPECT_TRUE(y2 != expected);
  });
}

// Slot by slot, laid out, and steady; each time another handle stops after dispatch, while its work may be under way.
TEST(Dispatch, HandlesThatStopHalfway_LeaveOthersTheirBits) {
  const LayerCase c{.layout = layout(4, 2, 2, 2), .gpus_per_node = 2, .shape = {16, 24, 8, 2, true}, .tokens = {9, 6}};
  const ReferenceWeights weights = make_weights(c);
  const Schedule schedule = build_schedule("node_dedup", request(c.layout, TokenSplit::sliced, 2));
  run_inproc(4, [&](Communicator& ranks) {
    RankTensors t(c, weights, ranks.rank());
    run_layer_itself(c, schedule, t, ranks);
    DeferredDevice device(11);
    DeferredCommunicator communicator(ranks, device);
    Dispatcher dispatcher(schedule, c.layout, 2, shape_of(c), communicator, device);
    const Routing routing = route(c, t, device);
    device.synchronize(soon());
    for (int i = 0; i < 4; ++i) {
      dispatcher.dispatch(t.x.data(), t.rows, routing.ids.data(), routing.weights.data());
      const OneStep step = run_step(c, t, routing, dispatcher, device);
      EXPECT_TRUE(step.y == t.y) << "step " << i;
      EXPECT_TRUE(step.dx == t.dx) << "step " << i;
    }
    ranks.barrier();
  });
}

// Nobody waits between the last call and the end of both: what lanes still read must not go before they are done.
TEST(Dispatch, HandleAndDispatcherEndBeforeTheirWork_GradientsAreComplete) {
  const LayerCase c{.layout = layout(2, 1, 1, 2), .gpus_per_node = 2, .shape = {16, 24, 8, 2, true}, .tokens = {7, 4}};
  const ReferenceWeights weights = make_weights(c);
  const Schedule schedule = build_schedule("flat", request(c.layout, TokenSplit::sliced, 1));
  run_inproc(2, [&](Communicator& ranks) {
    RankTensors t(c, weights, ranks.rank());
    DeferredDevice device(13);
    DeferredCommunicator communicator(ranks, device);
    const Routing routing = route(c, t, device);
    device.synchronize(soon());
    std::vector<float> expected, dweights(routing.weights.size(), -1);
    std::vector<std::byte> y(t.y.size()), dx(t.dx.size());
    std::vector<Kept> kept;
    {
      Dispatcher dispatcher(schedule, c.layout, 2, shape_of(c), communicator, device);
      expected = run_step(c, t, routing, dispatcher, device).dweights;
      auto handle = dispatcher.dispatch(t.x.data(), t.rows, routing.ids.data(), routing.weights.data());
      for (const ExpertBatch& batch : handle.batches()) kept.push_back(compute(c, t, batch, device));
      dispatcher.combine(handle, y.data());
      const auto gradients = dispatcher.combine_backward(handle, t.dy.data());
      for (std::size_t i = 0; i < kept.size(); ++i) compute_backward(c, t, kept[i], gradients[i], device);
      dispatcher.dispatch_backward(handle, dx.data(), dweights.data());
    }
    device.synchronize(soon());
    EXPECT_EQ(dweights, expected);
    ranks.barrier();
  });
}

}  // namespace
}  // namespace topomoe::testing
