#include "planner/rates/fit_knots.hpp"

#include <cmath>

#include "tests/planner/rates/support.hpp"

namespace topomoe {
namespace {

using rates_test::contains;
using rates_test::refusal;

TEST(FitKnots, RepeatedSizes_GiveTheGeometricMean) {
  const auto fitted = fit_knots({{1024, 8}, {512, 4}, {512, 9}});
  ASSERT_EQ(fitted.knots.size(), 2U);
  EXPECT_EQ(fitted.knots[0].size, 512);
  EXPECT_DOUBLE_EQ(fitted.knots[0].time_us, 6);  // sqrt(4 x 9)
  EXPECT_DOUBLE_EQ(fitted.knots[1].time_us, 8);
}

// 10 then 5: pooled to sqrt(50) = 7.0711, which stays below 8.
TEST(FitKnots, TimesThatFall_ArePooled) {
  const auto fitted = fit_knots({{1, 2}, {2, 10}, {4, 5}, {8, 8}});
  ASSERT_EQ(fitted.knots.size(), 4U);
  EXPECT_NEAR(fitted.knots[1].time_us, 7.0711, 1e-4);
  EXPECT_EQ(fitted.knots[1].time_us, fitted.knots[2].time_us);
  EXPECT_DOUBLE_EQ(fitted.knots[3].time_us, 8);
}

TEST(FitKnots, SpreadIsTheNinetiethPercentile) {
  EXPECT_EQ(fit_knots({{1, 2}, {2, 3}}).spread, 0);
  // Ten runs of one size, all at 10 but one at 20: the mean is 10 x 2^(1/10) = 10.718, and 10 misses it by 6.7%.
  std::vector<CalibrationKnot> runs(9, CalibrationKnot{64, 10});
  runs.push_back({64, 20});
  EXPECT_NEAR(fit_knots(runs).spread, 0.067, 0.001);
}

TEST(FitKnots, ManySizes_KeepTheCorners) {
  // A floor of 5 up to 1,000, then in proportion: of 200 sizes 40 are kept, and none is missed by 2%.
  std::vector<CalibrationKnot> points;
  for (int i = 1; i <= 200; ++i) points.push_back({10.0 * i, std::max(5.0, i * 0.05)});
  const auto fitted = fit_knots(points);
  EXPECT_LE(fitted.knots.size(), kMostKnots);
  EXPECT_EQ(fitted.knots.front().size, 10);
  EXPECT_EQ(fitted.knots.back().size, 2000);
  EXPECT_LT(fitted.spread, 0.02);
}

TEST(FitKnots, Nonsense_IsRefused) {
  EXPECT_TRUE(contains(refusal([] { fit_knots({}); }), "no points"));
  EXPECT_TRUE(contains(refusal([] { fit_knots({{0, 1}}); }), "positive"));
  EXPECT_TRUE(contains(refusal([] { fit_knots({{1, -1}}); }), "positive"));
  EXPECT_TRUE(contains(refusal([] { fit_knots({{1, std::nan("")}}); }), "positive"));
}

}  // namespace
}  // namespace topomoe
