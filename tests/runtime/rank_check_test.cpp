// Places of ranks against the plan's, with host names that are made up.

#include "topomoe/rank_check.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "topomoe/communicator_inproc.hpp"
#include "topomoe/error.hpp"

namespace topomoe::testing {
namespace {

// Four ranks on two hosts.
Plan plan_of(const std::vector<PlannedRank>& ranks = {{"host0", "a"}, {"host0", "b"}, {"host1", "a"}, {"host1", "b"}}) {
  Plan p;
  p.ranks = ranks;
  return p;
}
std::vector<RankPlace> on(const std::vector<std::string>& hosts, const std::vector<std::string>& bus_ids = {}) {
  std::vector<RankPlace> places;
  for (std::size_t r = 0; r < hosts.size(); ++r)
    places.push_back({hosts[r], bus_ids.empty() ? "" : bus_ids[r], "0123456789abcdef"});
  return places;
}
using Lines = std::vector<std::string>;
using Order = std::vector<int>;

TEST(RankCheck, RanksInTheirGroups_FitWhateverHostsAreCalled) {
  for (const auto& hosts : {Lines{"x", "x", "y", "y"}, Lines{"host1", "host1", "n7", "n7"}}) {
    const RankCheck c = compare_ranks(plan_of(), on(hosts, {"a", "b", "", "b"}));
    if (hosts[0] == "x") {
      EXPECT_EQ(c.mismatches, Lines{});
      EXPECT_EQ(c.order, (Order{0, 1, 2, 3}));
    } else {  // the name of a host at hand is meant
      EXPECT_EQ(c.mismatches.size(), 4U);
      EXPECT_EQ(c.order, (Order{2, 3, 0, 1}));
    }
    EXPECT_FALSE(c.plans_differ);
  }
}

// Dealt round robin: ranks 0 and 2 are on x, 1 and 3 on y. host0 has rank 0 in place on x, and rank 1 on y: the first
// of equals is x.
TEST(RankCheck, RoundRobin_IsToldAndPutRight) {
  const RankCheck c = compare_ranks(plan_of(), on({"x", "y", "x", "y"}));
  EXPECT_EQ(c.mismatches, (Lines{"rank 1 is on y, planned on host0, which is x",
                                 "rank 2 is on x, planned on host1, "
                                 "which is y"}));
  EXPECT_EQ(c.order, (Order{0, 2, 1, 3}));
  EXPECT_EQ(c.planned_rank(2), 1);
  EXPECT_EQ(c.planned_rank(1), 2);
  EXPECT_EQ(c.planned_rank(3), 3);
}

TEST(RankCheck, DevicesOfAHostSwapped_AreToldAndPutRight) {
  const RankCheck c = compare_ranks(plan_of(), on({"x", "x", "y", "y"}, {"b", "a", "a", "b"}));
  EXPECT_EQ(c.mismatches, (Lines{"rank 0 has device b, planned a", "rank 1 has device a, planned b"}));
  EXPECT_EQ(c.order, (Order{1, 0, 2, 3}));
}

TEST(RankCheck, OtherNumbersOfRanks_HaveNoOrder) {
  const RankCheck c = compare_ranks(plan_of(), on({"x", "x", "x", "y"}));
  EXPECT_EQ(c.mismatches, (Lines{"rank 2 is on x, planned on host1, which is y",
                                 "no order of the ranks fits: hosts hold 3, 1 of them, planned 2, 2"}));
  EXPECT_EQ(c.order, Order{});
  EXPECT_EQ(c.planned_rank(0), -1);
  EXPECT_EQ(compare_ranks(plan_of(), on({"x", "x", "x", "x"})).order, Order{});
  EXPECT_EQ(compare_ranks(plan_of(), on({"x", "x", "y", "z"})).order, Order{});
  EXPECT_THROW(compare_ranks(plan_of(), on({"x", "x"})), InvalidInput);
}

TEST(RankCheck, AnotherPlan_IsToldByHash) {
  auto places = on({"x", "x", "y", "y"});
  places[3].plan = "fedcba9876543210";
  const RankCheck c = compare_ranks(plan_of(), places);
  EXPECT_TRUE(c.plans_differ);
  EXPECT_EQ(c.mismatches, (Lines{"rank 3 has plan fedcba9876543210, rank 0 0123456789abcdef"}));
}

TEST(RankCheck, OverACommunicator_AllRanksHearTheSame) {
  const std::string hosts[] = {"x", "y", "x", "y"};
  run_inproc(4, [&](Communicator& c) {
    Plan plan = plan_of();
    if (c.rank() == 2) plan.model.name = "another";
    const RankCheck check = check_ranks(plan, c, "", hosts[c.rank()]);
    EXPECT_TRUE(check.plans_differ);
    EXPECT_EQ(check.mismatches.size(), 3U);  // two places and a plan
    EXPECT_EQ(check.order, (Order{0, 2, 1, 3}));
    EXPECT_FALSE(check_ranks(plan_of(), c).ranks[0].host.empty());  // this machine's
  });
}

}  // namespace
}  // namespace topomoe::testing
