// Schedules of one layout, switched from step to step: the bits of layers of their own, and no group split again.

#include "topomoe/adaptive_layer.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/layer_cases.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/error.hpp"

namespace topomoe::testing {
namespace {

// Counts what is split.
class Opens final : public Communicator {
 public:
  explicit Opens(Communicator& inner) : inner_(inner) {}
  int count = 0;
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  ChannelId open_channel(std::span<const int> members) override { return ++count, inner_.open_channel(members); }
  EventPtr exchange(ChannelId channel, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                    const ExchangeInfo& info) override {
    return inner_.exchange(channel, sends, receives, info);
  }
  void progress() override { inner_.progress(); }
  void barrier() override { inner_.barrier(); }
  void fail(const Failure& failure) noexcept override { inner_.fail(failure); }

 private:
  Communicator& inner_;
};

const LayerCase& a_case() {
  static const LayerCase c{
      .layout = layout(4, 2, 2, 2), .gpus_per_node = 2, .shape = {12, 8, 8, 2, true}, .tokens = {11, 4}};
  return c;
}
// Three ways for one layout: they differ in split, transport, chunks and in the groups that they need.
std::vector<Schedule> ways() {
  const LayerCase& c = a_case();
  return {build_schedule("flat", request(c.layout, TokenSplit::replicated, 1)),
          build_schedule("two_level", request(c.layout, TokenSplit::sliced, 1)),
          build_schedule("flat", request(c.layout, TokenSplit::sliced, 3))};
}
LayerShape shape() {
  const ReferenceLayer& s = a_case().shape;
  return {s.hidden, s.ffn, s.experts, s.top_k, s.renormalize, DType::f32};
}

void step(MoeLayer& layer, RankTensors& t) {
  auto handle = layer.forward(t.x.data(), t.rows, t.y.data(), t.weights());
  layer.backward(handle, t.dy.data(), t.dx.data(), t.weights(), t.gradients());
}
void expect_same(const RankTensors& a, const RankTensors& b) {
  EXPECT_TRUE(a.y == b.y);
  EXPECT_TRUE(a.dx == b.dx);
  EXPECT_TRUE(a.drouter == b.drouter);
  EXPECT_TRUE(a.dgate == b.dgate);
  EXPECT_TRUE(a.dup == b.dup);
  EXPECT_TRUE(a.ddown == b.ddown);
}

TEST(AdaptiveLayer, SwitchedFromStepToStep_HasTheBitsOfSeparateLayers) {
  const ReferenceWeights weights = make_weights(a_case());
  run_inproc(4, [&](Communicator& ranks) {
    const auto device = make_cpu_device();
    AdaptiveLayer layer(ways(), a_case().layout, a_case().gpus_per_node, shape(), ranks, *device);
    ASSERT_EQ(layer.schedules(), 3);
    for (const int way : {0, 1, 0, 2, 2, 1, 0}) {
      RankTensors switched(a_case(), weights, ranks.rank()), alone(a_case(), weights, ranks.rank());
      step(layer.by(way), switched);
      MoeLayer one = make_layer(a_case(), ways()[static_cast<std::size_t>(way)], ranks, *device);
      step(one, alone);
      expect_same(switched, alone);
      EXPECT_NE(switched.y, std::vector<std::byte>(switched.y.size()));
    }
  });
}

// 1F1B over a switch: the forward of one schedule is outstanding while the other runs its own.
TEST(AdaptiveLayer, HandlesOfBothSchedules_AreOutstandingAtOnce) {
  const ReferenceWeights weights = make_weights(a_case());
  run_inproc(4, [&](Communicator& ranks) {
    const auto device = make_cpu_device();
    AdaptiveLayer layer(ways(), a_case().layout, a_case().gpus_per_node, shape(), ranks, *device);
    RankTensors a(a_case(), weights, ranks.rank()), b(a), alone_a(a), alone_b(a);
    auto handle_a = layer.by(0).forward(a.x.data(), a.rows, a.y.data(), a.weights());
    auto handle_b = layer.by(2).forward(b.x.data(), b.rows, b.y.data(), b.weights());
    layer.by(0).backward(handle_a, a.dy.data(), a.dx.data(), a.weights(), a.gradients());
    layer.by(2).backward(handle_b, b.dy.data(), b.dx.data(), b.weights(), b.gradients());
    for (const auto& [way, t] : {std::pair(0, &alone_a), {2, &alone_b}}) {
      MoeLayer one = make_layer(a_case(), ways()[static_cast<std::size_t>(way)], ranks, *device);
      step(one, *t);
    }
    expect_same(a, alone_a);
    expect_same(b, alone_b);
  });
}

// Each in memory of its own for a third of the tokens: the output of one pass, in rounds.
TEST(AdaptiveLayer, BoundedMemory_HoldsForEachSchedule) {
  const ReferenceWeights weights = make_weights(a_case());
  run_inproc(4, [&](Communicator& ranks) {
    const auto device = make_cpu_device();
    AdaptiveLayer layer(ways(), a_case().layout, a_case().gpus_per_node, shape(), ranks, *device,
                        std::chrono::seconds(30), {.tokens = 4});
    AdaptiveLayer whole(ways(), a_case().layout, a_case().gpus_per_node, shape(), ranks, *device);
    for (const int way : {0, 1, 2}) {
      RankTensors t(a_case(), weights, ranks.rank()), expected(t);
      step(layer.by(way), t);
      step(whole.by(way), expected);
      EXPECT_TRUE(t.y == expected.y);
      EXPECT_TRUE(t.dx == expected.dx);
      EXPECT_GT(layer.by(way).counters().overflow_rounds, 0) << way;
      EXPECT_EQ(whole.by(way).counters().overflow_rounds, 0) << way;
    }
  });
}

TEST(AdaptiveLayer, GroupsAreSplitOnce) {
  run_inproc(4, [](Communicator& inner) {
    const auto device = make_cpu_device();
    const auto splits_of = [&](const std::vector<Schedule>& schedules) {
      Opens ranks(inner);
      const AdaptiveLayer layer(schedules, a_case().layout, a_case().gpus_per_node, shape(), ranks, *device);
      return ranks.count;
    };
    const std::vector<Schedule> all = ways();
    const int third = splits_of({all[2]}), first = splits_of({all[0]});
    EXPECT_GT(third, 0);
    EXPECT_EQ(splits_of({all[2], all[2], all[2]}), third);
    EXPECT_EQ(splits_of({all[2], all[0]}), std::max(first, third));  // what replicated needs, sliced needs too
    EXPECT_LT(splits_of(all), first + splits_of({all[1]}) + third);
  });
}

// node_dedup goes over rails and nodes; the sum over replicas needs the EP group as well, and that once for all.
TEST(AdaptiveLayer, ReplicasUnderScheduleWithoutEpGroup_GroupsAreSplitOnceAndSwitchingSplitsNone) {
  LayerCase c = a_case();
  c.layout = layout(4, 1, 1, 4);
  for (int e = 0; e < c.shape.experts; ++e) c.owners.push_back({e % 4, (e + 1) % 4});
  const auto way = [&](int chunks) {
    return build_schedule("node_dedup", request(c.layout, TokenSplit::replicated, chunks));
  };
  for (const Step& s : way(1).forward) EXPECT_TRUE(s.kind != StepKind::exchange || s.group != Role::ep) << s.name;
  LayerShape its = shape();
  its.expert_owners = c.owners;
  const ReferenceWeights weights = make_weights(c);
  run_inproc(4, [&](Communicator& inner) {
    const auto device = make_cpu_device();
    Opens ranks(inner);
    AdaptiveLayer layer({way(1), way(2), way(3)}, c.layout, c.gpus_per_node, its, ranks, *device);
    EXPECT_EQ(ranks.count, 3);  // node, rail, ep
    RankTensors t(c, weights, inner.rank());
    for (const int one : {0, 1, 2, 0}) {
      step(layer.by(one), t);
      layer.by(one).sum_over_replicas(t.gradients());
    }
    EXPECT_EQ(ranks.count, 3);
  });
}

TEST(AdaptiveLayer, WhatIsNoSchedule_IsNamed) {
  run_inproc(4, [](Communicator& ranks) {
    const auto device = make_cpu_device();
    const auto& c = a_case();
    EXPECT_THROW(AdaptiveLayer({}, c.layout, c.gpus_per_node, shape(), ranks, *device), InvalidInput);
    AdaptiveLayer layer({ways()[0]}, c.layout, c.gpus_per_node, shape(), ranks, *device);
    EXPECT_THROW(layer.by(1), InvalidInput);
    EXPECT_THROW(layer.by(-1), InvalidInput);
  });
}

}  // namespace
}  // namespace topomoe::testing
