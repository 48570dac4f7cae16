// Output of nccl-tests and nvbandwidth as values: their old and new forms, and what is none of them.
#include <cmath>

#include "support.hpp"
#include "topology/doctor/measured.hpp"

namespace topomoe::test {
namespace {

std::string sample(const std::string& name) { return text_of(source_path("tests/data/measured/" + name)); }

MeasuredCollective collective(const std::string& text, const std::string& operation = "") {
  const std::vector<Measured> all = read_measured(text, "out", operation);
  EXPECT_EQ(all.size(), 1U);
  return std::get<MeasuredCollective>(all.at(0));
}
MeasuredCopies copies(const std::string& text) { return std::get<MeasuredCopies>(read_measured(text, "out").at(0)); }

TEST(ReadNcclTests, NewTable_SaysTestRanksAndBothHalves) {
  const MeasuredCollective own = collective(sample("nccl_tests_alltoall.txt"));
  EXPECT_EQ(own.operation, "alltoall");
  EXPECT_EQ(own.nccl, "2.27.3+cuda12.9");
  EXPECT_EQ(own.ranks, 4);
  ASSERT_EQ(own.devices.size(), 4U);
  EXPECT_EQ(own.devices[1], (MeasuredDevice{1, 0, "node01", 1, "0000:43:00", "NVIDIA H100 80GB HBM3"}));
  ASSERT_EQ(own.rows.size(), 6U);
  EXPECT_EQ(own.rows[5].bytes, 1048576);
  EXPECT_EQ(own.rows[5].out_of_place.time_us, 15.40);
  EXPECT_EQ(own.rows[5].out_of_place.algbw_GBps, 68.09);
  EXPECT_EQ(own.rows[5].in_place.busbw_GBps, 51.40);
  EXPECT_EQ(own.rows[5].out_of_place.wrong, 0);
  EXPECT_TRUE(std::isnan(own.rows[5].in_place.wrong));
  EXPECT_TRUE(std::isnan(own.rows[3].out_of_place.time_us));
}

// Before 2.13: no group, a bus in hex, an error column, no root; alltoall leaves its redop empty.
TEST(ReadNcclTests, OldTables_AreCountedFromTheRight) {
  const std::string head =
      "#   Rank  0 Pid  14926 on gpu-1 device  0 [0x1B] Tesla V100-PCIE-16GB\n"
      "#   Rank  1 Pid   9210 on gpu-5 device  3 [0xb2] Tesla V100-PCIE-16GB\n"
      "#       size         count    type   redop     time   algbw   busbw  error     time   algbw   busbw  error\n";
  const MeasuredCollective reduce =
      collective("./build/all_reduce_perf -b 8\n" + head + " 1024 256 float sum 50.0 1.5 2.5 2e-06 51.0 1.4 2.4 N/A\n");
  EXPECT_EQ(reduce.operation, "all_reduce");
  EXPECT_EQ(reduce.ranks, 2);
  EXPECT_EQ(reduce.devices[1], (MeasuredDevice{1, 0, "gpu-5", 3, "b2", "Tesla V100-PCIE-16GB"}));
  EXPECT_EQ(reduce.rows[0].out_of_place.busbw_GBps, 2.5);
  EXPECT_EQ(reduce.rows[0].in_place.time_us, 51);
  const MeasuredCollective exchange =
      collective(head + " 1024 256 float  50.0 1.5 2.5 0e+00 51.0 1.4 2.4 1e+00\n", "alltoall");
  EXPECT_EQ(exchange.operation, "alltoall");
  EXPECT_EQ(exchange.rows[0].out_of_place.time_us, 50);
  EXPECT_EQ(exchange.rows[0].in_place.algbw_GBps, 1.4);
}

// -I adds four figures to each half, -S a date and a time.
TEST(ReadNcclTests, MoreColumns_AreFoundByTheHeader) {
  const MeasuredCollective own = collective(
      "# Collective test starting: all_gather_perf\n"
      "#       size  count type redop root time algbw busbw #wrong i_min i_max i_p99 i_cv% time algbw busbw #wrong "
      "i_min "
      "i_max i_p99 i_cv% timestamp\n"
      "  4096 16 float none -1 10.0 0.4 0.3 0 9 12 11 3.5 20.0 0.2 0.15 0 19 22 21 3.4 2026-01-02 03:04:05\n");
  EXPECT_EQ(own.rows[0].out_of_place.time_us, 10);
  EXPECT_EQ(own.rows[0].out_of_place.wrong, 0);
  EXPECT_EQ(own.rows[0].in_place.time_us, 20);
  EXPECT_EQ(own.rows[0].in_place.busbw_GBps, 0.15);
}

TEST(ReadNcclTests, LaunchersPrefixesAndBrokenRows_AreBorne) {
  const MeasuredCollective own = collective(
      "[1,0]<stdout>:# Collective test starting: alltoall_perf\n"
      "3: #  Rank 15 Group  0 Pid 7 on   n2 device  7 [0000:c1:00] NVIDIA H100\n"
      "[1,0]<stdout>:  1024 16 float none -1 10.0 0.1 0.1 0 9.0 0.1 0.1 N/A\n"
      "  2048 32 float none -1[0] 11.0 0.2\n"
      "n2:12:13 [0] NCCL INFO comm 0x1 rank 0 nranks 16\n"
      "[1,0]<stdout>:# Out of bounds values : 3 FAILED\n");
  EXPECT_EQ(own.operation, "alltoall");
  EXPECT_EQ(own.ranks, 16);
  EXPECT_EQ(own.rows.size(), 1U);
  EXPECT_EQ(own.rows_left_out, 1);
  EXPECT_EQ(own.out_of_bounds, 3);
}

TEST(ReadNcclTests, SeveralRunsInOneLog_AreSeveral) {
  const std::string row = " 1024 16 float none -1 10.0 0.1 0.1 0 9.0 0.1 0.1 N/A\n";
  const std::vector<Measured> all = read_measured(
      "mpirun ./alltoall_perf -g 1\n# nThread 1 nGpus 1\n# Using devices\n#  Rank  0 Group  0 Pid 1 on a "
      "device 0 [0000:1b:00] X\n" +
          row + "# Collective test concluded: alltoall_perf\nmpirun ./sendrecv_perf -g 1\n# nThread 1\n" + row,
      "out");
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(std::get<MeasuredCollective>(all[0]).operation, "alltoall");
  EXPECT_EQ(std::get<MeasuredCollective>(all[0]).ranks, 1);
  EXPECT_EQ(std::get<MeasuredCollective>(all[1]).operation, "send_recv");
  EXPECT_EQ(std::get<MeasuredCollective>(all[1]).ranks, 0);
}

TEST(ReadNcclTests, Json_TakesNumbersAsStringsAndDevicesOfConfig) {
  const MeasuredCollective old = collective(sample("nccl_tests_all_reduce.json"));
  EXPECT_EQ(old.operation, "all_reduce");
  EXPECT_EQ(old.ranks, 2);
  EXPECT_EQ(old.devices[1].host, "node01");
  EXPECT_EQ(old.rows[1].out_of_place.time_us, 12.8);
  EXPECT_TRUE(std::isnan(old.rows[2].out_of_place.busbw_GBps));
  // Two processes of two GPUs: each names its first.
  const MeasuredCollective own = collective(R"({"version": 2, "args": ["/opt/alltoall_perf"], "nccl_version": 22703,
    "config": {"nthreads": 1, "ngpus": 2, "devices": [
      {"rank": 0, "group": 0, "hostname": "a", "device": 0, "device_hex": "0000:1b:00", "device_info": "NVIDIA H100"},
      {"rank": 2, "group": 0, "hostname": "b", "device": 0, "device_hex": "0000:1b:00", "device_info": "NVIDIA H100"}]},
    "results": [{"size": 64, "out_of_place": {"time": 1.0, "alg_bw": 2.0, "bus_bw": 1.5, "nwrong": null},
                 "in_place": null}], "out_of_bounds": {"count": 2}})");
  EXPECT_EQ(own.nccl, "22703");
  EXPECT_EQ(own.ranks, 4);
  ASSERT_EQ(own.devices.size(), 4U);
  EXPECT_EQ(own.devices[3].host, "b");
  EXPECT_EQ(own.devices[3].device, 1);
  EXPECT_EQ(own.devices[3].bus_id, "");
  EXPECT_EQ(own.rows[0].out_of_place.busbw_GBps, 1.5);
  EXPECT_TRUE(std::isnan(own.rows[0].in_place.time_us));
  EXPECT_EQ(own.out_of_bounds, 2);
}

constexpr const char* kCopies =
    "nvbandwidth Version: v0.8\n"
    "Device 0: NVIDIA H100 80GB HBM3 (00000000:1b:00)\n"
    "Device 1: NVIDIA H100 80GB HBM3 (00000000:43:00)\n\n"
    "Running host_to_device_memcpy_ce.\n"
    "memcpy CE CPU(row) -> GPU(column) bandwidth (GB/s)\n"
    "           0         1\n"
    " 0     55.10     54.90\n\n"
    "SUM host_to_device_memcpy_ce 110.00\n\n"
    "Running device_to_device_memcpy_read_ce.\n"
    "memcpy CE GPU(row) -> GPU(column) bandwidth (GB/s)\n"
    "           0         1\n"
    " 0       N/A    370.10\n"
    " 1    371.20       N/A\n\n"
    "SUM device_to_device_memcpy_read_ce 741.30\n"
    "Running device_to_host_latency_sm.\n"
    "Waived: \n";

TEST(ReadNvbandwidth, Text_IsMatricesByTestcase) {
  const MeasuredCopies own = copies(kCopies);
  ASSERT_EQ(own.devices.size(), 2U);
  EXPECT_EQ(own.devices[1], (MeasuredDevice{1, 0, "", 1, "0000:43:00", "NVIDIA H100 80GB HBM3"}));
  ASSERT_EQ(own.matrices.size(), 2U);
  EXPECT_EQ(own.matrices[0].testcase, "host_to_device_memcpy_ce");
  EXPECT_EQ(own.matrices[0].GBps, (std::vector<std::vector<double>>{{55.1, 54.9}}));
  EXPECT_EQ(own.matrices[1].GBps[1][0], 371.2);
  EXPECT_TRUE(std::isnan(own.matrices[1].GBps[0][0]));
}

TEST(ReadNvbandwidth, ProcessesOfAMultinodeRun_AreDevices) {
  const MeasuredCopies own = copies(
      "Process  0 (tray1): device 3: NVIDIA GB200 (00000019:01:00)\nRunning "
      "multinode_device_to_device_memcpy_read_ce.\n"
      "memcpy CE GPU(row) <- GPU(column) bandwidth (GB/s)\n 0\n 0 1.5\n");
  EXPECT_EQ(own.devices.at(0), (MeasuredDevice{0, 0, "tray1", 3, "0019:01:00", "NVIDIA GB200"}));
  EXPECT_EQ(own.matrices.at(0).GBps, (std::vector<std::vector<double>>{{1.5}}));
}

TEST(ReadNvbandwidth, Json_IsTheSame) {
  const MeasuredCopies own = copies(sample("nvbandwidth.json"));
  EXPECT_EQ(own.devices.at(1), (MeasuredDevice{1, 0, "", 1, "0000:43:00", "NVIDIA H100 80GB HBM3"}));
  ASSERT_EQ(own.matrices.size(), 2U);
  EXPECT_EQ(own.matrices[1].GBps[1][0], 394);
  EXPECT_EQ(own.failed, std::vector<std::string>{"device_to_host_memcpy_sm"});
}

TEST(ReadMeasured, WhatIsNoneOfThem_IsRefusedByItsPlace) {
  const auto said = [](const std::string& text) { return refusal([&] { read_measured(text, "out"); }); };
  EXPECT_TRUE(contains(said(""), "empty"));
  EXPECT_TRUE(contains(said("hello\n"), "neither nccl-tests nor nvbandwidth"));
  EXPECT_TRUE(contains(said("{"), "not JSON"));
  EXPECT_TRUE(contains(said("{}"), "results"));
  EXPECT_TRUE(contains(said("[]"), "neither"));
  EXPECT_TRUE(contains(said(R"({"nvbandwidth": 3})"), "testcases"));
  EXPECT_TRUE(contains(said("# size time algbw\n 1024 16 float none -1 10.0 0.1\n"), "line 2"));
  EXPECT_TRUE(contains(said("# algbw\n 1024 16 float none -1 -10.0 0.1 0.1 0 9.0 0.1 0.1 0\n"), "line 2: -10.0"));
  EXPECT_TRUE(contains(said("# algbw\n 1024 16 float none -1 1e999 0.1 0.1 0 9.0 0.1 0.1 0\n"), "line 2: 1e999"));
  EXPECT_TRUE(contains(said("# algbw\n#  Rank 99999999 Group 0 Pid 1 on a device 0 [0] X\n"), "line 2: rank 99999999"));
  std::string ragged = kCopies;
  ragged.replace(ragged.find("    370.10"), 10, "");
  EXPECT_TRUE(contains(said(ragged), "line 15: a row of 1 cells: 2, as there are columns"));
  EXPECT_TRUE(contains(said(R"({"nvbandwidth": {"testcases": [
    {"name": "x", "status": "Passed", "bandwidth_matrix": [["1", "2"], ["1"]]}]}})"),
                       "x: row 1"));
}

// A hundred thousand brackets, wherever a reader looks: copies of such values would overflow the stack.
TEST(ReadMeasured, DeepNesting_IsRefused) {
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  const auto said = [](const std::string& text) { return refusal([&] { read_measured(text, "out"); }); };
  EXPECT_TRUE(contains(said("{\"config\": " + deep + ", \"results\": [], \"devices\": []}"), "nested deeper than 64"));
  EXPECT_TRUE(contains(said("{\"nvbandwidth\": {\"testcases\": " + deep + "}}"), "nested deeper than 64"));
  for (const char* begin :
       {"{\"schema\": \"topomoe.cluster/1\", \"a\": ", "{ // a quote: \"\n \"schema\": ", "{ /* \" */ \"a\": "})
    EXPECT_TRUE(contains(refusal([&] { read_topology(begin + deep + "}", "out"); }), "nested deeper than 64")) << begin;
}

// What a hostile file calls itself stays in one printable line of any message.
TEST(ReadMeasured, ControlCharacters_DoNotReachMessages) {
  const MeasuredCollective own =
      collective(R"({"args": ["alltoall_perf"], "devices": [{"rank": 0, "hostname": "a\nb\u001b"}],
    "results": [{"size": 1}]})");
  EXPECT_EQ(own.devices[0].host, "a?b?");
  EXPECT_EQ(collective("# algbw\n#  Rank 0 Group 0 Pid 1 on a\x1b[0m device 0 [0] X\n 8 8 f 1 1 1 1 1 1 1 1\n")
                .devices[0]
                .host,
            "a?[0m");
  const std::string said = refusal([&] {
    read_measured(R"({"nvbandwidth": {"testcases": [{"name": "x\ny", "status": "Passed", "bandwidth_matrix": [[]]}]}})",
                  "out");
  });
  EXPECT_TRUE(contains(said, "x?y: row 0")) << said;
}

TEST(ReadMeasured, NamesAndBusIds_AreBroughtToOneForm) {
  EXPECT_EQ(measured_operation("./build/all_reduce_perf"), "all_reduce");
  EXPECT_EQ(measured_operation("/all_gather/reduce_scatter_perf"), "reduce_scatter");
  EXPECT_EQ(measured_operation("SendRecv"), "send_recv");
  EXPECT_EQ(measured_operation("reduce_perf"), "reduce");
  EXPECT_EQ(measured_operation("alltoallv_perf"), "");
  EXPECT_EQ(plain_bus_id("00000000:1B:00.0"), "0000:1b:00");
  EXPECT_EQ(plain_bus_id("00000019:01:00"), "0019:01:00");
  EXPECT_EQ(plain_bus_id("0x3d"), "3d");
  EXPECT_EQ(gpu_model("NVIDIA H100 80GB HBM3"), "H100");
  EXPECT_EQ(gpu_model("Tesla V100-SXM2-32GB"), "V100");
  EXPECT_EQ(gpu_model("GB200"), "GB200");
  EXPECT_EQ(gpu_model("NVIDIA Graphics Device"), "");
}

// Any byte changed to any of a few, any end cut off: values or a refusal, nothing else.
TEST(ReadMeasured, DamagedFiles_AreReadOrRefused) {
  const std::string samples[] = {sample("nccl_tests_alltoall.txt"), sample("nccl_tests_all_reduce.json"),
                                 sample("nvbandwidth.json"), kCopies};
  int refused = 0, read = 0;
  for (const std::string& whole : samples) {
    const auto attempt = [&](const std::string& text) {
      try {
        EXPECT_FALSE(read_measured(text, "out").empty());
        ++read;
      } catch (const InvalidInput&) {
        ++refused;
      }
    };
    for (std::size_t i = 0; i < whole.size(); ++i) {
      for (const char byte : {'\0', '9', '\n', '['}) {
        std::string text = whole;
        text[i] = byte;
        attempt(text);
      }
      attempt(whole.substr(0, i));
    }
  }
  EXPECT_GT(refused, 100);
  EXPECT_GT(read, 100);
}

// A header whose halves are shorter than what is read of them says nothing of where they stand.
TEST(ReadNcclTests, HeaderOfShortHalves_IsNotCountedBy) {
  const MeasuredCollective own =
      collective("# size time algbw busb time algbw busbw\n 1024 256 float 1 2 3 0 4 5 6 0\n", "alltoall");
  ASSERT_EQ(own.rows.size(), 1U);
  EXPECT_EQ(own.rows[0].out_of_place.time_us, 1);
  EXPECT_EQ(own.rows[0].in_place.time_us, 4);
}

}  // namespace
}  // namespace topomoe::test
