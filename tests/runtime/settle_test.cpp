// Copies and capacity, by hand.

#include "runtime/settle.hpp"

#include <gtest/gtest.h>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Ids = std::vector<std::int32_t>;

struct Settled {
  Ids ids;
  std::int64_t dropped;
};
Settled settled(Ids ids, const LayerShape& shape, const ExpertPlacement& placement) {
  std::vector<std::int64_t> used;
  const std::int64_t dropped = settle(ids, shape, placement, used);
  return {ids, dropped};
}

TEST(Placement, EvenBlocks_AreTheDefault) {
  const ExpertPlacement p(6, 3);
  EXPECT_EQ(p.copies(), 6);
  EXPECT_FALSE(p.replicated());
  for (int e = 0; e < 6; ++e) {
    EXPECT_EQ(p.place_of(e), e / 2);
    EXPECT_EQ(p.index_at_place(e), e % 2);
    EXPECT_EQ(p.copy_for(e, 17), e);
  }
  EXPECT_THROW(ExpertPlacement(5, 3), InvalidInput);
}

// Expert 0 on place 2, 1 on 2 and 0, 2 on 0: place 1 has none. Copies 0 | 1, 2 | 3.
TEST(Placement, UnevenWithReplicas_EachPlaceHoldsItsOwnById) {
  const ExpertPlacement p(3, 3, {{2}, {2, 0}, {0}});
  EXPECT_EQ(p.copies(), 4);
  EXPECT_TRUE(p.replicated());
  const auto held = [&](int place) {
    const auto copies = p.held_by(place);
    return std::vector<int>(copies.begin(), copies.end());
  };
  EXPECT_EQ(held(0), (std::vector{2, 3}));
  EXPECT_EQ(held(1), std::vector<int>());
  EXPECT_EQ(held(2), (std::vector{0, 1}));
  EXPECT_EQ(p.index_at_place(3), 1);
  EXPECT_EQ(p.expert_of(2), 1);
  EXPECT_EQ(p.copy_for(1, 6), 1);  // replicas take turns
  EXPECT_EQ(p.copy_for(1, 7), 2);
}

TEST(Placement, OwnersThatAreNone_AreRefusedByName) {
  const auto refused = [](const ExpertOwners& owners) {
    try {
      ExpertPlacement(2, 2, owners);
    } catch (const InvalidInput& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  EXPECT_NE(refused({{0}}).find("expert_owners: 1 owners"), std::string::npos);
  EXPECT_NE(refused({{0}, {}}).find("expert_owners[1]: nobody"), std::string::npos);
  EXPECT_NE(refused({{0}, {2}}).find("expert_owners[1]: 2"), std::string::npos);
  EXPECT_NE(refused({{-1}, {1}}).find("expert_owners[0]: -1"), std::string::npos);
  EXPECT_NE(refused({{0}, {1, 0, 1}}).find("expert_owners[1]: 1 twice"), std::string::npos);
  EXPECT_EQ(refused({{1}, {1}}), "accepted");
}

TEST(Settle, WithoutReplicasAndCapacity_ChangesNothing) {
  const LayerShape shape{.experts = 4, .top_k = 2};
  const ExpertPlacement p(4, 2);
  EXPECT_FALSE(settles(shape, p));
  const Settled s = settled({0, 3, 2, 1}, shape, p);
  EXPECT_EQ(s.ids, (Ids{0, 3, 2, 1}));
  EXPECT_EQ(s.dropped, 0);
}

// Copies 0 | 1, 2 | 3: tokens 0 and 2 take expert 1's first replica, token 1 its second.
TEST(Settle, Replicas_TakeTurnsByToken) {
  const LayerShape shape{.experts = 3, .top_k = 2};
  const ExpertPlacement p(3, 2, {{1}, {1, 0}, {0}});
  ASSERT_TRUE(settles(shape, p));
  EXPECT_EQ(settled({1, 0, 2, 1, 1, 2}, shape, p).ids, (Ids{1, 0, 3, 2, 1, 3}));
}

// 4 tokens, top 2 of 4 experts, factor 1: room for ceil(1 * 2 * 4 / 4) = 2 each. First choices 0 0 0 1: token 2 finds
// expert 0 full. Second choices 1 1 2 0: expert 1 has one, takes token 0, not token 1; expert 0 is still full.
TEST(Settle, Capacity_FirstChoicesComeFirstThenByToken) {
  const LayerShape shape{.experts = 4, .top_k = 2, .capacity_factor = 1};
  const ExpertPlacement p(4, 2);
  EXPECT_EQ(capacity(shape, 4), 2);
  const Settled s = settled({0, 1, 0, 1, 0, 2, 1, 0}, shape, p);
  EXPECT_EQ(s.ids, (Ids{0, 1, 0, ~1, ~0, 2, 1, ~0}));
  EXPECT_EQ(s.dropped, 3);
}

TEST(Settle, CapacityIsRoundedUp_AndOfNoTokensNothing) {
  const LayerShape shape{.experts = 4, .top_k = 1, .capacity_factor = 1.25};
  EXPECT_EQ(capacity(shape, 5), 2);  // 1.25 * 5 / 4 = 1.56
  EXPECT_EQ(settled({}, shape, ExpertPlacement(4, 2)).dropped, 0);
}

TEST(Settle, BackAgain_NamesTheExpertsThatWereChosen) {
  const LayerShape shape{.experts = 3, .top_k = 2, .capacity_factor = 0.5};
  const ExpertPlacement p(3, 2, {{1}, {1, 0}, {0}});
  const Ids chosen{1, 0, 2, 1, 1, 2, 1, 0};
  Settled s = settled(chosen, shape, p);
  EXPECT_GT(s.dropped, 0);
  unsettle(s.ids, p);
  EXPECT_EQ(s.ids, chosen);
}

TEST(Settle, IdOfNoExpert_Throws) {
  const LayerShape shape{.experts = 3, .top_k = 1};
  for (const std::int32_t wrong : {3, -1})
    EXPECT_THROW(settled({0, wrong}, shape, ExpertPlacement(3, 1)), std::logic_error) << wrong;
}

}  // namespace
}  // namespace topomoe
