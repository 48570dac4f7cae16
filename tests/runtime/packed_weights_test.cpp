// A layer whose device keeps its experts' weights packed: the same results within rounding, forward and backward; in
// bf16 the same bits however the batch is cut; and the copy is what is read until the caller packs again.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/support/layer_cases.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"

namespace topomoe::testing {
namespace {

// Largest difference, as a part of the largest value.
template <class Value>
double apart(const std::vector<Value>& a, const std::vector<Value>& b) {
  double difference = 0, largest = 1e-30;
  EXPECT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
  }
  return difference / largest;
}

LayerCase a_case(DType dtype) {
  return {.layout = layout(4, 2, 2, 2),
          .gpus_per_node = 2,
          .shape = {40, 72, 4, 2, true},
          .tokens = {37, 6},
          .dtype = dtype};
}

TEST(PackedWeights, Layer_AgreesWithWeightsAsTheyAre) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const LayerCase c = a_case(dtype);
    const Schedule schedule = build_schedule("flat", request(c.layout, TokenSplit::sliced, 2));
    const LayerResult packed = run_layer(c, schedule, true), plain = run_layer(c, schedule);
    // fp32: another order of additions. bf16: an activation may round the other way, 2^-8 of its size.
    const double bound = dtype == DType::f32 ? 1e-5 : 1.0 / 64;
    for (std::size_t rank = 0; rank < packed.output.size(); ++rank) {
      EXPECT_LE(apart(packed.output[rank], plain.output[rank]), bound);
      EXPECT_LE(apart(packed.token_grads[rank], plain.token_grads[rank]), bound);
    }
    EXPECT_LE(apart(packed.grads.gate, plain.grads.gate), bound);
    EXPECT_LE(apart(packed.grads.down, plain.grads.down), bound);
  }
}

// DESIGN 8: a row's bits depend on the row alone, so that chunks do not show.
TEST(PackedWeights, Bf16OutputsInAnyChunks_HaveTheSameBits) {
  LayerCase c = a_case(DType::bf16);
  c.shape.hidden = 544, c.shape.ffn = 96;  // a sum of two slices
  const auto output = [&](int chunks, int pieces) {
    return run_layer(c, build_schedule("flat", request(c.layout, TokenSplit::sliced, chunks, pieces)), true).output;
  };
  const auto whole = output(1, 1);
  for (const auto& [chunks, pieces] : {std::pair(2, 1), {3, 3}, {8, 4}}) {
    const auto cut = output(chunks, pieces);
    for (std::size_t rank = 0; rank < whole.size(); ++rank)
      EXPECT_EQ(std::memcmp(cut[rank].data(), whole[rank].data(), whole[rank].size() * sizeof(float)), 0)
          << chunks << " chunks, rank " << rank;
  }
}

TEST(PackedWeights, ChangedWeights_AreReadOncePackedAgainOrDropped) {
  LayerCase c{.layout = layout(1, 1, 1, 1), .gpus_per_node = 1, .shape = {16, 24, 4, 2, true}, .tokens = {5}};
  const Schedule schedule = build_schedule("flat", request(c.layout, TokenSplit::sliced, 1));
  run_inproc(1, [&](Communicator& communicator) {
    const auto device = make_cpu_device();
    RankTensors t(c, make_weights(c), 0);
    MoeLayer layer = make_layer(c, schedule, communicator, *device);
    const auto output = [&] {
      (void)layer.forward(t.x.data(), t.rows, t.y.data(), t.weights());
      return decode(t.y, c.dtype);
    };
    ASSERT_TRUE(layer.pack_weights(t.weights()));
    const auto before = output();
    std::fill(t.down.begin(), t.down.end(), std::byte{0});
    EXPECT_EQ(output(), before);
    ASSERT_TRUE(layer.pack_weights(t.weights()));
    const std::vector<float> zeros(before.size());
    EXPECT_EQ(output(), zeros);  // no down, no output
    t = RankTensors(c, make_weights(c), 0);
    EXPECT_EQ(output(), zeros);
    EXPECT_FALSE(layer.pack_weights({}));
    EXPECT_LE(apart(output(), before), 1e-5);
  });
}

}  // namespace
}  // namespace topomoe::testing
