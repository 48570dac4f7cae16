// The profile on threads: which groups it measures, and that what it writes is read and taken by the planner.

#include "runtime/profile.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "planner/rates/collective.hpp"
#include "planner/rates/compute.hpp"
#include "planner/rates/machine_figures.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

std::vector<CalibrationCurve> profiled(const std::vector<ProfileShape>& shapes, int world,
                                       const ProfileBudget& budget) {
  std::vector<CalibrationCurve> out;
  run_inproc(world, [&](Communicator& c) {
    const auto device = make_cpu_device();
    auto curves = profile_collectives(shapes, budget, c, *device);
    auto copies = profile_copies(budget, c, *device);
    if (!curves) return;
    curves->push_back(*copies);
    out = std::move(*curves);
  });
  return out;
}

// 2 nodes of 2: pairs inside, pairs across, and all four; an all-to-all and an all-gather of each.
TEST(ProfileShapes, EveryEvenGroup_OnceAnOperation) {
  const auto shapes = profile_shapes(4, 2);
  ASSERT_EQ(shapes.size(), 6U);
  EXPECT_EQ(shapes[0].group_of, (std::vector<int>{0, 0, 1, 1}));
  EXPECT_EQ(shapes[2].group_of, (std::vector<int>{0, 1, 0, 1}));
  EXPECT_EQ(shapes[4].group_of, (std::vector<int>{0, 0, 0, 0}));
  std::set<std::pair<int, int>> kinds;
  for (const ProfileShape& s : profile_shapes(16, 4)) {
    kinds.insert({s.ranks, s.nodes});
    std::vector<int> sizes(16, 0);
    for (const int g : s.group_of) ++sizes[static_cast<std::size_t>(g)];
    for (const int size : sizes) EXPECT_TRUE(size == 0 || size == s.ranks) << s.ranks << " on " << s.nodes;
  }
  EXPECT_EQ(kinds.size(), 8U);  // 1, 2, 4 a node on 1, 2, 4 nodes, but for a rank alone
}

// One rank a node: TP groups stand in front, so that EP 2 of 4 nodes is nodes 0 and 2.
TEST(ProfileShapes, OneRankANode_LiesApart) {
  for (const ProfileShape& s : profile_shapes(16, 4)) {
    if (s.ranks != 2 || s.nodes != 2) continue;
    EXPECT_EQ(s.group_of[0], s.group_of[8]);
  }
}

// TP 2, EP 4 over 2 nodes of 4: all-to-all of 4 on 2 nodes, of 2 inside (node, and ETP), of 2 across (rail).
TEST(ProfileShapes, OfALayout_AreItsGroups) {
  std::set<std::pair<int, int>> kinds;
  for (const ProfileShape& s : profile_shapes(make_layout(8, 2, 1, 1, 2, 4), 4)) kinds.insert({s.ranks, s.nodes});
  EXPECT_EQ(kinds, (std::set<std::pair<int, int>>{{4, 2}, {2, 1}, {2, 2}}));
}

TEST(Profile, OnThreads_WritesCurvesThatAreReadAndTaken) {
  const auto shapes = profile_shapes(4, 2);
  const auto curves = profiled(shapes, 4, {.seconds = 0.2, .most_bytes = 1 << 16});
  HostShape shape;
  shape.kind = "nvswitch", shape.gpus = 2, shape.gpus_per_pci_switch = 0, shape.nics = 1;
  // Far above what threads do, so that no measured time lies below its bound.
  shape.nvlink = shape.pcie = shape.nic = {10000, 0, Source::assumed, "test"};
  Topology t;
  t.name = "threads";
  t.templates = {build_host(shape, {"thread", 8, 20, 0.2, 0, 0.2, 0, Source::assumed, "test"}, "host")};
  t.groups = {{0, 2}};
  const Calibration c{.name = "threads", .source = "test", .machine = machine_figures(t), .curves = curves};
  const Calibration read = read_calibration(write_calibration(c), "test");
  EXPECT_EQ(read, c);

  const CollectiveModel model(t, {&read, 1});
  int alone = 0;
  for (const CalibrationCurve& curve : curves) {
    ASSERT_FALSE(curve.knots.empty());
    EXPECT_GE(curve.spread, 0);
    if (curve.operation == "copy" || curve.parameters.contains("in_a_row")) continue;
    ++alone;
    const CollectiveCurve taken =
        model.curve(collective_from(curve.operation, "test"), regular_group(curve.gpus / curve.nodes, curve.nodes));
    EXPECT_TRUE(taken.measured());
    double most = 0;  // curves are made monotone
    for (const CalibrationKnot& k : curve.knots) {
      const double sent = curve.operation == "all_gather" ? k.size / curve.gpus : k.size;
      most = std::max(most, k.time_us);
      EXPECT_NEAR(taken.time_us(sent), most, 1e-6 * most);
      EXPECT_GT(taken.in_a_row_us(sent), 0);
    }
  }
  EXPECT_EQ(alone, 6);
  EXPECT_EQ(curves.back().operation, "copy");
}

// What a plan for this cluster then says of the experts' steps is what they took.
TEST(Profile, Experts_ArePricedAsTheyWere) {
  const ExpertShape experts{.hidden = 64, .ffn = 32, .experts = 2, .dtype = DType::f32};
  std::optional<std::vector<CalibrationCurve>> curves;
  run_inproc(2, [&](Communicator& c) {
    if (auto mine = profile_experts({&experts, 1}, {.seconds = 0.2, .most_bytes = 1 << 14}, c, *make_cpu_device()))
      curves = std::move(mine);
  });
  ASSERT_EQ(curves.value().size(), 3U);
  const Calibration c{.name = "threads",
                      .source = "test",
                      .machine = {.gpu = {"thread", 8, 2000, 100, 0, 100, 10, Source::assumed, "test"}},
                      .curves = *curves};
  const Calibration read = read_calibration(write_calibration(c), "test");
  const ComputeModel model(c.machine.gpu, DType::f32, {&read, 1});
  const std::pair<const char*, FfnPass> steps[] = {
      {"expert_forward", FfnPass::forward}, {"expert_dgrad", FfnPass::dgrad}, {"expert_wgrad", FfnPass::wgrad}};
  for (std::size_t i = 0; i < 3; ++i) {
    const CalibrationCurve& curve = (*curves)[i];
    EXPECT_EQ(curve.operation, steps[i].first);
    EXPECT_EQ(curve.dtype, "fp32");
    // 16 KiB are 64 rows of 64: 32 an expert, of which powers of four up to 16.
    EXPECT_EQ(curve.knots.front().size, 2);
    EXPECT_LE(curve.knots.back().size, 32);
    for (const CalibrationKnot& k : curve.knots) {
      const double each = k.size / 2;
      const std::vector<double> rows{each, each};
      EXPECT_NEAR(model.expert_ffn(rows, 64, 32, 3, FfnKernel::grouped_gemm, steps[i].second).time_us, k.time_us,
                  1e-6 * k.time_us);
    }
  }
}

TEST(Profile, NoGroups_IsRefused) {
  run_inproc(1, [](Communicator& c) {
    EXPECT_THROW(profile_collectives({}, {.seconds = 0.1}, c, *make_cpu_device()), InvalidInput);
  });
}

}  // namespace
}  // namespace topomoe
