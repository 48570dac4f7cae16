// Into how many equal pieces a chain of steps is cut, so that the lanes work beside each other.
//
// Model: each step takes per_piece_s for every piece and whole_s for all of its work, on one lane; piece i of a
// step follows piece i of the step before. A lane issues all pieces of its first step, then of its next: one
// order, equal on all ranks. Forward and backward are two chains, each with its own number.
// Ignored here: resources that lanes share. Whoever knows them hands in its own price; the choice only asks it.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "planner/timeline.hpp"
#include "topomoe/device.hpp"

namespace topomoe {

struct PieceStep {
  Lane lane = Lane::compute;
  double per_piece_s = 0, whole_s = 0;  // one of r pieces takes per_piece_s + whole_s / r
};

// The chain in r pieces as tasks of a timeline, in issue order: step by step, piece by piece.
std::vector<Task> piece_tasks(std::span<const PieceStep> chain, int pieces);
// End of the last of them, lanes apart from each other.
double time_in_pieces(std::span<const PieceStep> chain, int pieces);

// sqrt(work of the other lanes / cost per piece of the slowest lane): where one more piece costs the slowest lane
// what it saves at the ends of the chain. At least 1; the largest double where pieces are free.
double first_guess_of_pieces(std::span<const PieceStep> chain);

struct PieceChoice {
  int pieces = 1;
  double seconds = 0;
  int priced = 0;  // how many numbers were tried
};
// The best number from 1 to most: from the first guess down the price, over ever smaller steps. Throws InvalidInput
// for most < 1. price: seconds of the whole in r pieces; called once a number.
PieceChoice choose_pieces(std::span<const PieceStep> chain, int most, const std::function<double(int)>& price);

}  // namespace topomoe
