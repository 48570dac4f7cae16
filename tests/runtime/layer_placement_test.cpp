// Where experts stand, and what is dropped: the whole matrix of cases on threads, and what only placements have.

#include <gtest/gtest.h>

#include <cstring>
#include <mutex>

#include "tests/support/layer_matrix.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"

namespace topomoe::testing {
namespace {

TEST(LayerMatrix, OnThreads_IsTheLayerByDefinition) {
  const std::vector<MatrixCase> cases = layer_matrix();
  EXPECT_GT(cases.size(), 500U);
  Expectations expected;
  std::mutex mutex;
  run_inproc(kMatrixRanks, [&](Communicator& communicator) {
    const auto wrong = check_layers(cases, expected, communicator);
    const std::lock_guard lock(mutex);
    for (const std::string& line : wrong) ADD_FAILURE() << line;
  });
}

// A row's bits depend on neither its place nor its neighbours, and `flat` adds up in order of slot.
TEST(LayerPlacement, AnyPlacement_ChangesNoBitOfOutputsAndTokenGradients) {
  LayerCase c{.layout = layout(4, 2, 2, 2), .gpus_per_node = 2, .shape = {12, 12, 8, 3, true}, .tokens = {9, 4}};
  const Schedule schedule = build_schedule("flat", request(c.layout, TokenSplit::sliced, 2));
  const LayerResult even = run_layer(c, schedule);
  for (const ExpertOwners& owners : {ExpertOwners{{0}, {0}, {0}, {0}, {0}, {0}, {0}, {1}},
                                     {{1}, {0}, {1}, {0}, {0}, {1}, {1}, {1}},
                                     {{0, 1}, {1, 0}, {0}, {1}, {0, 1}, {1}, {0}, {1, 0}},
                                     {{1}, {1}, {1}, {1}, {1}, {1}, {1}, {1}}}) {
    c.owners = owners;
    SCOPED_TRACE(describe(c));
    const LayerResult other = run_layer(c, schedule);
    EXPECT_EQ(other.output, even.output);
    EXPECT_EQ(other.token_grads, even.token_grads);
  }
}

// Every rank but the first has replicas of expert 1, ranks 0 and 3 of expert 0; two backwards add to the gradients.
TEST(LayerPlacement, SumOverReplicas_IsTheSameSumOnEachAndLeavesOthers) {
  LayerCase c{.layout = layout(4, 1, 1, 4), .gpus_per_node = 2, .shape = {8, 4, 4, 2, true}, .tokens = {9, 4, 7, 5}};
  c.owners = {{3, 0}, {2, 1, 3}, {2}, {0}};
  const Schedule schedule = build_schedule("node_dedup", request(c.layout, TokenSplit::sliced, 2));
  const ExpectedResult expected = expect_layer(c);
  ASSERT_TRUE(expected.decided);
  // By rank and expert held: gradients of gate, before and after.
  constexpr std::size_t kMatrix = 8 * 4;
  std::vector<std::vector<float>> before(4), after(4), down(4);
  run_inproc(4, [&](Communicator& communicator) {
    const auto device = make_cpu_device();
    RankTensors t(c, make_weights(c), communicator.rank());
    MoeLayer layer = make_layer(c, schedule, communicator, *device);
    for (int micro_batch = 0; micro_batch < 2; ++micro_batch) {
      auto handle = layer.forward(t.x.data(), t.rows, t.y.data(), t.weights());
      layer.backward(handle, t.dy.data(), t.dx.data(), t.weights(), t.gradients());
    }
    const auto rank = static_cast<std::size_t>(communicator.rank());
    before[rank] = t.dgate;
    layer.sum_over_replicas(t.gradients());
    after[rank] = t.dgate, down[rank] = t.ddown;
  });
  const auto part = [](const std::vector<float>& of, std::size_t index) {
    return std::vector<float>(of.begin() + static_cast<long>(index * kMatrix),
                              of.begin() + static_cast<long>((index + 1) * kMatrix));
  };
  const auto sum = [](std::vector<float> a, const std::vector<float>& b) {
    for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
    return a;
  };
  // Ranks hold experts 0 3 | 1 | 1 2 | 0 1, replicas in the order of their owners.
  const auto zero = sum(part(before[3], 0), part(before[0], 0));
  EXPECT_EQ(part(after[0], 0), zero);
  EXPECT_EQ(part(after[3], 0), zero);
  const auto one = sum(sum(part(before[2], 0), part(before[1], 0)), part(before[3], 1));
  EXPECT_EQ(part(after[1], 0), one);
  EXPECT_EQ(part(after[2], 0), one);
  EXPECT_EQ(part(after[3], 1), one);
  EXPECT_EQ(part(down[1], 0), part(down[3], 1));
  EXPECT_EQ(part(after[0], 1), part(before[0], 1));
  EXPECT_EQ(part(after[2], 1), part(before[2], 1));
  // Twice the gradient of one pass.
  for (std::size_t i = 0; i < kMatrix; ++i)
    EXPECT_NEAR(static_cast<double>(one[i]), 2 * expected.grads.gate.value[kMatrix + i],
                4 * expected.grads.gate.bound[kMatrix + i]);
}

// All ranks but the last count what their own tokens lost; the layer's trace says so.
TEST(LayerPlacement, DroppedChoices_AreReportedByTheRouteStep) {
  LayerCase c{.layout = layout(4, 1, 1, 4), .gpus_per_node = 2, .shape = {8, 4, 8, 2, true}, .tokens = {20, 12, 7, 0}};
  c.shape.capacity_factor = 0.5;
  const LayerResult result = run_layer(c, build_schedule("flat", request(c.layout, TokenSplit::sliced, 3)));
  const ExpectedResult reference = expect_layer(c);
  ASSERT_TRUE(reference.decided);
  for (std::size_t rank = 0; rank < 4; ++rank) {
    // Room is ceil(0.5 * 2 * tokens / 8), so that at most 8 times that of 2 * tokens choices stay.
    std::vector<int> chosen(8, 0);
    for (const int expert : reference.ids[rank]) ++chosen[static_cast<std::size_t>(expert)];
    const int room = (held_tokens(c, static_cast<int>(rank)) + 7) / 8;
    std::int64_t beyond = 0, reported = 0;
    for (const int n : chosen) beyond += std::max(0, n - room);
    for (const StepTrace& s : result.forward[rank]) reported += s.dropped;
    EXPECT_EQ(reported, beyond) << "rank " << rank;
    EXPECT_EQ(reported > 0, rank < 3) << "rank " << rank;
  }
}

TEST(LayerPlacement, OwnersThatDoNotFit_AreRefusedBeforeAnyChannelIsOpened) {
  LayerCase c{.layout = layout(2, 1, 1, 2), .gpus_per_node = 2, .shape = {8, 4, 3, 1, true}, .tokens = {4}};
  const Schedule schedule = build_schedule("flat", request(c.layout, TokenSplit::sliced, 1));
  const auto communicators = make_inproc_world(2);
  const auto device = make_cpu_device();
  const auto refusal = [&] {
    try {
      make_layer(c, schedule, *communicators[0], *device);
    } catch (const InvalidInput& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  EXPECT_NE(refusal().find("must divide the 3 experts"), std::string::npos) << refusal();
  c.owners = {{0}, {1}};
  EXPECT_NE(refusal().find("shape.expert_owners: 2 owners"), std::string::npos) << refusal();
  c.owners = {{0}, {1}, {2}};
  EXPECT_NE(refusal().find("shape.expert_owners[2]: 2"), std::string::npos) << refusal();
}

}  // namespace
}  // namespace topomoe::testing
