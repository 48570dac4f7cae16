// Where mpirun puts ranks, and what run and bench make of it.

#include <nlohmann/json.hpp>

#include "tests/cli/command.hpp"

namespace topomoe::testing {
namespace {

#ifdef TOPOMOE_MPIEXEC
using nlohmann::json;

// Small enough for sanitizers.
const std::string kSmall = " --shrink hidden=32,ffn=64,tokens=40 ";

// Four ranks on two hosts that are named here: the plan has ranks 0 and 1 on one, 2 and 3 on the other.
struct PlacedRun : Command {
  void SetUp() override {
    Command::SetUp();
    write_cluster("cluster.json");
    const Said planned = topomoe(kPlan + "-o plan.json");
    ASSERT_EQ(planned.code, 0) << planned.err;
  }
  Said on(const std::vector<std::string>& hosts, const std::string& command) {
    std::vector<std::pair<int, std::string>> ranks;
    for (const std::string& host : hosts) ranks.emplace_back(1, command + " --backend mpi --host " + host);
    return mpirun(ranks);
  }
  Said on_hosts(const std::vector<std::string>& hosts, const std::string& arguments) {
    return on(hosts, "run plan.json --cluster cluster.json --verify --format json" + kSmall + arguments);
  }
  Said bench(const std::vector<std::string>& hosts, const std::string& arguments) {
    return on(hosts, "bench moe-layer --plan plan.json --repeat 1 --format json" + kSmall + arguments);
  }
  const std::string kPlan =
      "plan --cluster cluster.json --model $models/mixtral-8x7b.json --fix tp=1,ep=4 --micro-batch 1 --global-batch 16 "
      "--memory-GiB 2000 ";
};
using Hosts = std::vector<std::string>;

TEST_F(PlacedRun, RanksInPlace_NeedNoWord) {
  const Said said = on_hosts({"x", "x", "y", "y"}, "--remap");
  ASSERT_EQ(said.code, 0) << said.err;
  EXPECT_EQ(said.err.find("topomoe"), std::string::npos) << said.err;
  EXPECT_FALSE(json::parse(said.out).at("remapped").get<bool>());
}

// Dealt round robin.
TEST_F(PlacedRun, RanksElsewhere_AreToldAndRemapped) {
  const Hosts dealt{"x", "y", "x", "y"};
  const std::string wrong = "rank 1 is on y, planned on host0, which is x";
  const Said told = on_hosts(dealt, "");
  ASSERT_EQ(told.code, 0) << told.err;
  EXPECT_NE(told.err.find("topomoe: warning: " + wrong), std::string::npos) << told.err;
  EXPECT_NE(told.err.find("--remap"), std::string::npos) << told.err;
  const json as_is = json::parse(told.out);
  EXPECT_EQ(as_is.at("hosts").get<Hosts>(), dealt);
  EXPECT_EQ(as_is.at("mismatches").size(), 2U);
  EXPECT_EQ(as_is.at("mismatches")[0], wrong);

  const Said said = on_hosts(dealt, "--remap");
  ASSERT_EQ(said.code, 0) << said.err;
  const json r = json::parse(said.out);
  EXPECT_TRUE(r.at("remapped").get<bool>());
  EXPECT_EQ(r.at("hosts").get<Hosts>(), (Hosts{"x", "x", "y", "y"}));
  EXPECT_TRUE(r.at("bytes_agree").get<bool>());
  EXPECT_EQ(r.at("payload"), as_is.at("payload"));
}

TEST_F(PlacedRun, NoOrderFits_IsRefusedOnce) {
  const Said said = on_hosts({"x", "x", "x", "y"}, "--remap");
  EXPECT_EQ(said.code, 1);
  const std::string line = "topomoe: --remap: no order of the ranks fits: hosts hold 3, 1 of them, planned 2, 2";
  const auto first = said.err.find(line);
  EXPECT_NE(first, std::string::npos) << said.err;
  EXPECT_EQ(said.err.find("topomoe: ", first + 1), std::string::npos) << said.err;
}

TEST_F(PlacedRun, AnotherPlan_IsNamedByRank) {
  ASSERT_EQ(topomoe(kPlan + "--chunks 2 -o other.json").code, 0);
  const Said said = mpirun({{3, "run plan.json --backend mpi" + kSmall}, {1, "run other.json --backend mpi" + kSmall}});
  EXPECT_EQ(said.code, 2);
  EXPECT_NE(said.err.find("topomoe: warning: rank 3 has plan "), std::string::npos) << said.err;
  EXPECT_NE(said.err.find("topomoe: plan: not the same on all ranks"), std::string::npos) << said.err;
}

// The same check, the same words.
TEST_F(PlacedRun, Bench_AsksWhereRanksAre) {
  const Said there = bench({"x", "x", "y", "y"}, "");
  ASSERT_EQ(there.code, 0) << there.err;
  EXPECT_EQ(there.err.find("topomoe"), std::string::npos) << there.err;
  const Hosts dealt{"x", "y", "x", "y"};
  const Said told = bench(dealt, "--cluster cluster.json");
  ASSERT_EQ(told.code, 0) << told.err;
  EXPECT_NE(told.err.find("topomoe: warning: rank 1 is on y, planned on host0, which is x"), std::string::npos)
      << told.err;
  EXPECT_NE(told.err.find("--remap"), std::string::npos) << told.err;
  const Said mended = bench(dealt, "--remap");
  ASSERT_EQ(mended.code, 0) << mended.err;
  EXPECT_NE(mended.err.find("topomoe: note: ranks are re-ordered"), std::string::npos) << mended.err;
  EXPECT_EQ(json::parse(mended.out).size(), 2U);
  const Said refused = bench({"x", "x", "x", "y"}, "--remap");
  EXPECT_EQ(refused.code, 1);
  EXPECT_NE(refused.err.find("topomoe: --remap: no order of the ranks fits"), std::string::npos) << refused.err;
}

// Without a cluster the same places are compared, and are notes: where an order fits it is offered, where none does
// that is said once, and --remap refuses alike.
TEST_F(PlacedRun, Rehearsal_ComparesPlacesToo) {
  const auto rehearse = [&](const Hosts& hosts, const std::string& arguments) {
    return on(hosts, "run plan.json --format json" + kSmall + arguments);
  };
  const Said dealt = rehearse({"x", "y", "x", "y"}, "");
  ASSERT_EQ(dealt.code, 0) << dealt.err;
  EXPECT_NE(dealt.err.find("topomoe: note: rank 1 is on y"), std::string::npos) << dealt.err;
  EXPECT_NE(dealt.err.find("topomoe: note: --remap"), std::string::npos) << dealt.err;
  EXPECT_EQ(dealt.err.find("warning"), std::string::npos) << dealt.err;
  const Said mended = rehearse({"x", "y", "x", "y"}, "--remap");
  ASSERT_EQ(mended.code, 0) << mended.err;
  EXPECT_TRUE(json::parse(mended.out).at("remapped").get<bool>());
  const Said one = rehearse({"x", "x", "x", "x"}, "");
  ASSERT_EQ(one.code, 0) << one.err;
  const std::string line =
      "this rehearsal is not placed as planned: no order of the ranks fits: hosts hold 4 of them, ";
  EXPECT_NE(one.err.find(line), std::string::npos) << one.err;
  EXPECT_EQ(one.err.find("rank 2 is on"), std::string::npos) << one.err;
  EXPECT_EQ(rehearse({"x", "x", "x", "x"}, "--remap").code, 1);
}
#else
TEST(Placement, NeedsMpi) { GTEST_SKIP() << "built without MPI"; }
#endif

}  // namespace
}  // namespace topomoe::testing
