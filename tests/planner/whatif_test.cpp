// What-if as values: which points a question has, what each asks, and that neither threads nor an early end change
// an answer.
#include "planner/whatif/whatif.hpp"

#include <gtest/gtest.h>

#include "tests/planner/helpers.hpp"

namespace topomoe {
namespace {

using Status = WhatIfOutcome::Status;

WhatIf question() {  // Switch-Base on 16 H100: small and quick
  WhatIf w;
  w.clusters.push_back({"small", read_topology_file(TOPOMOE_SOURCE_DIR "/configs/clusters/h100-2x8.json"), ""});
  w.base.model = shipped("switch-base-16");
  w.base.job.global_batch = 64;
  w.base.fix = {"pp=1,cp=1"};
  return w;
}

TEST(WhatIf, ParseSetting_TakesAListOfValues) {
  const Setting setting = parse_setting("nic.GBps=25,1e2");
  EXPECT_EQ(setting.key, "nic.GBps");
  EXPECT_EQ(setting.values, (std::vector<std::string>{"25", "1e2"}));
  EXPECT_TRUE(numeric("nic.GBps"));
  EXPECT_FALSE(numeric("routing"));
  EXPECT_EQ(parse_setting("nic.latency_us=0").values, std::vector<std::string>{"0"});
  for (const char* bad : {"", "=", "=3", "nic.GBps", "nic.GBps=", "nic.GBps=0", "nic.GBps=+1", "tp=1.0", "tp=0x2"})
    EXPECT_THROW(parse_setting(bad), InvalidInput) << bad;
}

// 2 clusters x (as given, edited) x 2 x 3 = 24; index 17 = ((1 * 2 + 0) * 2 + 1) * 3 + 2.
TEST(WhatIf, Points_AreTheCrossProductWithTheLastFastest) {
  WhatIf w = question();
  w.clusters.push_back(w.clusters[0]);
  w.degrade = {"leaf0=0.5"};
  w.settings = {parse_setting("nic.GBps=25,50"), parse_setting("sequence=1024,2048,4096")};
  EXPECT_EQ(point_count(w), 24U);
  const WhatIfPoint point = point_at(w, 17);
  EXPECT_EQ(point.cluster, 1U);
  EXPECT_FALSE(point.edited);
  EXPECT_EQ(point.values, (std::vector<std::size_t>{1, 2}));
  EXPECT_TRUE(point_at(w, 23).edited);
}

TEST(WhatIf, RequestAt_AppliesSettingsThenEdits) {
  WhatIf w = question();
  w.remove = {"host3.gpu7"};  // only there once there are four hosts
  w.settings = {parse_setting("hosts=4"),          parse_setting("nic.GBps=25"),    parse_setting("gpu.hbm_GBps=4800"),
                parse_setting("sequence=2048"),    parse_setting("tp=2"),           parse_setting("memory_GiB=60"),
                parse_setting("transport=flat"),   parse_setting("recompute=full"), parse_setting("routing=hot"),
                parse_setting("global_batch=128"), parse_setting("micro_batch=2"),  parse_setting("phase=prefill")};
  w.routings["hot"].kind = RoutingProfile::Kind::zipf;
  const PlanRequest given = request_at(w, point_at(w, 0)), edited = request_at(w, point_at(w, 1));
  EXPECT_EQ(given.topology.gpu_count(), 32);
  EXPECT_EQ(edited.topology.gpu_count(), 31);
  EXPECT_EQ(given.topology.templates[0].nics[0].port.GBps_per_direction, 25);
  EXPECT_EQ(given.topology.templates[0].gpu.hbm_GBps, 4800);
  EXPECT_EQ(given.job.sequence, 2048);
  EXPECT_EQ(given.job.global_batch, 128);
  EXPECT_EQ(given.job.micro_batch, 2);
  EXPECT_EQ(given.job.phase, Phase::prefill);
  EXPECT_EQ(given.job.recompute, Recompute::full);
  EXPECT_EQ(given.fix, (std::vector<std::string>{"pp=1,cp=1", "tp=2"}));
  EXPECT_EQ(given.memory_GiB, 60);
  EXPECT_EQ(given.transport, "flat");
  EXPECT_EQ(given.routing.kind, RoutingProfile::Kind::zipf);
}

TEST(WhatIf, Run_IsTheSameOnAnyNumberOfThreads) {
  WhatIf w = question();
  w.settings = {parse_setting("nic.GBps=10,20,40"), parse_setting("tp=1,2,3")};
  WhatIfRun run;
  std::vector<std::size_t> seen;
  run.progress = [&](std::size_t done, std::size_t all) {
    seen.push_back(done);
    EXPECT_EQ(all, 9U);
  };
  const auto alone = run_what_if(w, run);
  EXPECT_EQ(seen, (std::vector<std::size_t>{1, 2, 3, 4, 5, 6, 7, 8, 9}));
  run.threads = 5;
  const auto together = run_what_if(w, run);
  EXPECT_EQ(what_if_json(w, alone), what_if_json(w, together));
  EXPECT_EQ(what_if_text(w, alone), what_if_text(w, together));
  EXPECT_EQ(seen.size(), 18U);
  EXPECT_EQ(alone[0].status, Status::planned);
  EXPECT_EQ(alone[2].status, Status::infeasible);
}

TEST(WhatIf, Run_KeepsWhatWasDoneBeforeItWasCancelled) {
  WhatIf w = question();
  w.settings = {parse_setting("nic.GBps=10,20,30,40,50")};
  const auto whole = run_what_if(w);
  std::atomic<bool> stop{false};
  WhatIfRun run;
  run.cancel = &stop;
  run.progress = [&](std::size_t done, std::size_t) { stop = done == 2; };
  const auto part = run_what_if(w, run);
  ASSERT_EQ(part.size(), 5U);
  for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ(part[i].status, i < 2 ? Status::planned : Status::not_computed);
  EXPECT_EQ(write_plan(*part[1].plan), write_plan(*whole[1].plan));
}

TEST(WhatIf, Run_RefusesAQuestionThatNoPointCanAnswer) {
  WhatIf w = question();
  w.base.transport = "pigeon";
  w.settings = {parse_setting("nic.GBps=10,20")};
  EXPECT_THROW(run_what_if(w), InvalidInput);
  w = question();
  w.degrade = {"leaf99=0.5"};
  EXPECT_THROW(run_what_if(w), InvalidInput) << "though the cluster as given has plans";
}

TEST(WhatIf, Run_PassesOnWhatIsNotAnAnswer) {
  WhatIf w = question();
  w.settings = {parse_setting("nic.GBps=10,20,30,40")};
  WhatIfRun run;
  run.threads = 3;
  run.progress = [](std::size_t, std::size_t) { throw std::bad_alloc(); };
  EXPECT_THROW(run_what_if(w, run), std::bad_alloc);
}

// 16 GPUs for 1 s on 64 sequences of 4,096 tokens in training; on 64 tokens in decoding.
TEST(WhatIf, GpuSeconds_AreCountedByTheTokensOfAStep) {
  Plan plan;
  plan.layout.world = 16;
  plan.job.global_batch = 64, plan.job.sequence = 4096;
  EXPECT_DOUBLE_EQ(gpu_seconds_per_token(plan, 1000), 16.0 / (64 * 4096));
  plan.job.phase = Phase::decode;
  EXPECT_DOUBLE_EQ(gpu_seconds_per_token(plan, 1000), 16.0 / 64);
}

// Values need not come in rising order; neighbours do. A point is 3 * memory + sequence.
TEST(WhatIf, Changes_AreWhereNeighboursAlongNumbersDiffer) {
  WhatIf w = question();
  w.settings = {parse_setting("memory_GiB=76,12,0.01"), parse_setting("sequence=4096,512,65536")};
  const auto outcomes = run_what_if(w);
  const auto changes = find_changes(w, outcomes);
  const auto way = [&](std::size_t i) -> std::string {
    if (!outcomes[i].plan) return name(outcomes[i].status);
    const Plan& p = *outcomes[i].plan;
    std::string text = p.schedule.name + std::string(to_string(p.job.recompute));
    for (const int size : {p.layout.tp, p.layout.cp, p.layout.pp, p.layout.etp, p.layout.ep})
      text += " " + std::to_string(size);
    return text;
  };
  std::vector<std::pair<std::size_t, std::size_t>> expected, found;
  for (const std::size_t sequence : {0U, 1U, 2U})
    for (const auto& [a, b] : {std::pair<std::size_t, std::size_t>{6, 3}, {3, 0}})  // 0.01 to 12, 12 to 76 GiB
      if (way(a + sequence) != way(b + sequence)) expected.emplace_back(a + sequence, b + sequence);
  for (const std::size_t memory : {0U, 3U, 6U})
    for (const auto& [a, b] : {std::pair<std::size_t, std::size_t>{1, 0}, {0, 2}})  // 512 to 4096, 4096 to 65536
      if (way(memory + a) != way(memory + b)) expected.emplace_back(memory + a, memory + b);
  for (const WhatIfChange& c : changes) {
    found.emplace_back(c.from, c.to);
    EXPECT_TRUE(c.layout || c.algorithm);
  }
  EXPECT_EQ(found, expected);
  EXPECT_GT(found.size(), 3U);
  EXPECT_HAS(what_if_text(w, outcomes), "changes  ");
  EXPECT_HAS(changes.front().text, "memory_GiB 0.01 to 12: infeasible -> TP");
}

// Twice the batch is twice the work: the shorter step is not the better one.
TEST(WhatIf, PointsOfDifferentWork_AreNotComparedByStepTime) {
  WhatIf w = question();
  w.settings = {parse_setting("global_batch=64,128")};
  const std::string text = what_if_text(w, run_what_if(w));
  EXPECT_HAS(text, "tokens a step differ");
  EXPECT_EQ(text.find("fastest"), std::string::npos);
  w.settings = {parse_setting("nic.GBps=25,50")};
  EXPECT_HAS(what_if_text(w, run_what_if(w)), "fastest: ");
}

}  // namespace
}  // namespace topomoe
