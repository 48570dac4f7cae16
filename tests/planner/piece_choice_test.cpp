// Numbers of pieces: hand arithmetic, and the choice against every number tried.
#include "planner/piece_choice.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

std::vector<PieceStep> moe_layer(double exchange_s, double gather_s, double experts_s, double per_piece_s) {
  return {{Lane::inter_node, per_piece_s, exchange_s},
          {Lane::intra_node, per_piece_s, gather_s},
          {Lane::compute, per_piece_s, experts_s},
          {Lane::intra_node, per_piece_s, gather_s},
          {Lane::inter_node, per_piece_s, exchange_s}};
}

TEST(Pieces, TwoStepsOverlap_ButForTheEnds) {
  // 8 s each on two lanes in 4 pieces of 2 s + 0.5 s: the second lane starts after 2.5 s and works 4 x 2.5 s.
  const std::vector<PieceStep> chain{{Lane::intra_node, 0.5, 8}, {Lane::compute, 0.5, 8}};
  EXPECT_DOUBLE_EQ(time_in_pieces(chain, 4), 12.5);
  EXPECT_DOUBLE_EQ(time_in_pieces(chain, 1), 17);
}

TEST(Pieces, ALaneFinishesAStepBeforeItStartsTheNext) {
  // Pieces of 1 s on one lane: a1 a2 b1 b2, and c between them on another: b1 waits for a2, not for c1.
  const std::vector<PieceStep> chain{{Lane::inter_node, 0, 2}, {Lane::compute, 0, 1}, {Lane::inter_node, 0, 2}};
  EXPECT_DOUBLE_EQ(time_in_pieces(chain, 2), 4);
}

TEST(FirstGuess, BalancesOthersWorkAgainstTheSlowestLanesCost) {
  // Slowest: inter-node, 2 x (0.5 + 8) s; the others' work is 4 + 2 x 2 = 8 s; sqrt(8 / 1) = 2.83.
  EXPECT_DOUBLE_EQ(first_guess_of_pieces(moe_layer(8, 2, 4, 0.5)), std::sqrt(8.0));
  EXPECT_EQ(first_guess_of_pieces(std::vector<PieceStep>{{Lane::compute, 1, 9}}), 1);  // nobody to overlap with
  EXPECT_GT(first_guess_of_pieces(moe_layer(8, 2, 4, 0)), 1e9);                        // pieces are free
}

TEST(ChoosePieces, StaysInBounds_AndAsksEachNumberOnce) {
  std::multiset<int> asked;
  const auto price = [&](int r) {
    asked.insert(r);
    return 10.0 / r + r;
  };
  const auto chain = moe_layer(8, 2, 4, 0);
  EXPECT_EQ(choose_pieces(chain, 2, price).pieces, 2);  // the guess is beyond, the best at sqrt(10)
  asked.clear();
  const PieceChoice free = choose_pieces(chain, 1000, price);
  EXPECT_EQ(free.pieces, 3);  // 10/3 + 3 = 6.33; 4 gives 6.5
  EXPECT_EQ(free.priced, static_cast<int>(asked.size()));
  for (const int r : asked) EXPECT_EQ(asked.count(r), 1u) << r;
  EXPECT_LT(free.priced, 40);
  EXPECT_THROW(choose_pieces(chain, 0, price), InvalidInput);
}

TEST(ChoosePieces, WithinOnePercentOfEveryNumberTried) {
  std::mt19937 random(3);
  std::uniform_real_distribution<double> decade(-2, 1);
  const auto draw = [&](double scale) { return scale * std::pow(10.0, decade(random)); };
  int priced = 0;
  for (int i = 0; i < 300; ++i) {
    std::vector<PieceStep> chain;
    for (const Lane lane : {Lane::inter_node, Lane::intra_node, Lane::compute, Lane::intra_node, Lane::inter_node})
      chain.push_back({lane, draw(0.1), draw(1)});
    const auto price = [&](int r) { return time_in_pieces(chain, r); };
    const PieceChoice choice = choose_pieces(chain, 48, price);
    EXPECT_EQ(choice.seconds, price(choice.pieces));
    double best = choice.seconds;
    for (int r = 1; r <= 48; ++r) best = std::min(best, price(r));
    EXPECT_LE(choice.seconds, 1.01 * best) << "case " << i << ", " << choice.pieces << " pieces";
    priced += choice.priced;
  }
  EXPECT_LT(priced, 300 * 16);  // of 48 each
}

TEST(Pieces, NeverFasterThanTheBusiestLane_NorThanOnePieceThroughTheChain) {
  std::mt19937 random(4);
  std::uniform_real_distribution<double> work(0, 3);
  for (int i = 0; i < 100; ++i) {
    const auto chain = moe_layer(work(random), work(random), work(random), 0.1 * work(random));
    for (const int r : {1, 3, 8}) {
      std::array<double, kLaneCount> lanes{};
      double through = 0;
      for (const PieceStep& s : chain) {
        lanes[static_cast<std::size_t>(s.lane)] += r * s.per_piece_s + s.whole_s;
        through += s.per_piece_s + s.whole_s / r;
      }
      const double least = std::max(through, *std::max_element(lanes.begin(), lanes.end()));
      EXPECT_GE(time_in_pieces(chain, r), least * (1 - 1e-9));
    }
  }
}

}  // namespace
}  // namespace topomoe
