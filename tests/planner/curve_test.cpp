#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "planner/curve.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

TEST(SizeCurve, FromRate_AnySize_NeverBeatsLatencyOrRate) {
  const auto curve = SizeCurve::from_rate(microseconds(7), GBps(450), "test");
  double last = 0;
  for (double size = 1; size < 1e12; size *= 1.37) {
    const double t = curve(size).value;
    EXPECT_GE(t, size / 450e9);
    EXPECT_GE(t, 7e-6);
    EXPECT_GE(t, last) << "monotone at " << size;
    // The chord between knots a factor of 2 apart is at most 6 % above alpha + beta x.
    if (size >= 256) {
      EXPECT_LE(t, 1.06 * (7e-6 + size / 450e9));
    }
    last = t;
  }
  EXPECT_EQ(curve(0).value, 0);
}

TEST(SizeCurve, AtKnots_ReturnsThem) {
  const SizeCurve curve({{1024, 1e-5}, {4096, 2e-5}, {1 << 20, 1e-3}}, "test");
  EXPECT_DOUBLE_EQ(curve(1024).value, 1e-5);
  EXPECT_DOUBLE_EQ(curve(4096).value, 2e-5);
  EXPECT_DOUBLE_EQ(curve(2048).value, 1e-5 * std::sqrt(2.0));  // half way in log size: half way in log time
  EXPECT_DOUBLE_EQ(curve(2 << 20).value, 2e-3);                // bandwidth beyond the last
  EXPECT_DOUBLE_EQ(curve(1).value, 1e-5);                      // latency before the first
}

TEST(SizeCurve, FallingKnots_AreMadeMonotone) {
  const SizeCurve curve({{1, 2.0}, {2, 1.0}, {4, 3.0}}, "test");
  EXPECT_DOUBLE_EQ(curve(2).value, 2.0);
}

TEST(SizeCurve, BadKnots_Throw) {
  EXPECT_THROW(SizeCurve({}, "test"), InvalidInput);
  EXPECT_THROW(SizeCurve({{2, 1}, {2, 1}}, "test"), InvalidInput);
  EXPECT_THROW(SizeCurve({{1, 0}}, "test"), InvalidInput);
  EXPECT_THROW(SizeCurve({{1, std::numeric_limits<double>::quiet_NaN()}}, "test"), InvalidInput);
}

}  // namespace
}  // namespace topomoe
