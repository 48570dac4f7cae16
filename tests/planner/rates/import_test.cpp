#include "planner/rates/import.hpp"

#include "planner/rates/machine_figures.hpp"
#include "tests/planner/rates/support.hpp"

namespace topomoe {
namespace {

using rates_test::cluster;
using rates_test::contains;
using rates_test::refusal;

std::string sample(const std::string& name) { return rates_test::text_of("tests/data/measured/" + name); }

ImportRequest on(const std::string& name) {
  ImportRequest r;
  r.machine = machine_figures(cluster(name));
  return r;
}

TEST(ImportNcclTests, TextTable_GivesOneCurveOfItsRanks) {
  const Calibration c = import_measurements(sample("nccl_tests_alltoall.txt"), "a.txt", on("dgx-h100"));
  EXPECT_EQ(c.machine.gpu.name, "H100 SXM 80GB");
  EXPECT_EQ(c.machine.nvlink_GBps, 450);
  EXPECT_EQ(c.software.at("nccl"), "2.27.3+cuda12.9");
  ASSERT_EQ(c.curves.size(), 1U);
  EXPECT_EQ(c.curves[0].operation, "alltoall");
  EXPECT_EQ(c.curves[0].gpus, 4);
  EXPECT_EQ(c.curves[0].nodes, 1);
  ASSERT_EQ(c.curves[0].knots.size(), 5U);  // the row with "nan" is left out
  EXPECT_EQ(c.curves[0].knots[0], (CalibrationKnot{1024, 7.01}));
  EXPECT_EQ(c.curves[0].knots[4], (CalibrationKnot{1048576, 15.40}));
}

TEST(ImportNcclTests, Json_TakesNumbersAsStrings) {
  const Calibration c = import_measurements(sample("nccl_tests_all_reduce.json"), "a.json", on("dgx-a100"));
  ASSERT_EQ(c.curves.size(), 1U);
  EXPECT_EQ(c.curves[0].operation, "all_reduce");
  EXPECT_EQ(c.curves[0].gpus, 2);
  ASSERT_EQ(c.curves[0].knots.size(), 2U);
  EXPECT_EQ(c.curves[0].knots[1], (CalibrationKnot{32768, 12.8}));
}

// Output of a version that names neither devices nor test, behind what a launcher printed.
TEST(ImportNcclTests, BareTable_IsFilledInByTheCaller) {
  ImportRequest r = on("dgx-h100");
  r.gpus = {8}, r.operation = "all_gather";
  const Calibration c = import_measurements(
      "Warning: added to the list of known hosts.\n# size count type redop root time algbw busbw #wrong time algbw "
      "busbw\n"
      "  8192 2048 float none -1 10.82 0.76 0.66 0 10.7 0.77 0.67 0\n",
      "a.txt", r);
  EXPECT_EQ(c.curves.at(0).gpus, 8);
  EXPECT_EQ(c.curves[0].operation, "all_gather");
  EXPECT_EQ(c.curves[0].knots[0], (CalibrationKnot{8192, 10.82}));
}

TEST(ImportNcclTests, WhatIsMissingOrContradicts_IsNamed) {
  const std::string text = sample("nccl_tests_alltoall.txt");
  EXPECT_TRUE(contains(refusal([&] { import_measurements(text, "a.txt", {}); }), "--cluster"));
  EXPECT_TRUE(contains(refusal([&] { import_measurements(text, "a.txt", on("dgx-a100")); }), "NVIDIA H100"));
  ImportRequest eight = on("dgx-h100");
  eight.gpus = {8};
  EXPECT_TRUE(contains(refusal([&] { import_measurements(text, "a.txt", eight); }), "ranks: 4"));
  std::string unnamed = text;
  unnamed.replace(unnamed.find("alltoall_perf"), 13, "unknown_tests");
  EXPECT_TRUE(contains(refusal([&] { import_measurements(unnamed, "a.txt", on("dgx-h100")); }), "operation"));
  EXPECT_TRUE(contains(refusal([&] { import_measurements("# nothing\n", "a.txt", on("dgx-h100")); }), "no row"));
  EXPECT_TRUE(
      contains(refusal([&] { import_measurements(R"({"args": ["all_reduce_perf"]})", "a.json", {}); }), "results"));
}

// A GB200 rack is one node of 72, and 16 ranks on 4 hosts are on one node; without a rack 2 hosts are 2 nodes.
TEST(ImportNcclTests, Hosts_AreNodesOnlyWhereTheMachineEnds) {
  std::string text = "# Collective test starting: all_gather_perf\n";
  for (int rank = 0; rank < 16; ++rank)
    text +=
        "#  Rank " + std::to_string(rank) + " Group  0 Pid 1 on node" + std::to_string(rank / 4) + " device 0 [0] X\n";
  text += " 1024 64 float none -1 20.0 0.1 0.1 0 20.0 0.1 0.1 0\n";
  EXPECT_EQ(import_measurements(text, "a", on("gb200-nvl72")).curves[0].nodes, 1);
  EXPECT_EQ(import_measurements(text, "a", on("dgx-h100")).curves[0].nodes, 2);
}

// Two tests in one log are two curves; a test run twice is one.
TEST(ImportNcclTests, SeveralRuns_AreCurvesByTest) {
  const std::string text = sample("nccl_tests_alltoall.txt");
  std::string gather = text;
  gather.replace(gather.find("alltoall_perf"), 13, "all_gather_perf");
  const Calibration c = import_measurements(text + text + gather, "a.txt", on("dgx-h100"));
  ASSERT_EQ(c.curves.size(), 2U);
  EXPECT_EQ(c.curves[0].operation, "alltoall");
  EXPECT_EQ(c.curves[0].knots.size(), 5U);
  EXPECT_EQ(c.curves[1].operation, "all_gather");
}

TEST(ImportNvbandwidth, MatricesOfStrings_BecomeMeans) {
  const Calibration c = import_measurements(sample("nvbandwidth.json"), "n.json", {});
  EXPECT_EQ(c.machine.gpu.name, "NVIDIA H100 80GB HBM3");
  EXPECT_EQ(c.figures.size(), 2U);  // waived and failed tests are left out
  EXPECT_DOUBLE_EQ(c.figures.at("nvbandwidth.host_to_device_memcpy_ce_GBps"), 56);
  EXPECT_DOUBLE_EQ(c.figures.at("nvbandwidth.device_to_device_memcpy_read_ce_GBps"), 392);
  EXPECT_TRUE(contains(refusal([] { import_measurements(R"({"nvbandwidth": {}})", "n.json", {}); }), "testcases"));
}

constexpr const char* kNccl =
    "system,nccl,op,num_gpus,bytes_per_rank,latency_us\n"
    "h100_sxm,2.27.3,alltoall,2,512,6.0\n"
    "h100_sxm,2.27.3,alltoall,2,1024,6.5\r\n"
    "h100_sxm,2.27.3,all_gather,8,1024,10\n"
    "a100_sxm,2.27.3,alltoall,2,512,10\n";

TEST(ImportTable, Nccl_NeedsASystemWhereThereAreTwo) {
  EXPECT_TRUE(contains(refusal([] { import_measurements(kNccl, "t.csv", {}); }), "a100_sxm, h100_sxm"));
  ImportRequest r;
  r.system = "h100_sxm";
  const Calibration c = import_measurements(kNccl, "t.csv", r);
  EXPECT_EQ(c.curves.size(), 2U);
  EXPECT_EQ(c.machine.nvlink_GBps, 450);
  r.gpus = {8};
  EXPECT_EQ(import_measurements(kNccl, "t.csv", r).curves.size(), 1U);
  r.system = "tpu";
  EXPECT_TRUE(contains(refusal([&] { import_measurements(kNccl, "t.csv", r); }), "tpu"));
}

TEST(ImportTable, DeepEp_KeepsTheSmsAndPutsNotifyApart) {
  const Calibration c = import_measurements(
      "system,node_num,hidden_size,num_token,num_topk,num_experts,dispatch_sms,dispatch_transmit_us,dispatch_notify_us,"
      "combine_sms,combine_transmit_us,combine_notify_us\n"
      "h200_sxm,1,7168,1,8,256,20,37.28,0.0,20,48.36,0.0\n"
      "h200_sxm,2,7168,1,8,256,4,26.77,32.97,4,49.0,34.47\n",
      "d.csv", {});
  ASSERT_EQ(c.curves.size(), 6U);
  EXPECT_EQ(c.curves[0].operation, "dispatch");
  EXPECT_EQ(c.curves[0].parameters.at("sms"), 20);
  EXPECT_EQ(c.curves[2].operation, "dispatch_notify");
  EXPECT_EQ(c.curves[2].gpus, 16);
  EXPECT_EQ(c.curves[2].knots[0].time_us, 32.97);
}

TEST(ImportTable, Hostile_IsRefusedByLineOrColumn) {
  const auto said = [](const std::string& text) { return refusal([&] { import_measurements(text, "t.csv", {}); }); };
  EXPECT_TRUE(contains(said(""), "empty"));
  EXPECT_TRUE(contains(said("colour,weight\n1,2\n"), "not a table"));
  const std::string header = "system,nccl,op,num_gpus,bytes_per_rank,latency_us\n";
  EXPECT_TRUE(contains(said(header), "no rows"));
  EXPECT_TRUE(contains(said(header + "h100_sxm,2,alltoall,2,512\n"), "line 2"));
  for (const std::string cell : {"-1", "0", "nan", "1e999", "x", ""})
    EXPECT_TRUE(contains(said(header + "h100_sxm,2,alltoall,2,512," + cell + "\n"), "line 2: latency_us")) << cell;
  EXPECT_TRUE(contains(said(header + "abacus,2,alltoall,2,512,5\n"), "abacus"));
  EXPECT_TRUE(contains(said("{\"schema\": \"topomoe.plan/1\"}"), "topomoe.calibration/1"));
  EXPECT_TRUE(contains(said("{"), "t.csv"));
  EXPECT_TRUE(contains(said("{\"a\": " + std::string(100'000, '[')), "nested more than 200 deep"));
}

TEST(MergeInto, ReplacesTheSameShapeAndAddsOthers) {
  Calibration base = rates_test::line(7, 300, {2, 4});
  merge_into(base, rates_test::line(9, 300, {4, 8}));
  ASSERT_EQ(base.curves.size(), 3U);
  EXPECT_NEAR(base.curves[1].knots[0].time_us, 9, 0.01);
}

}  // namespace
}  // namespace topomoe
