// Bounds of kernels as curves: what they say, and that no plan takes them for measurements.
#include <gtest/gtest.h>

#include "planner/rates/builtin.hpp"
#include "planner/rates/collective.hpp"
#include "planner/rates/compute.hpp"
#include "tests/planner/rates/support.hpp"

namespace topomoe {
namespace {

Calibration bounds() {
  const std::string text = rates_test::text_of("configs/calibration/h100-sxm-kernel-bounds.json");
  const Calibration c = read_calibration(text, "h100-sxm-kernel-bounds.json");
  EXPECT_EQ(write_calibration(c), text);
  return c;
}

TEST(KernelBounds, AreBytesOverTheDatasheetsRate) {
  const Calibration c = bounds();
  EXPECT_TRUE(c.figures.empty());
  for (const CalibrationCurve& curve : c.curves) {
    EXPECT_TRUE(rates_test::contains(curve.source, "not measured")) << curve.operation;
    ASSERT_EQ(curve.knots.size(), 2U);
    // A line through 0, to the figures' last digit.
    EXPECT_NEAR(curve.knots[1].time_us / curve.knots[1].size, curve.knots[0].time_us / curve.knots[0].size, 1e-6)
        << curve.operation;
  }
  // gather_rows: 65,536 rows of 4,096 bf16 read and written, 1.0737e9 B at 3,350 GB/s.
  EXPECT_EQ(c.curves[0].operation, "gather_rows");
  EXPECT_NEAR(c.curves[0].knots[1].time_us, 1073.741824e6 / 3350e3, 1e-3);
}

// By name: what a plan looks up by the name of an operation (planner/machine.cpp, planner/rates) is none of these.
TEST(KernelBounds, GivenToThePlanner_ChangeNothing) {
  const Topology cluster = rates_test::cluster("h100-2x8");
  std::vector<Calibration> with = builtin_calibrations();
  with.push_back(bounds());
  for (const CalibrationCurve& curve : with.back().curves) EXPECT_NE(curve.operation, "copy");
  const ComputeModel plain(cluster.gpu_spec(0), DType::bf16, builtin_calibrations());
  const ComputeModel told(cluster.gpu_spec(0), DType::bf16, with);
  const double rows = 1024;
  for (const FfnKernel kernel : {FfnKernel::grouped_gemm, FfnKernel::fused}) {
    const Estimate a = told.expert_ffn({&rows, 1}, 2048, 1408, 3, kernel),
                   b = plain.expert_ffn({&rows, 1}, 2048, 1408, 3, kernel);
    EXPECT_EQ(a.time_us, b.time_us);
    EXPECT_EQ(a.source, b.source);
  }
  EXPECT_EQ(told.gemm(4096, 4096, 4096).source, plain.gemm(4096, 4096, 4096).source);
  const CollectiveModel plain_groups(cluster, builtin_calibrations()), told_groups(cluster, with);
  for (const Collective op : {Collective::alltoall, Collective::all_gather}) {
    const Estimate a = told_groups.estimate(op, 1e6, regular_group(8, 2)),
                   b = plain_groups.estimate(op, 1e6, regular_group(8, 2));
    EXPECT_EQ(a.time_us, b.time_us);
    EXPECT_EQ(a.source, b.source);
  }
}

}  // namespace
}  // namespace topomoe
