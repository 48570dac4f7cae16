#include "planner/gradient_slack.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using TimeOf = std::function<double(double)>;

struct Send {
  double begin_s = 0, end_s = 0, bytes = 0;
};

// What is there for a window: at(0) when it opens, later pieces as they come.
struct Arrival {
  double at_s = 0, bytes = 0;
};

std::vector<Send> greedy(const Interval& window, std::span<const Arrival> arrivals, const TimeOf& time_s) {
  std::vector<Send> sends;
  double now = window.begin_s, there = 0;
  for (std::size_t next = 0;;) {
    while (next < arrivals.size() && arrivals[next].at_s <= now) there += arrivals[next++].bytes;
    if (there > 0) {
      const double bytes = bytes_in(window.end_s - now, there, time_s);
      if (bytes <= 0) return sends;
      sends.push_back({now, now + time_s(bytes), bytes});
      now = sends.back().end_s, there -= bytes;
    } else if (next < arrivals.size()) {
      now = arrivals[next].at_s;
    } else {
      return sends;
    }
  }
}

// The sends that leave least: free[j] is when the lane can be free with all of the first j arrivals sent; a last
// send, cut by the end of the window, follows the best of them.
std::vector<Send> fewest_left(const Interval& window, std::span<const Arrival> arrivals, const TimeOf& time_s) {
  const std::size_t n = arrivals.size();
  constexpr double kNever = std::numeric_limits<double>::infinity();
  std::vector<double> free(n + 1, kNever), sum(n + 1, 0);
  std::vector<std::size_t> from(n + 1, 0);
  free[0] = window.begin_s;
  for (std::size_t j = 0; j < n; ++j) sum[j + 1] = sum[j] + arrivals[j].bytes;
  const auto start = [&](std::size_t i, std::size_t j) { return std::max(free[i], arrivals[j - 1].at_s); };
  double most = 0;
  std::size_t last_from = 0, last_to = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (free[i] == kNever) continue;
    for (std::size_t j = i + 1; j <= n; ++j) {
      const double begin = start(i, j), bytes = sum[j] - sum[i];
      if (begin >= window.end_s) break;
      if (const double end = begin + time_s(bytes); end <= window.end_s && end < free[j]) free[j] = end, from[j] = i;
      const double sent = sum[i] + bytes_in(window.end_s - begin, bytes, time_s);
      if (sent > most) most = sent, last_from = i, last_to = j;
    }
  }
  std::vector<Send> sends;
  if (last_to == 0) return sends;
  for (std::size_t j = last_to, i = last_from; j > 0; j = i, i = from[j]) {
    const double begin = start(i, j);
    const double bytes = j == last_to ? most - sum[i] : sum[j] - sum[i];
    sends.push_back({begin, begin + time_s(bytes), bytes});
  }
  std::reverse(sends.begin(), sends.end());
  return sends;
}

using Place = std::vector<Send> (*)(const Interval&, std::span<const Arrival>, const TimeOf&);

// Fills windows in order; pieces leave in order of readiness.
SlackPlan fill(std::span<const Interval> windows, std::span<const GradientPiece> pieces,
               const std::vector<std::size_t>& order, const TimeOf& time_s, Place place) {
  SlackPlan plan;
  std::vector<double> left;
  for (const std::size_t p : order) left.push_back(pieces[p].bytes);
  std::size_t first = 0;  // of the pieces not all sent
  for (std::size_t w = 0; w < windows.size(); ++w) {
    std::vector<Arrival> arrivals;
    for (std::size_t i = first; i < order.size() && pieces[order[i]].ready_s < windows[w].end_s; ++i) {
      const double at = std::max(pieces[order[i]].ready_s, windows[w].begin_s);
      if (!arrivals.empty() && arrivals.back().at_s == at)
        arrivals.back().bytes += left[i];
      else
        arrivals.push_back({at, left[i]});
    }
    for (const Send& send : place(windows[w], arrivals, time_s)) {
      SlackOperation op{static_cast<int>(w), send.begin_s, send.end_s, send.bytes, {}};
      for (double open = send.bytes; open > 0 && first < order.size();) {
        const double take = std::min(open, left[first]);
        if (take > 0) op.parts.emplace_back(static_cast<int>(order[first]), take);
        open -= take, left[first] -= take;
        if (left[first] <= 0) ++first;
      }
      plan.hidden_bytes += send.bytes;
      plan.operations.push_back(std::move(op));
    }
  }
  plan.exposed_bytes = std::accumulate(left.begin(), left.end(), 0.0);
  plan.exposed_s = plan.exposed_bytes > 0 ? time_s(plan.exposed_bytes) : 0;
  return plan;
}

}  // namespace

double bytes_in(double seconds, double most_bytes, const TimeOf& time_s) {
  if (seconds <= 0 || most_bytes <= 0) return 0;
  if (time_s(most_bytes) <= seconds) return most_bytes;
  double fits = 1, too_many = std::ceil(most_bytes);
  double fits_s = time_s(fits), too_many_s = time_s(too_many);
  if (too_many <= 1 || fits_s > seconds) return 0;
  // Times are nearly lines: look where a line would end, and from then on twice as far beyond the end that came nearer,
  // so that the other one comes near too; now and then in the middle.
  bool rose = false, fell = false;
  for (int i = 1; too_many - fits > 1; ++i) {
    const double share = (seconds - fits_s) / (too_many_s - fits_s), all = too_many - fits;
    double guess = fits + share * all;
    if (rose) guess = fits + 2 * share * all;
    if (fell) guess = too_many - 2 * (1 - share) * all;
    if (i % 4 == 0) guess = fits + all / 2;
    guess = std::clamp(std::floor(guess), fits + 1, too_many - 1);
    const double guess_s = time_s(guess);
    rose = guess_s <= seconds, fell = !rose;
    rose ? (fits = guess, fits_s = guess_s) : (too_many = guess, too_many_s = guess_s);
  }
  return fits;
}

std::vector<Interval> idle_windows(std::span<const Interval> busy, double begin_s, double end_s) {
  std::vector<Interval> idle;
  double now = begin_s;
  for (const Interval& b : busy) {
    if (b.begin_s > now) idle.push_back({now, std::min(b.begin_s, end_s)});
    now = std::max(now, b.end_s);
    if (now >= end_s) return idle;
  }
  if (now < end_s) idle.push_back({now, end_s});
  return idle;
}

SlackPlan place_gradients(std::span<const Interval> windows, std::span<const GradientPiece> pieces,
                          const TimeOf& time_s) {
  for (std::size_t w = 0; w < windows.size(); ++w)
    if (!std::isfinite(windows[w].begin_s) || !std::isfinite(windows[w].end_s) ||
        windows[w].end_s < windows[w].begin_s || (w > 0 && windows[w].begin_s < windows[w - 1].end_s))
      throw InvalidInput("slack window " + std::to_string(w),
                         std::to_string(windows[w].begin_s) + " to " + std::to_string(windows[w].end_s) + " s",
                         "finite, apart from each other, in order of time");
  for (std::size_t p = 0; p < pieces.size(); ++p)
    if (!std::isfinite(pieces[p].bytes) || !std::isfinite(pieces[p].ready_s) || pieces[p].bytes < 0)
      throw InvalidInput("gradient piece " + std::to_string(p), std::to_string(pieces[p].bytes) + " bytes",
                         "finite and not negative");
  std::vector<std::size_t> order(pieces.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return pieces[a].ready_s < pieces[b].ready_s; });
  std::erase_if(order, [&](std::size_t p) { return pieces[p].bytes <= 0; });
  const SlackPlan first = fill(windows, pieces, order, time_s, greedy);
  if (first.exposed_bytes <= 0) {
    SlackPlan plan = first;
    plan.greedy_exposed_s = 0;
    return plan;
  }
  SlackPlan plan = fill(windows, pieces, order, time_s, fewest_left);
  plan.greedy_exposed_s = first.exposed_s;
  return plan;
}

}  // namespace topomoe
