// profile, and what reads its calibration: the loop on threads, short.

#include <nlohmann/json.hpp>

#include "tests/cli/command.hpp"

namespace topomoe::testing {
namespace {

using nlohmann::ordered_json;

using ProfileCommand = Command;

TEST_F(ProfileCommand, Loop_ProfilesBenchesAndComparesOnThreads) {
  write_cluster("cluster.json", "10000");
  const Said said =
      topomoe("profile --cluster cluster.json --seconds 0.2 --most 64K --expert 32x16 -o calibration.json");
  ASSERT_EQ(said.code, 0) << said.err;
  EXPECT_EQ(said.err, "");
  const ordered_json calibration = ordered_json::parse(read("calibration.json"));
  EXPECT_EQ(calibration.at("machine").at("nic_GBps"), 5000);  // two ranks share it
  int alone = 0, in_a_row = 0, copies = 0, experts = 0;
  for (const ordered_json& curve : calibration.at("curves")) {
    if (curve.at("operation") == "copy")
      ++copies;
    else if (curve.at("size_unit") == "rows")
      ++experts;
    else
      ++(curve.at("parameters").contains("in_a_row") ? in_a_row : alone);
    EXPECT_FALSE(curve.at("knots_size_us").empty());  // how many sizes 0.2 s are enough for, the machine decides
  }
  EXPECT_EQ(alone, 6);  // an all-to-all and an all-gather of pairs inside, pairs across, all four
  EXPECT_GT(in_a_row, 0);
  EXPECT_EQ(copies, 1);
  EXPECT_EQ(experts, 6);  // forward, dgrad and wgrad in fp32 and bf16

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

TEST_F(ProfileCommand, Run_ComparesWithTheCalibrationAndWritesItsOwn) {
  write_cluster("cluster.json", "10000");
  ASSERT_EQ(topomoe("profile --cluster cluster.json --seconds 0.2 --most 64K --expert 32x16 -o calibration.json").code,
            0);
  const Said planned = topomoe(
      "plan --cluster cluster.json --calibration calibration.json --model $models/mixtral-8x7b.json --fix tp=1,ep=4 "
      "--micro-batch 1 --global-batch 16 --memory-GiB 2000 -o plan.json");
  ASSERT_EQ(planned.code, 0) << planned.err;
  const Said ran = topomoe(
      "run plan.json --cluster cluster.json --calibration calibration.json --profile-out online.json --format json "
      "--shrink hidden=16,ffn=16,tokens=64");
  ASSERT_EQ(ran.code, 0) << ran.err;
  const ordered_json drift = ordered_json::parse(ran.out).at("drift");
  EXPECT_GT(drift.at("steps").size(), 4U);
  double predicted = 0;
  for (const ordered_json& lane : drift.at("lanes"))
    if (lane.at("lane") == "inter_node") predicted = lane.at("predicted_us");
  EXPECT_GT(predicted, 0);
  EXPECT_NE(drift.at("verdict").get<std::string>().find("lane"), std::string::npos);
  // What the run measured is a calibration of this cluster: it plans.
  const Said again =
      topomoe("estimate alltoall --cluster cluster.json --calibration online.json --bytes 1K --format json");
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_NE(again.out.find("measured"), std::string::npos) << again.out;
}

// Threads are no GPUs, whatever the cluster file calls them: neither their links nor their copies.
TEST_F(ProfileCommand, HostMemory_IsTakenForGpusOnPurposeOnly) {
  write_cluster("cluster.json");
  ASSERT_EQ(shell("sed 's/\"thread\"/\"H100 SXM 80GB\"/' cluster.json > gpus.json").code, 0);
  const std::string profile = "profile --cluster gpus.json --seconds 0.1 --most 4K -o host.json ";
  const Said unasked = topomoe(profile);
  EXPECT_EQ(unasked.code, 2);
  expect_one_line(unasked.err, {"--cluster", "H100 SXM 80GB", "host memory", "calibrate", "--host-curves"});
  EXPECT_EQ(files(), (std::vector<std::string>{"cluster.json", "gpus.json"}));
  const Said asked = topomoe(profile + "--host-curves");
  ASSERT_EQ(asked.code, 0) << asked.err;
  EXPECT_EQ(ordered_json::parse(read("host.json")).at("software").at("backend"), "inproc");

  const std::string job =
      " --model $models/mixtral-8x7b.json --fix tp=1,ep=4 --micro-batch 1 --global-batch 16 "
      "--memory-GiB 2000 ";
  for (const std::string& ask : {"plan --cluster gpus.json -o plan.json" + job, "whatif --cluster gpus.json" + job,
                                 std::string("estimate alltoall --cluster gpus.json --bytes 1K ")}) {
    const Said refused = topomoe(ask + "--calibration host.json");
    EXPECT_EQ(refused.code, 2) << ask;
    expect_one_line(refused.err, {"--calibration", "host.json", "host memory", "H100 SXM 80GB", "--host-curves"});
    const Said taken = topomoe(ask + "--calibration host.json --host-curves");
    ASSERT_EQ(taken.code, 0) << taken.err;
    EXPECT_NE(taken.err.find("warning: host.json was measured in host memory"), std::string::npos) << taken.err;
  }
  std::string sources;
  const ordered_json plan = ordered_json::parse(read("plan.json"));
  for (const ordered_json& rate : plan.at("time").at("rates"))
    sources += rate.at("what").get<std::string>() + ": " + rate.at("source").get<std::string>() + "\n";
  EXPECT_NE(sources.find("copies: measured: gpus.json (host memory)"), std::string::npos) << sources;
  EXPECT_NE(sources.find("links inside nodes: measured: gpus.json (host memory) alltoall"), std::string::npos)
      << sources;

  // The same ranks run there: their curves are no surprise, and judge them.
  const Said ran = topomoe(
      "run plan.json --cluster gpus.json --calibration host.json --format json --shrink hidden=16,ffn=16,tokens=64");
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_NE(ran.err.find("note: host.json was measured in host memory, as these ranks run"), std::string::npos)
      << ran.err;
  EXPECT_EQ(ordered_json::parse(ran.out).at("drift").at("verdict").get<std::string>().find("nothing to compare"),
            std::string::npos);
}

// Curves of NICs between hosts without GPUs are what such a cluster is planned by.
TEST_F(ProfileCommand, HostMemory_IsWhatClustersOfCpusHave) {
  write_cluster("cluster.json");
  ASSERT_EQ(topomoe("profile --cluster cluster.json --seconds 0.1 --most 4K --expert none -o c.json").code, 0);
  const Said said = topomoe("estimate alltoall --cluster cluster.json --bytes 1K --calibration c.json --format json");
  EXPECT_EQ(said.code, 0);
  EXPECT_EQ(said.err, "");
  EXPECT_NE(said.out.find("measured: cluster.json (host memory) alltoall"), std::string::npos) << said.out;
}

#ifdef TOPOMOE_MPIEXEC
// Four processes, all exchanges between "hosts" (flat, EP 4). Curves a thousand times too fast or too slow: no noise of
// the machine is that loud. What was measured on another machine, or not at all, is no reason to plan again.
TEST_F(ProfileCommand, DriftOverProcesses_NamesTheLaneAndWhichWay) {
  write_cluster("cluster.json");
  const Said profiled = mpirun(
      4, "profile --backend mpi --cluster cluster.json --tp 1 --ep 4 --seconds 0.2 --most 64K --expert none -o c.json");
  ASSERT_EQ(profiled.code, 0) << profiled.err;
  const Said planned = topomoe(
      "plan --cluster cluster.json --model $models/mixtral-8x7b.json --fix tp=1,ep=4 --transport flat --micro-batch 1 "
      "--global-batch 16 --memory-GiB 2000 -o plan.json");
  ASSERT_EQ(planned.code, 0) << planned.err;
  const auto run = [&](const std::string& arguments) {
    const Said said = mpirun(4,
                             "run plan.json --backend mpi --cluster cluster.json --format json --shrink "
                             "hidden=16,ffn=16,tokens=64 " +
                                 arguments);
    EXPECT_EQ(said.code, 0) << said.err;
    return said.code == 0 ? ordered_json::parse(said.out) : ordered_json();
  };
  const ordered_json calibration = ordered_json::parse(read("c.json"));
  const auto verdict = [&](double times, double nic) {
    ordered_json edited = calibration;
    for (ordered_json& curve : edited.at("curves"))
      if (curve.at("operation") == "alltoall" && curve.at("nodes") == 2)
        for (ordered_json& knot : curve.at("knots_size_us")) knot[1] = times * knot[1].get<double>();
    edited["machine"]["nic_GBps"] = nic * edited["machine"]["nic_GBps"].get<double>();
    write("edited.json", edited.dump());
    return run("--calibration edited.json").at("drift").at("verdict").get<std::string>();
  };
  const std::string slower = verdict(1e-3, 1), faster = verdict(1e3, 1);
  EXPECT_TRUE(slower.starts_with("the inter-node lane is ") && slower.ends_with("% slower than its curve: re-plan"))
      << slower;
  EXPECT_TRUE(faster.starts_with("the inter-node lane is ") && faster.ends_with("% faster than its curve: re-plan"))
      << faster;
  EXPECT_EQ(verdict(1e-3, 2), "no lane between ranks was predicted from a curve of its own: nothing to compare");
  EXPECT_FALSE(run("").contains("drift"));
}
#endif

TEST_F(ProfileCommand, BadInput_IsNamed) {
  write_cluster("cluster.json", "10000");
  const auto refused = [&](const std::string& arguments, const std::vector<std::string>& words) {
    const Said said = topomoe("profile " + arguments);
    EXPECT_EQ(said.code, 2) << arguments << said.out;
    expect_one_line(said.err, words);
  };
  refused("--cluster $clusters/h100-16x8.json --host-curves", {"--cluster", "128 ranks", "mpi"});
  refused("--cluster cluster.json --tp 3", {"tp"});
  refused("--cluster cluster.json --expert 512", {"--expert", "4096x1536"});
  refused("--cluster cluster.json --most 50", {"--most", "at least 64"});
  refused("--cluster cluster.json --expert 0x8", {"--expert"});
  refused("--cluster cluster.json --seconds 0", {"--seconds"});
  refused("--cluster cluster.json --edp-inner", {"--edp-inner", "--tp, --ep or --etp"});
  refused("--cluster cluster.json --expert none --dtype f32", {"--dtype", "--expert"});
}

}  // namespace
}  // namespace topomoe::testing
