// Experts that lie apart, as frameworks hold them: a pointer for each matrix gives the bits of one block, forward,
// backward and summed over replicas, and the arrays of pointers are the layer's during calls only.

#include <gtest/gtest.h>

#include <mutex>
#include <optional>

#include "tests/support/deferred_device.hpp"
#include "tests/support/soon.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"

namespace topomoe::testing {
namespace {

// One matrix of each local expert, in memory of its own, the last expert first.
template <class T>
struct Apart {
  Apart(const std::vector<T>& block, std::size_t experts) : matrices(experts) {
    for (std::size_t e = experts; e-- > 0;) {
      const auto size = static_cast<std::ptrdiff_t>(block.size() / experts), at = static_cast<std::ptrdiff_t>(e) * size;
      matrices[e].assign(block.begin() + at, block.begin() + at + size);
    }
  }
  template <class Pointer>
  std::vector<Pointer> pointers() {
    std::vector<Pointer> out;
    for (auto& m : matrices) out.push_back(m.data());
    return out;
  }
  std::vector<T> joined() const {
    std::vector<T> out;
    for (const auto& m : matrices) out.insert(out.end(), m.begin(), m.end());
    return out;
  }
  std::vector<std::vector<T>> matrices;
};

struct Case {
  LayerCase layer;
  Schedule schedule;
};
// Uneven, with replicas, and a rank of each TP group that holds a shard.
Case a_case() {
  LayerCase c{.layout = layout(4, 2, 2, 2), .gpus_per_node = 2, .shape = {12, 8, 4, 2, true}, .tokens = {11, 6}};
  c.owners = {{1}, {0, 1}, {0}, {1}};
  return {c, build_schedule("flat", request(c.layout, TokenSplit::sliced, 2))};
}

// Forward, backward, and the sum; then all that `t` has is what one block would hold.
void step_apart(MoeLayer& layer, RankTensors& t, std::size_t experts) {
  Apart<std::byte> gate(t.gate, experts), up(t.up, experts), down(t.down, experts);
  Apart<float> dgate(t.dgate, experts), dup(t.dup, experts), ddown(t.ddown, experts);
  // The arrays are gone when the call returns.
  const auto with = [&](auto call) {
    auto g = gate.pointers<const void*>(), u = up.pointers<const void*>(), d = down.pointers<const void*>();
    auto dg = dgate.pointers<float*>(), du = dup.pointers<float*>(), dd = ddown.pointers<float*>();
    call(LayerWeights{t.router.data(), ExpertMatrices::one_by_one(g.data()), ExpertMatrices::one_by_one(u.data()),
                      ExpertMatrices::one_by_one(d.data())},
         LayerGradients{t.drouter.data(), ExpertGradients::one_by_one(dg.data()),
                        ExpertGradients::one_by_one(du.data()), ExpertGradients::one_by_one(dd.data())});
    for (auto* v : {&g, &u, &d}) v->assign(v->size(), nullptr);
    for (auto* v : {&dg, &du, &dd}) v->assign(v->size(), nullptr);
  };
  std::optional<MoeLayer::Handle> handle;
  with([&](const LayerWeights& w, const LayerGradients&) {
    handle.emplace(layer.forward(t.x.data(), t.rows, t.y.data(), w));
  });
  with(
      [&](const LayerWeights& w, const LayerGradients& g) { layer.backward(*handle, t.dy.data(), t.dx.data(), w, g); });
  with([&](const LayerWeights&, const LayerGradients& g) { layer.sum_over_replicas(g); });
  t.dgate = dgate.joined(), t.dup = dup.joined(), t.ddown = ddown.joined();
}

void step_block(MoeLayer& layer, RankTensors& t) {
  auto handle = layer.forward(t.x.data(), t.rows, t.y.data(), t.weights());
  layer.backward(handle, t.dy.data(), t.dx.data(), t.weights(), t.gradients());
  layer.sum_over_replicas(t.gradients());
}

void expect_same(const RankTensors& a, const RankTensors& b) {
  EXPECT_TRUE(a.y == b.y);
  EXPECT_TRUE(a.dx == b.dx);
  EXPECT_TRUE(a.drouter == b.drouter);
  EXPECT_TRUE(a.dgate == b.dgate);
  EXPECT_TRUE(a.dup == b.dup);
  EXPECT_TRUE(a.ddown == b.ddown);
  EXPECT_NE(a.dgate, std::vector<float>(a.dgate.size()));
}

std::size_t local_experts(const Case& c, int rank) {
  const ExpertPlacement placement(c.layer.shape.experts, c.layer.layout.ep, c.layer.owners);
  return placement.held_by(index_in(c.layer.layout, Role::ep, rank, c.layer.gpus_per_node)).size();
}

TEST(ExpertPointers, OnACpu_GiveTheBitsOfOneBlock) {
  Case c = a_case();
  for (const DType dtype : {DType::f32, DType::bf16}) {
    c.layer.dtype = dtype;
    const ReferenceWeights weights = make_weights(c.layer);
    std::mutex mutex;
    run_inproc(4, [&](Communicator& ranks) {
      const auto device = make_cpu_device();
      MoeLayer layer = make_layer(c.layer, c.schedule, ranks, *device);
      RankTensors block(c.layer, weights, ranks.rank()), apart = block;
      step_block(layer, block);
      step_apart(layer, apart, local_experts(c, ranks.rank()));
      const std::lock_guard lock(mutex);
      expect_same(apart, block);
    });
  }
}

TEST(ExpertPointers, OnLanesThatRunLater_GiveTheSameBits) {
  const Case c = a_case();
  const ReferenceWeights weights = make_weights(c.layer);
  std::mutex mutex;
  run_inproc(4, [&](Communicator& inner) {
    RankTensors block(c.layer, weights, inner.rank()), apart = block;
    {
      const auto device = make_cpu_device();
      MoeLayer layer = make_layer(c.layer, c.schedule, inner, *device);
      step_block(layer, block);
    }
    DeferredDevice device(5);
    DeferredCommunicator communicator(inner, device);
    MoeLayer layer = make_layer(c.layer, c.schedule, communicator, device);
    step_apart(layer, apart, local_experts(c, inner.rank()));
    device.synchronize(soon());
    inner.barrier();
    const std::lock_guard lock(mutex);
    expect_same(apart, block);
  });
}

}  // namespace
}  // namespace topomoe::testing
