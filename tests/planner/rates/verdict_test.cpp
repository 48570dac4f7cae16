#include "planner/rates/verdict.hpp"

#include "planner/rates/builtin.hpp"
#include "tests/planner/rates/support.hpp"

namespace topomoe {
namespace {

using rates_test::contains;

TEST(Verdict, SaysWhereTheTimeLies) {
  const Estimate e = estimate_of(100, 0.25, 50, "measured: x", "NIC (50 GB/s a GPU)");
  EXPECT_DOUBLE_EQ(e.low_us, 80);
  EXPECT_DOUBLE_EQ(e.high_us, 125);
  EXPECT_EQ(judge(e, 80).word, "normal");
  EXPECT_EQ(judge(e, 125).word, "normal");
  const Verdict slow = judge(e, 200);
  EXPECT_EQ(slow.word, "slow");
  EXPECT_TRUE(contains(slow.text, "2.00 times")) << slow.text;
  EXPECT_TRUE(contains(slow.text, "NCCL_IB_HCA")) << slow.text;
  EXPECT_EQ(judge(e, 60).word, "fast");
  const Verdict impossible = judge(e, 25);
  EXPECT_EQ(impossible.word, "impossible");
  EXPECT_TRUE(contains(impossible.text, "units")) << impossible.text;
}

TEST(Estimate, IsNeverBelowItsBound) {
  const Estimate e = estimate_of(40, 0.25, 50, "", "");
  EXPECT_EQ(e.time_us, 50);
  EXPECT_EQ(e.low_us, 50);
}

TEST(BuiltinCalibrations, AreTheCommittedFiles) {
  ASSERT_EQ(builtin_calibrations().size(), 3U);
  for (const Calibration& c : builtin_calibrations()) {
    const std::string text = rates_test::text_of("configs/calibration/" + c.name + ".json");
    EXPECT_EQ(read_calibration(text, c.name), c);
    EXPECT_EQ(write_calibration(c), text) << "write it again with topomoe calibrate";
    EXPECT_TRUE(contains(c.source, "aiconfigurator")) << "who measured it?";
    for (const CalibrationCurve& curve : c.curves) EXPECT_LE(curve.knots.size(), 40U) << curve.operation;
  }
}

}  // namespace
}  // namespace topomoe
