// run: plans executed on ranks of this machine, verified, counted, traced.

#include <map>
#include <nlohmann/json.hpp>

#include "tests/cli/command.hpp"

namespace topomoe::testing {
namespace {

using nlohmann::json;

// Small enough for sanitizers.
const std::string kSmall = " --shrink hidden=32,ffn=64,tokens=40 ";

struct RunCommand : Command {
  json run(const std::string& arguments) {
    const Said said = topomoe("run " + arguments + " --verify --format json" + kSmall);
    EXPECT_EQ(said.code, 0) << said.err << said.out;
    return said.code == 0 ? json::parse(said.out) : json();
  }
  static double between(const json& run) {
    return run.at("payload").at("measured").at("between_nodes_bytes").get<double>();
  }
};

TEST_F(RunCommand, Plan_OnThreads_IsVerifiedAndItsBytesArePredicted) {
  plan_small();
  const json r = run("plan.json");
  EXPECT_EQ(r.at("ranks"), 16);
  EXPECT_TRUE(r.at("bytes_agree").get<bool>());
  EXPECT_EQ(r.at("payload").at("predicted"), r.at("payload").at("measured"));
  ASSERT_EQ(r.at("verified").size(), 6U);
  for (const auto& [name, deviation] : r.at("verified").items())
    EXPECT_LE(deviation.get<double>(), r.at("bound").get<double>()) << name;
}

// TP=8, EP=2 on two nodes: each of 8 TP ranks sends every token to the other node, or 1/8 of them each.
TEST_F(RunCommand, Sliced_PutsAnEighthOfReplicatedBetweenNodes) {
  const std::string layout = "--dtype f32 --fix tp=8,ep=2,etp=8 --sequence-parallel off --transport flat ";
  plan_small("replicated.json", layout + "--split replicated --chunks 1");
  plan_small("sliced.json", layout + "--split sliced --chunks 4");
  const double replicated = between(run("replicated.json")), sliced = between(run("sliced.json"));
  EXPECT_GT(sliced, 0);
  EXPECT_EQ(replicated, 8 * sliced);
}

TEST_F(RunCommand, Plan_WithItsCluster_IsNoRehearsal) {
  plan_small();
  EXPECT_FALSE(run("plan.json --cluster $clusters/quickstart-2xh100.json").at("rehearsal").get<bool>());
  EXPECT_TRUE(run("plan.json").at("rehearsal").get<bool>());
}

// Not after a run of an hour. Nothing is written.
TEST_F(RunCommand, CalibrationThatIsNone_IsFoundBeforeTheRun) {
  plan_small();
  write("calibration.json", "{}");
  const Said said = topomoe(
      "run plan.json --cluster $clusters/quickstart-2xh100.json --calibration calibration.json "
      "--trace trace.json" +
      kSmall);
  EXPECT_EQ(said.code, 2);
  EXPECT_EQ(said.out, "");
  EXPECT_NE(said.err.find("calibration.json"), std::string::npos) << said.err;
}

TEST_F(RunCommand, Plan_ResizedByGpus_MatchesTheFileItCameFrom) {
  plan_small("plan.json", "--gpus 8 --memory-GiB 160");
  EXPECT_EQ(run("plan.json --cluster $clusters/quickstart-2xh100.json").at("ranks"), 8);
}

// A process a rank, a thread a lane, a slice a step; slices of one lane do not overlap (Perfetto would misplace them).
TEST_F(RunCommand, Trace_HasARowForEveryStep) {
  plan_small();
  run("plan.json --trace trace.json");
  const json trace = json::parse(read("trace.json")), plan = json::parse(read("plan.json"));
  const auto steps = plan.at("schedule").at("forward").size() + plan.at("schedule").at("backward").size();
  std::map<int, std::size_t> slices;
  std::map<int, std::string> processes;
  std::map<std::pair<int, int>, double> end;
  std::map<std::pair<int, int>, std::string> lanes;
  for (const json& e : trace.at("traceEvents")) {
    const int rank = e.at("pid");
    if (e.at("ph") == "M") {
      if (e.at("name") == "process_name") processes[rank] = e.at("args").at("name");
      if (e.at("name") == "thread_name") lanes[{rank, e.at("tid")}] = e.at("args").at("name");
      continue;
    }
    ASSERT_EQ(e.at("ph"), "X");
    ++slices[rank];
    for (const char* key : {"predicted_us", "bytes", "metadata_bytes", "chunk", "kind"})
      EXPECT_TRUE(e.at("args").contains(key)) << key;
    double& last = end[{rank, e.at("tid")}];
    EXPECT_GE(e.at("ts").get<double>(), last - 1e-6);
    EXPECT_GE(e.at("dur").get<double>(), 0.0);
    last = e.at("ts").get<double>() + e.at("dur").get<double>();
  }
  ASSERT_EQ(slices.size(), 16U);
  for (const auto& [rank, count] : slices) EXPECT_EQ(count, steps) << "rank " << rank;
  EXPECT_EQ(processes.size(), 16U);
  EXPECT_EQ(lanes.size(), 64U);
}

// Sigmoid scores, selection bias, 4 of 8 groups, a shared expert, weights times 2.5: all of it runs.
TEST_F(RunCommand, DeepSeekV3_IsExecutedAsItIs) {
  const Said planned = topomoe(
      "plan --cluster $clusters/h100-2x8.json --model $models/deepseek-v3.json --phase prefill --gpus 32 --sequence "
      "1024"
      " --global-batch 32 --dtype bf16 -o plan.json");
  ASSERT_EQ(planned.code, 0) << planned.err;
  const Said said = topomoe("run plan.json --verify" + kSmall);
  EXPECT_EQ(said.code, 0) << said.err << said.out;
  EXPECT_EQ(said.err.find("not executed"), std::string::npos) << said.err;
}

TEST_F(RunCommand, WhatIsNotExecuted_IsNamed) {
  plan_small("plan.json", "--routing zipf:1.2");
  const Said said = topomoe("run plan.json" + kSmall);
  EXPECT_EQ(said.code, 0) << said.err;
  EXPECT_NE(said.err.find("not executed in this run: routing profile"), std::string::npos) << said.err;
}

// Switch's activation is ReLU, which a plan does not say: it is named, and GELU is run.
TEST_F(RunCommand, ExpertsWithoutAGate_AreRunWithGelu) {
  const Said planned = topomoe(
      "plan --cluster $clusters/h100-2x8.json --model $models/switch-base-16.json --sequence 1024 --gpus 4 -o "
      "plan.json");
  ASSERT_EQ(planned.code, 0) << planned.err;
  const Said said = topomoe("run plan.json" + kSmall);
  EXPECT_EQ(said.code, 0) << said.err;
  EXPECT_NE(said.err.find("not executed in this run: another activation than GELU"), std::string::npos) << said.err;
  // Output, gradients of tokens, router and 2 matrices.
  EXPECT_EQ(run("plan.json").at("verified").size(), 5U);
}

// By definition, with tokens as fp8 leaves them; without being told so the definition is not met.
TEST_F(RunCommand, TokensThatTravelAsFp8_AreVerified) {
  plan_small("plan.json", "--dispatch-dtype fp8 --dtype f32");
  const json r = run("plan.json");
  EXPECT_TRUE(r.at("bytes_agree").get<bool>());
  EXPECT_EQ(r.at("verified").size(), 6U);
  ASSERT_EQ(shell("sed 's/\"dispatch_dtype\": \"fp8\"/\"dispatch_dtype\": \"as_job\"/' plan.json > other.json").code,
            0);
  const Said other = topomoe("run other.json --verify --format json" + kSmall);
  EXPECT_EQ(other.code, 1) << other.err;
}

// PR-MoE: GELU experts, a residual one, twice the experts in the last layers.
TEST_F(RunCommand, MoeLayersThatDiffer_AreRunEach) {
  const Said planned = topomoe(
      "plan --cluster $clusters/h100-2x8.json --model $models/pr-moe-350m-32-64.json --sequence 1024 --fix tp=2 -o "
      "plan.json");
  ASSERT_EQ(planned.code, 0) << planned.err;
  for (const int kind : {0, 1}) {
    const json r = run("plan.json --kind " + std::to_string(kind));
    // Output, gradients of tokens, router and 2 matrices; of the shared expert's 2 matrices and its gate.
    EXPECT_EQ(r.at("verified").size(), 8U);
    EXPECT_TRUE(r.at("bytes_agree").get<bool>());
  }
  const Said said = topomoe("run plan.json" + kSmall);
  EXPECT_NE(said.err.find("MoE kind 2 (64 experts in 2 layers): --kind 1 runs it"), std::string::npos) << said.err;
  EXPECT_EQ(topomoe("run plan.json --kind 2" + kSmall).code, 2);
}

TEST_F(RunCommand, Repeat_ReportsEachRun) {
  plan_small();
  EXPECT_EQ(run("plan.json --repeat 3").at("measured_us").size(), 3U);
}

TEST_F(RunCommand, DeadlineOfNoTime_IsRefused) {
  const Said said = topomoe("run plan.json --deadline 0");
  EXPECT_EQ(said.code, 2);
  expect_one_line(said.err, {"--deadline", "1 to 86400"});
}

// What is missing is said before what a plan's cluster then seems to be.
TEST_F(RunCommand, GpusThatAreNotHere_AreAMissingEnvironment) {
  if (std::filesystem::exists("/dev/nvidia0")) GTEST_SKIP() << "there is a GPU";
  plan_small();
  const Said said = topomoe("run plan.json --backend nccl" + kSmall);
  EXPECT_EQ(said.code, 3);
  expect_one_line(said.err, {"cuda: "});
  EXPECT_EQ(said.err.find("fingerprint"), std::string::npos) << said.err;
}

TEST_F(RunCommand, HostAndRemap_AreOfProcesses) {
  plan_small();
  for (const std::string option : {"--host x", "--remap"}) {
    const Said said = topomoe("run plan.json " + option);
    EXPECT_EQ(said.code, 2);
    expect_one_line(said.err, {option.substr(0, 6), "one process", "--backend mpi"});
  }
}

// Threads move host memory: what H100s do by NVLink is no curve of theirs.
TEST_F(RunCommand, LanesOfThreads_AreNotJudgedByCurvesOfGpus) {
  plan_small();
  ASSERT_EQ(topomoe("calibrate --from '" TOPOMOE_SOURCE_DIR "/tests/data/measured/nccl_tests_alltoall.txt' --cluster "
                    "$clusters/quickstart-2xh100.json --name mine -o mine.json")
                .code,
            0);
  const json r = run("plan.json --cluster $clusters/quickstart-2xh100.json --calibration mine.json");
  EXPECT_EQ(r.at("drift").at("verdict"),
            "no lane between ranks was predicted from a curve of its own: nothing to compare");
  EXPECT_EQ(r.at("measured_us").size(), 5U);  // where lanes are judged one repetition is not enough
  EXPECT_EQ(r.at("drift").at("repetitions"), 4);
}

#ifdef TOPOMOE_MPIEXEC
using MpiRun = RunCommand;

TEST_F(MpiRun, Plan_On16Processes_IsVerified) {
  plan_small();
  const Said said = mpirun(16, "run plan.json --backend mpi --verify --format json --trace trace.json" + kSmall);
  ASSERT_EQ(said.code, 0) << said.err << said.out;
  const json r = json::parse(said.out);  // one rank speaks
  EXPECT_TRUE(r.at("bytes_agree").get<bool>());
  EXPECT_EQ(r.at("verified").size(), 6U);
  EXPECT_FALSE(json::parse(read("trace.json")).at("traceEvents").empty());
  // Threads and processes draw the same tokens and send the same bytes.
  EXPECT_EQ(run("plan.json").at("payload"), r.at("payload"));
}

TEST_F(MpiRun, GpusThatAreNotHere_AreSaidOnce) {
  if (std::filesystem::exists("/dev/nvidia0")) GTEST_SKIP() << "there is a GPU";
  plan_small();
  const Said said = mpirun(2, "run plan.json --backend nccl");
  EXPECT_EQ(said.code, 3);
  const auto first = said.err.find("topomoe: cuda: ");
  EXPECT_NE(first, std::string::npos) << said.err;
  EXPECT_EQ(said.err.find("topomoe: ", first + 1), std::string::npos) << said.err;
}

// A process that knows nothing of the others runs all ranks, each of them.
TEST_F(MpiRun, WithoutItsBackend_WarnsOnce) {
  plan_small("plan.json", "--gpus 8 --memory-GiB 160");
  const Said said = mpirun(2, "run plan.json" + kSmall);
  EXPECT_EQ(said.code, 0);
  const auto first = said.err.find("Open MPI started 2 processes");
  EXPECT_NE(first, std::string::npos) << said.err;
  EXPECT_NE(said.err.find("--backend mpi", first), std::string::npos) << said.err;
  EXPECT_EQ(said.err.find("started 2 processes", first + 20), std::string::npos) << said.err;
}

TEST_F(MpiRun, OtherRankCount_IsRefusedOnce) {
  plan_small();
  const Said said = mpirun(2, "run plan.json --backend mpi");
  EXPECT_EQ(said.code, 2);
  const auto first = said.err.find("topomoe: ranks: 2: the plan has 16");
  EXPECT_NE(first, std::string::npos) << said.err;
  EXPECT_EQ(said.err.find("topomoe: ", first + 1), std::string::npos) << said.err;
}
#endif

}  // namespace
}  // namespace topomoe::testing
