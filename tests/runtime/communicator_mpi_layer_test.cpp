// A whole layer over MPI, part of the program of communicator_mpi_test.cpp: against the reference, and bit
// for bit against the same layer on threads, since a transport may change no bit of what it carries.

#include <gtest/gtest.h>

// Neither library's deprecated C++ bindings.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <cstring>
#include <mutex>

#include "tests/runtime/c_api_layer.h"
#include "tests/support/layer_matrix.hpp"
#include "tests/support/tiny_plan.hpp"
#include "tests/support/whole_layer.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/communicator_mpi.hpp"
#include "topomoe/device_cpu.hpp"

namespace topomoe::testing {
namespace {

RankTensors run_rank(const LayerCase& c, const Schedule& schedule, Communicator& communicator) {
  const auto device = make_cpu_device();
  RankTensors t(c, make_weights(c), communicator.rank());
  MoeLayer layer = make_layer(c, schedule, communicator, *device);
  auto handle = layer.forward(t.x.data(), t.rows, t.y.data(), t.weights());
  layer.backward(handle, t.dy.data(), t.dx.data(), t.weights(), t.gradients());
  return t;
}

std::vector<float> floats(const std::vector<std::byte>& bytes) {
  std::vector<float> out(bytes.size() / sizeof(float));
  if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

void expect_the_same_over_mpi(const LayerCase& c, const Schedule& schedule, bool and_reference = true) {
  const auto mpi = make_mpi_communicator();
  if (mpi->size() != c.layout.world) GTEST_SKIP() << "needs " << c.layout.world << " ranks";
  SCOPED_TRACE(schedule.name + ", " + describe(c));
  const RankTensors actual = run_rank(c, schedule, *mpi);

  if (and_reference) {
    const auto r = static_cast<std::size_t>(mpi->rank());
    const ExpectedResult reference = expect_layer(c);
    EXPECT_LE(worst_of_bound(floats(actual.y), reference.output[r]), 1);
    EXPECT_LE(worst_of_bound(floats(actual.dx), reference.token_grads[r]), 1);
  }
  run_inproc(c.layout.world, [&](Communicator& threads) {
    const RankTensors expected = run_rank(c, schedule, threads);
    if (threads.rank() != mpi->rank()) return;
    EXPECT_TRUE(actual.y == expected.y);
    EXPECT_TRUE(actual.dx == expected.dx);
    EXPECT_TRUE(actual.drouter == expected.drouter);
    EXPECT_TRUE(actual.dgate == expected.dgate);
    EXPECT_TRUE(actual.dup == expected.dup);
    EXPECT_TRUE(actual.ddown == expected.ddown);
  });
  mpi->barrier();
}

TEST(MpiLayer, SlicedFlatInTwoChunks_IsTheSameAsOnThreads) {
  const Layout l = layout(4, 2, 2, 2);
  expect_the_same_over_mpi({.layout = l, .gpus_per_node = 2, .tokens = {13, 7}},
                           build_schedule("flat", request(l, TokenSplit::sliced, 2)));
}

TEST(MpiLayer, NodeDedup_IsTheSameAsOnThreads) {
  const Layout l = layout(4, 1, 1, 4);
  expect_the_same_over_mpi({.layout = l, .gpus_per_node = 2, .shape = {16, 24, 8, 3, true}, .tokens = {13, 0, 5, 1}},
                           build_schedule("node_dedup", request(l, TokenSplit::sliced, 2)));
}

// Every fifth case of what threads run whole. A communicator frees its channels when it dies: none serves all layers.
template <class Case, class Check>
void every_fifth(const std::vector<Case>& whole, Check check) {
  constexpr std::size_t kLayers = 100;
  if (make_mpi_communicator()->size() != kMatrixRanks) GTEST_SKIP() << "needs " << kMatrixRanks << " ranks";
  std::vector<Case> some;
  for (std::size_t i = 0; i < whole.size(); i += 5) {
    some.push_back(whole[i]);
    if (some.size() < kLayers && i + 5 < whole.size()) continue;
    for (const std::string& line : check(some, *make_mpi_communicator())) ADD_FAILURE() << line;
    some.clear();
  }
}

// As layer_placement_test.cpp: all schedules with all dtypes and kinds of tokens, since 24 cases of them stand side by
// side, and placements in turn.
TEST(MpiLayer, MatrixOfCases_IsTheLayerByDefinition) {
  Expectations expected;
  every_fifth(layer_matrix(), [&](const std::vector<MatrixCase>& cases, Communicator& communicator) {
    return check_layers(cases, expected, communicator);
  });
}

// As layer_whole_test.cpp: shared and residual experts, router options, losses, capacity, replicas, kept routing,
// overflow rounds, each under several transports, as four or fewer of them stand side by side.
TEST(MpiLayer, AllAroundTheExperts_IsTheLayerByDefinition) { every_fifth(whole_matrix(), check_whole); }

// More than any transport buffers: 4 experts for each of 200 tokens of 4 KiB, 200 KiB a peer and chunk.
TEST(MpiLayer, LargeMessages_AreTheSameAsOnThreads) {
  const Layout l = layout(4, 1, 1, 4);
  expect_the_same_over_mpi({.layout = l, .gpus_per_node = 2, .shape = {1024, 8, 8, 4, true}, .tokens = {200, 120}},
                           build_schedule("flat", request(l, TokenSplit::sliced, 2)), false);
}

// A communicator of the caller's own, in which ranks stand in the opposite order.
TEST(MpiLayer, FromCOverTheCallersComm_IsTheSameAsOnThreads) {
  int world = 0, size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &world);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (size != 4) GTEST_SKIP() << "needs 4 ranks";
  MPI_Comm turned = MPI_COMM_NULL;
  ASSERT_EQ(MPI_Comm_split(MPI_COMM_WORLD, 0, -world, &turned), MPI_SUCCESS);
  topomoe_communicator* ranks = nullptr;
  ASSERT_EQ(topomoe_mpi_communicator(&turned, &ranks), TOPOMOE_OK) << topomoe_last_error();
  std::int32_t rank = -1;
  ASSERT_EQ(topomoe_communicator_rank(ranks, &rank, nullptr), TOPOMOE_OK);
  EXPECT_EQ(rank, 3 - world);

  const LayerCase c{.layout = tiny().layout, .gpus_per_node = 2, .tokens = {13, 7}};
  RankTensors actual(c, make_weights(c), rank);
  const c_layer in{
      actual.x.data(),      actual.dy.data(),   actual.y.data(),     actual.dx.data(),   actual.rows,
      actual.router.data(), actual.gate.data(), actual.up.data(),    actual.down.data(), actual.drouter.data(),
      actual.dgate.data(),  actual.dup.data(),  actual.ddown.data(), TOPOMOE_F32};
  const std::string plan = write_plan(tiny());
  ASSERT_EQ(run_c_layer(plan.data(), plan.size(), ranks, &in), TOPOMOE_OK) << topomoe_last_error();
  topomoe_communicator_free(ranks);
  MPI_Barrier(turned);  // still the caller's
  MPI_Comm_free(&turned);
  run_inproc(4, [&](Communicator& threads) {
    const RankTensors expected = run_rank(c, tiny().schedule, threads);
    if (threads.rank() != rank) return;
    EXPECT_TRUE(actual.y == expected.y);
    EXPECT_TRUE(actual.dx == expected.dx);
    EXPECT_TRUE(actual.drouter == expected.drouter);
    EXPECT_TRUE(actual.ddown == expected.ddown);
  });
}

}  // namespace
}  // namespace topomoe::testing
