// profile, and what reads its calibration: the loop on threads, short.

#include <nlohmann/json.hpp>

#include "tests/cli/command.hpp"

namespace topomoe::testing {
namespace {

using nlohmann::ordered_json;

struct ProfileCommand : Command {
  // Two hosts of two ranks. Rates far above what threads do, so that no measured time lies below its bound.
  void write_cluster(const std::string& file, const std::string& nic_GBps) {
    write(file, R"({"schema": "topomoe.cluster/1", "hosts": [{"template": "host", "count": 2}],
      "fabric": {"hosts_per_leaf": 2},
      "templates": [{"name": "host",
        "gpu": {"name": "thread", "memory_GiB": 8, "hbm_GBps": 20, "bf16_TFLOPps": 0.2, "fp8_TFLOPps": 0,
                "fp32_TFLOPps": 0.2, "sms": 0, "source": "assumed: test"},
        "shape": {"kind": "nvswitch", "gpus": 2, "numa_nodes": 1, "gpus_per_pci_switch": 0, "nics": 1,
          "nvlink": {"GBps_per_direction": 10000, "source": "assumed: test"},
          "pcie": {"GBps_per_direction": 10000, "source": "assumed: test"},
          "nic": {"GBps_per_direction": )" +
                    nic_GBps + R"(, "source": "assumed: test"}}}]})");
  }
};

TEST_F(ProfileCommand, Loop_ProfilesBenchesAndComparesOnThreads) {
  write_cluster("cluster.json", "10000");
  const Said said = topomoe("profile --cluster cluster.json --seconds 0.2 --most 64K -o calibration.json");
  ASSERT_EQ(said.code, 0) << said.err;
  EXPECT_EQ(said.err, "");
  const ordered_json calibration = ordered_json::parse(read("calibration.json"));
  EXPECT_EQ(calibration.at("machine").at("nic_GBps"), 5000);  // two ranks share it
  int alone = 0, in_a_row = 0, copies = 0;
  for (const ordered_json& curve : calibration.at("curves")) {
    if (curve.at("operation") == "copy")
      ++copies;
    else
      ++(curve.at("parameters").contains("in_a_row") ? in_a_row : alone);
    EXPECT_GE(curve.at("knots_size_us").size(), 2U);
  }
  EXPECT_EQ(alone, 6);  // an all-to-all and an all-gather of pairs inside, pairs across, all four
  EXPECT_GT(in_a_row, 0);
  EXPECT_EQ(copies, 1);

  const std::string bench =
      "bench alltoall --ep 4 --per-host 2 --bytes 64K --variants auto --chunks 1,2 --format json ";
  const Said rows = topomoe(bench + "--cluster cluster.json --calibration calibration.json");
  ASSERT_EQ(rows.code, 0) << rows.err;
  EXPECT_EQ(rows.err, "");
  for (const ordered_json& row : ordered_json::parse(rows.out)) EXPECT_GT(row.at("predicted_us"), 0);

  write_cluster("other.json", "20000");
  const Said other = topomoe(bench + "--cluster other.json --calibration calibration.json");
  ASSERT_EQ(other.code, 0) << other.err;
  EXPECT_EQ(other.err,
            "topomoe: warning: calibration.json was measured on another machine (NIC 5000 GB/s a GPU, here 10000): its "
            "curves inside nodes are scaled, those between nodes left out\n");
}

TEST_F(ProfileCommand, BadInput_IsNamed) {
  write_cluster("cluster.json", "10000");
  const auto refused = [&](const std::string& arguments, const std::vector<std::string>& words) {
    const Said said = topomoe("profile " + arguments);
    EXPECT_EQ(said.code, 2) << arguments << said.out;
    expect_one_line(said.err, words);
  };
  refused("--cluster $clusters/h100-16x8.json", {"--cluster", "128 ranks", "mpi"});
  refused("--cluster cluster.json --tp 3", {"tp"});
  refused("--cluster cluster.json --seconds 0", {"--seconds"});
}

}  // namespace
}  // namespace topomoe::testing
