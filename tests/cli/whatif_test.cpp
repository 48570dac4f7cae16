// topomoe whatif: which points there are, what is said of each, and what is refused.

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/cli/command.hpp"

namespace topomoe::testing {
namespace {

using nlohmann::json;

const std::string kSweep = "whatif --model $models/mixtral-8x7b.json --cluster $clusters/quickstart-2xh100.json ";

// One layout, run in one way: plans that take no time.
const std::string kOneLayout = "--fix tp=1,pp=2,cp=1,ep=8,etp=1,vpp=1,mbs=1 --recompute full ";

struct WhatIf : Command {
  json sweep(const std::string& more, int code = 0) {
    const Said said = topomoe(kSweep + "--format json " + more);
    EXPECT_EQ(said.code, code) << said.err;
    return json::parse(said.out, nullptr, false);
  }
  void refused(const std::string& more, const std::vector<std::string>& words) {
    const auto before = files();
    const Said said = topomoe(kSweep + "--html page.html " + more);
    EXPECT_EQ(said.code, 2) << more << said.err;
    EXPECT_EQ(said.out, "");
    expect_one_line(said.err, words);
    EXPECT_EQ(files(), before);
  }
};

// Longer sequences want more context parallelism, and other chunks: the sweep says between which points.
TEST_F(WhatIf, LongContext_SaysWhereLayoutAndChunksChange) {
  const std::string sweep_of = "--global-batch 16 --set sequence=8192,16384,32768,65536,131072";
  const json all = sweep(sweep_of);
  bool layout = false, chunks = false;
  for (const json& change : all.at("changes")) {
    EXPECT_EQ(change.at("key"), "sequence");
    EXPECT_EQ(change.at("to_point").get<int>(), change.at("from_point").get<int>() + 1);
    layout |= change.at("layout").get<bool>(), chunks |= change.at("algorithm").get<bool>();
  }
  EXPECT_TRUE(layout && chunks) << all.at("changes");
  const std::string text = topomoe(kSweep + sweep_of).out;
  for (const json& change : all.at("changes"))
    EXPECT_NE(text.find(change.at("text").get<std::string>()), std::string::npos) << change << text;
}

// 2 x 3 points, the last key fastest.
TEST_F(WhatIf, Settings_AreCrossed) {
  const json all = sweep(kOneLayout + "--set nic.GBps=25,50.5 --set global_batch=64,128,256");
  EXPECT_EQ(all.at("schema"), "topomoe.whatif/1");
  EXPECT_EQ(all.at("points_computed"), 6);
  ASSERT_EQ(all.at("points").size(), 6U);
  const double nics[] = {25, 25, 25, 50.5, 50.5, 50.5};
  const int batches[] = {64, 128, 256, 64, 128, 256};
  for (std::size_t i = 0; i < 6; ++i) {
    const json& p = all.at("points")[i];
    EXPECT_EQ(p.at("index"), i);
    EXPECT_EQ(p.at("settings").at("nic.GBps"), nics[i]);
    EXPECT_EQ(p.at("settings").at("global_batch"), batches[i]);
    EXPECT_EQ(p.at("status"), "planned");
    EXPECT_LT(p.at("low_ms"), p.at("step_ms"));
    EXPECT_GT(p.at("high_ms"), p.at("step_ms"));
  }
}

// A point says what `plan` says of the same cluster and job.
TEST_F(WhatIf, Point_IsThePlanOfItsRequest) {
  const json point = sweep("--set global_batch=128 --set tp=2 --gpus 32 --routing zipf:0.5").at("points")[0];
  const Said said = topomoe(
      "plan --model $models/mixtral-8x7b.json --cluster $clusters/quickstart-2xh100.json --format json "
      "--global-batch 128 --fix tp=2 --gpus 32 --routing zipf:0.5");
  ASSERT_EQ(said.code, 0) << said.err;
  const json plan = json::parse(said.out);
  EXPECT_EQ(point.at("step_ms"), plan.at("summary").at("time_ms"));
  EXPECT_EQ(point.at("algorithm"), plan.at("summary").at("algorithm"));
  EXPECT_EQ(point.at("memory_GiB"), plan.at("summary").at("memory_GiB"));
  EXPECT_EQ(point.at("low_ms"), plan.at("time").at("low_ms"));
  EXPECT_EQ(point.at("loads"), plan.at("loads"));
  EXPECT_EQ(point.at("note"), plan.at("topology").at("note"));
  // 32 GPUs for step_ms, over 128 sequences of 4,096 tokens
  EXPECT_NEAR(point.at("gpu_seconds_per_token").get<double>(),
              32 * point.at("step_ms").get<double>() * 1e-3 / (128 * 4096.0), 1e-15);
  double parts_ms = 0;
  for (const auto& part : point.at("time")) parts_ms += part.get<double>();
  EXPECT_NEAR(parts_ms, point.at("step_ms").get<double>(), 1e-9 * parts_ms);
}

// EP 16 on two hosts of 8: tokens cross the leaves, one of which is slow.
TEST_F(WhatIf, Edits_AreSetBesideTheClusterAsGiven) {
  const Said said = topomoe(
      "whatif --cluster $clusters/quickstart-2xh100.json --model $models/qwen3-30b-a3b.json --format json --fix "
      "ep=16,pp=1 "
      "--phase prefill --degrade leaf0=0.25 --set global_batch=64,128");
  ASSERT_EQ(said.code, 0) << said.err;
  const json all = json::parse(said.out);
  EXPECT_EQ(all.at("degrade"), json({"leaf0=0.25"}));
  ASSERT_EQ(all.at("points").size(), 4U);
  const char* edits[] = {"as given", "as given", "edited", "edited"};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(all.at("points")[i].at("settings").at("edits"), edits[i]);
    ASSERT_EQ(all.at("points")[i].at("status"), "planned") << all.at("points")[i].at("reason");
  }
  EXPECT_GT(all.at("points")[2].at("step_ms"), all.at("points")[0].at("step_ms"));
}

TEST_F(WhatIf, Clusters_AreCompared) {
  const json all = sweep(kOneLayout + "--cluster $clusters/dgx-b200.json --gpus 16 --set phase=train,prefill");
  ASSERT_EQ(all.at("points").size(), 4U);
  EXPECT_EQ(all.at("axes")[0], json({{"key", "cluster"}, {"values", {"quickstart-2xh100", "dgx-b200"}}}));
  EXPECT_EQ(all.at("points")[2].at("settings").at("cluster"), "dgx-b200");
  EXPECT_TRUE(all.at("points")[2].contains("backward"));
  EXPECT_FALSE(all.at("points")[3].contains("backward"));
}

TEST_F(WhatIf, PointWithoutAPlan_StaysWithItsReason) {
  const json all = sweep("--set tp=2,3 --html page.html -o sweep.json");
  EXPECT_EQ(all.at("points")[0].at("status"), "planned");
  EXPECT_EQ(all.at("points")[1].at("status"), "infeasible");
  EXPECT_NE(all.at("points")[1].at("reason").get<std::string>().find("tp"), std::string::npos);
  EXPECT_EQ(json::parse(read("sweep.json")), all);
  const Said text = topomoe(kSweep + "--set tp=2,3");
  EXPECT_EQ(text.code, 0) << text.err;
  for (const char* word : {"tp  step ms", "infeasible: tp", "fewest GPU-seconds", "GPU-s/Mtoken"})
    EXPECT_NE(text.out.find(word), std::string::npos) << word << "\n" << text.out;
  EXPECT_EQ(text.err, "") << "progress is for terminals";
}

TEST_F(WhatIf, NoPointWithAPlan_IsInfeasible) {
  const Said said = topomoe(kSweep + "--set tp=3,5");
  EXPECT_EQ(said.code, 1);
  EXPECT_NE(said.out.find("infeasible: tp"), std::string::npos) << said.out;
  expect_one_line(said.err, {"infeasible", "no point has a plan", "tp"});
}

TEST_F(WhatIf, SameQuestion_SameBytes) {
  const std::string question =
      kSweep + kOneLayout + "--set nic.GBps=25,50,100,200 --set sequence=2048,4096 --format json";
  const std::string once = topomoe(question).out;
  EXPECT_GT(once.size(), 1000U);
  EXPECT_EQ(once, topomoe(question).out);
}

TEST_F(WhatIf, RoutingFromAFile_IsOneOfTheValues) {
  write("counts.csv", "9,7,5,3,2,2,2,2\n");
  const json all = sweep("--set routing=uniform,zipf:1.0,counts.csv --set phase=prefill --fix ep=8");
  ASSERT_EQ(all.at("points").size(), 3U);
  EXPECT_GT(all.at("points")[1].at("step_ms"), all.at("points")[0].at("step_ms"));
  EXPECT_GT(all.at("points")[2].at("step_ms"), all.at("points")[0].at("step_ms"));
}

TEST_F(WhatIf, Nonsense_IsRefusedByName) {
  refused("--set fraction=3", {"--set", "fraction", "nic.GBps", "sequence"});
  refused("--set nic.GBps", {"--set", "nic.GBps", "KEY=VALUE"});
  refused("--set nic.GBps=", {"--set nic.GBps", "empty"});
  refused("--set nic.GBps=25,,50", {"--set nic.GBps", "empty"});
  refused("--set nic.GBps=25,", {"--set nic.GBps", "empty"});
  for (const char* value : {"nan", "inf", "-5", "0", "25x", "1e300"})
    refused("--set nic.GBps=" + std::string(value), {"--set nic.GBps", value, "number"});
  for (const char* value : {"0", "-1", "2.5", "99999999999999"})
    refused("--set sequence=" + std::string(value), {"--set sequence", value, "integer"});
  refused("--set nic.GBps=25,25", {"--set nic.GBps", "25", "twice"});
  refused("--set tp=1 --set tp=2", {"--set tp", "twice"});
  refused("--set tp=1 --fix tp=2", {"--set tp", "--fix"});
  refused("--set phase=training", {"--set phase", "training", "train"});
  refused("--set transport=pigeon", {"pigeon", "flat"});
  refused("--set routing=zipf:x", {"zipf:x"});
  refused("--set ring.GBps=5", {"ring.GBps", "none"});
  refused("--degrade leaf99=0.5", {"degrade", "leaf99", "leaf0"});
  refused("--degrade leaf0=2", {"degrade", "leaf0", "at most 1"});
  refused("--degrade leaf0", {"degrade", "leaf0"});
  refused("--remove host0.gpu9", {"remove", "host0.gpu9", "gpu0"});
  refused("--cluster $clusters/quickstart-2xh100.json", {"--cluster", "twice"});
  refused("--html nowhere/page.html --set tp=2", {"--html"});
  refused("--global-batch 7 --micro-batch 2", {"global_batch", "7"});
}

TEST_F(WhatIf, TooManyPoints_AreRefusedBeforeAnyIsPlanned) {
  std::string values = "1";
  for (int i = 2; i <= 101; ++i) values += "," + std::to_string(i);
  refused("--set nic.GBps=" + values + " --set nvlink.GBps=" + values, {"--set", "10000 points"});  // 101 x 101
}

// SIGINT while it computes: what is done is kept, the rest is marked. How long a point takes here is not known, so
// the wait grows until something is done before it ends.
TEST_F(WhatIf, Interrupted_KeepsWhatItHas) {
  std::string values = "1";
  for (int i = 2; i <= 1000; ++i) values += "," + std::to_string(i);
  for (const char* seconds : {"0.5", "2", "8", "30"}) {
    const Said said =
        shell("timeout --preserve-status -s INT " + std::string(seconds) + " \"" TOPOMOE_BINARY "\" " + kSweep +
              "--format json --html page.html --set nic.GBps=" + values + " --set global_batch=64,128,192,256,320");
    const json all = json::parse(said.out, nullptr, false);
    if (said.code == 128 + 2 || !all.is_object() || all.at("points_computed") == 0) continue;  // too early
    EXPECT_EQ(said.code, 1) << said.err;
    expect_one_line(said.err, {"interrupted", "of 5000 points"});
    ASSERT_EQ(all.at("points").size(), 5000U);
    int computed = 0;
    for (const json& point : all.at("points")) {
      EXPECT_EQ(point.contains("step_ms"), point.at("status") == "planned");
      computed += point.at("status") != "not computed";
    }
    EXPECT_EQ(computed, all.at("points_computed"));
    EXPECT_GT(computed, 0);
    EXPECT_LT(computed, 5000);
    EXPECT_NE(read("page.html").find("</html>"), std::string::npos);
    return;
  }
  FAIL() << "no point in 30 seconds";
}

}  // namespace
}  // namespace topomoe::testing
