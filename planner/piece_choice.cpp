#include "planner/piece_choice.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <string>

#include "topomoe/error.hpp"

namespace topomoe {

std::vector<Task> piece_tasks(std::span<const PieceStep> chain, int pieces) {
  std::vector<Task> tasks;
  for (std::size_t step = 0; step < chain.size(); ++step)
    for (int piece = 0; piece < pieces; ++piece) {
      Task t;
      t.lane = chain[step].lane;
      t.alone_s = chain[step].per_piece_s + chain[step].whole_s / pieces;
      if (step > 0) t.after = {static_cast<int>(tasks.size()) - pieces};
      tasks.push_back(std::move(t));
    }
  return tasks;
}

double time_in_pieces(std::span<const PieceStep> chain, int pieces) {
  double end = 0;
  for (const Interval& i : run_timeline(piece_tasks(chain, pieces), 0)) end = std::max(end, i.end_s);
  return end;
}

double first_guess_of_pieces(std::span<const PieceStep> chain) {
  std::array<double, kLaneCount> cost{}, work{};
  double all = 0;
  for (const PieceStep& s : chain) {
    cost[static_cast<std::size_t>(s.lane)] += s.per_piece_s;
    work[static_cast<std::size_t>(s.lane)] += s.whole_s;
    all += s.whole_s;
  }
  std::size_t slowest = 0;
  for (std::size_t lane = 1; lane < kLaneCount; ++lane)
    if (cost[lane] + work[lane] > cost[slowest] + work[slowest]) slowest = lane;
  const double others = all - work[slowest];
  if (others <= 0) return 1;
  if (cost[slowest] <= 0) return std::numeric_limits<double>::max();
  return std::max(1.0, std::sqrt(others / cost[slowest]));
}

PieceChoice choose_pieces(std::span<const PieceStep> chain, int most, const std::function<double(int)>& price) {
  if (most < 1) throw InvalidInput("most pieces", std::to_string(most), "at least 1");
  std::map<int, double> known;
  const auto priced = [&](int pieces) {
    const auto [at, fresh] = known.try_emplace(pieces);
    if (fresh) at->second = price(pieces);
    return at->second;
  };
  const double guess = std::min(first_guess_of_pieces(chain), static_cast<double>(most));
  int best = static_cast<int>(std::lround(guess));
  double least = priced(best);
  const auto look = [&](int pieces) {
    pieces = std::clamp(pieces, 1, most);
    if (!(priced(pieces) < least)) return false;
    best = pieces, least = priced(pieces);
    return true;
  };
  look(1);  // a small layer that is best left whole
  // The price falls, then rises, but for steps where a lane's idle time closes: strides leap over those.
  for (int stride = std::max(1, best / 2); stride >= 1; stride /= 2)
    while (look(best - stride) || look(best + stride)) {
    }
  return {best, least, static_cast<int>(known.size())};
}

}  // namespace topomoe
