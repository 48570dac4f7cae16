// Clusters and small calibrations for the tests of planner/rates.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>

#include "topomoe/calibration.hpp"
#include "topomoe/error.hpp"
#include "topomoe/topology.hpp"

namespace topomoe::rates_test {

inline Topology cluster(const std::string& name) {
  return read_topology_file(TOPOMOE_SOURCE_DIR "/configs/clusters/" + name + ".json");
}

inline std::string text_of(const std::string& path) {
  std::ifstream file(TOPOMOE_SOURCE_DIR "/" + path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The message of the InvalidInput that the call must throw.
template <class Call>
std::string refusal(Call call) {
  try {
    call();
  } catch (const InvalidInput& error) {
    return error.what();
  }
  return "not refused";
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// A made-up machine like H100: floor_us up to 1 KB, then a line of GBps in log-log steps up to 1 GB.
inline Calibration line(double floor_us, double GBps, std::vector<int> gpus,
                        const std::string& operation = "alltoall") {
  Calibration c;
  c.name = "made-up", c.source = "test";
  c.machine.gpu.name = "H100 SXM 80GB";
  c.machine.gpus_per_node = 8, c.machine.interconnect = "nvswitch";
  c.machine.nvlink_GBps = 450, c.machine.pcie_GBps = 64, c.machine.nic_GBps = 50;
  for (const int n : gpus) {
    CalibrationCurve curve{.operation = operation, .gpus = n};
    for (double size = 1024; size <= 1073741824; size *= 4)
      curve.knots.push_back({size, floor_us + size / GBps * 1e-3});
    c.curves.push_back(curve);
  }
  return c;
}

}  // namespace topomoe::rates_test
