// topomoe.calibration/1: what is written is read back, and what makes no sense is refused by name.
#include "topomoe/calibration.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

Calibration sample() {
  Calibration c;
  c.name = "sample";
  c.source = "made up for this test";
  c.machine.gpu = {"H100 SXM 80GB", 80, 3350, 989, 1978, 67, 132, Source::datasheet, "figures of the datasheet"};
  c.machine.gpus_per_node = 8;
  c.machine.interconnect = "nvswitch";
  c.machine.nvlink_GBps = 450;
  c.software = {{"nccl", "2.27.3"}};
  c.figures = {{"deepep.sm_GBps", 32.5}};
  c.curves.push_back({.operation = "alltoall", .gpus = 8, .knots = {{512, 7.9}, {1048576, 15.64}}, .spread = 0.04});
  c.curves.push_back({.operation = "gemm",
                      .size_unit = "rows",
                      .parameters = {{"n", 4096}, {"k", 7168}},
                      .knots = {{1, 12.5}},
                      .source = "another"});
  return c;
}

std::string complaint(const std::string& text) {
  try {
    (void)read_calibration(text, "c.json");
  } catch (const InvalidInput& e) {
    return e.what();
  }
  return "accepted";
}

// The sample with `from` replaced by `to`.
std::string changed(const std::string& from, const std::string& to) {
  std::string text = write_calibration(sample());
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(CalibrationJson, WhatIsWritten_IsReadBack) {
  const std::string text = write_calibration(sample());
  EXPECT_EQ(read_calibration(text, "c.json"), sample());
  EXPECT_EQ(write_calibration(read_calibration(text, "c.json")), text);
  Calibration bare = sample();
  bare.curves.clear(), bare.figures.clear(), bare.software.clear();
  EXPECT_EQ(read_calibration(write_calibration(bare), "c.json"), bare);
  Calibration starved = sample();  // steps of a microsecond, one of which waited a second for a CPU
  starved.curves[0].spread = 1e6;
  EXPECT_EQ(read_calibration(write_calibration(starved), "c.json"), starved);
}

TEST(CalibrationJson, Nonsense_IsNamedWithFileAndField) {
  const struct {
    const char *from, *to, *word;
  } cases[] = {
      {"topomoe.calibration/1", "topomoe.calibration/2", "schema"},
      {"\"name\": \"sample\"", "\"name\": \"\"", "name"},
      {"\"sms\": 132", "\"sms\": -1", "machine.gpu.sms"},
      {"datasheet: figures", "guess: figures", "machine.gpu.source"},
      {"nvswitch", "token ring", "interconnect"},
      {"\"nvlink_GBps\": 450.0", "\"nvlink_GBps\": -450", "nvlink_GBps"},
      {"[512.0,7.9]", "[512.0,0]", "curves[0].knots_size_us[0]"},
      {"[512.0,7.9]", "[512.0]", "knots_size_us"},
      {"[512.0,7.9]", "[2e6,7.9]", "curves[0].knots_size_us[1]"},
      {"[512.0,7.9]", "[null,7.9]", "knots_size_us"},
      {"\"gpus\":8", "\"gpus\":0", "gpus"},
      {"\"nodes\":1", "\"nodes\":3", "curves[0].gpus"},
      {"\"spread\":0.04", "\"spread\":-1", "spread"},
      {"\"figures\": {", "\"colour\": 1, \"figures\": {", "colour"},
      {"\"nccl\": \"2.27.3\"", "\"nccl\": 2.27", "nccl"},
  };
  for (const auto& c : cases) {
    const std::string said = complaint(changed(c.from, c.to));
    EXPECT_EQ(said.find("c.json"), 0U) << c.to << " -> " << said;
    EXPECT_NE(said.find(c.word), std::string::npos) << c.to << " -> " << said;
  }
  const std::string whole = write_calibration(sample());
  for (std::size_t cut = 0; cut + 3 < whole.size(); cut += 37)
    EXPECT_NE(complaint(whole.substr(0, cut)), "accepted") << cut;
}

TEST(CalibrationJson, FiguresThatAreNotNumbers_AreNeverWritten) {
  Calibration c = sample();
  c.curves[0].knots[0].time_us = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(write_calibration(c), InvalidInput);
  c = sample();
  c.curves[0].knots.clear();
  EXPECT_THROW(write_calibration(c), InvalidInput);
  c = sample();
  c.figures["x"] = std::numeric_limits<double>::infinity();
  EXPECT_THROW(write_calibration(c), InvalidInput);
}

}  // namespace
}  // namespace topomoe
