#include "runtime/profile.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "kernels/gather_rows.hpp"
#include "runtime/bench.hpp"
#include "runtime/host_exchange.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Clock = std::chrono::steady_clock;
using Index = std::size_t;

constexpr Index kLeastBytes = 64;
// Sizes double from here on, and quadruple below, where curves are flat: between knots a sum of a latency and a flow is
// then drawn at most 2% too high. Where even those take long, packets are what costs, and curves have steps: they
// double.
constexpr Index kDoubling = 16 << 10;
constexpr double kFlat_us = 2e3;
// Of a shape's share of the time: what its longest operation takes, so that two rounds and the warm-up fit.
constexpr double kLongestShare = 1.0 / 30;
constexpr double kMostLongest_us = 150e3;
// Operations in a row. Short ones differ most from one alone, either way: a shaper lets a burst pass after a pause;
// long ones by a share, since ranks that are done early go on (5% among 16 ranks on 4 hosts). So all short sizes are
// timed, and one long one.
constexpr double kRowLongest_us = 8e3;
constexpr double kLongRowShare = 2;  // of the longest operation alone: what the long row may take
constexpr int kInARow = 4, kManyInARow = 8;
constexpr double kManyLongest_us = 3e3;
constexpr double kFlows_us = 2e3, kMostGrowth = 2.1;
constexpr double kUnequal = 0.06;
constexpr int kLeastRounds = 2, kMostRounds = 31;

Index least_bytes(const ProfileShape& s) { return std::max<Index>(kLeastBytes, static_cast<Index>(4 * s.ranks)); }

// One operation of one size, alone or several in a row.
struct Point {
  Index shape, bytes;
  int in_a_row = 1;
  bool seldom = false;  // long, and hardly scattered: every other round does
  double warm_us = 0;   // of all ranks' slowest
  std::vector<double> times_us;
};

class Profiler {
 public:
  Profiler(const std::vector<ProfileShape>& shapes, const ProfileBudget& budget, Communicator& c, Device& device)
      : shapes_(shapes), budget_(budget), c_(c), host_(c), device_(device) {
    for (const ProfileShape& s : shapes_) {
      std::vector<int> members;
      const int mine = s.group_of[static_cast<Index>(c_.rank())];
      for (int r = 0; r < c_.size(); ++r)
        if (s.group_of[static_cast<Index>(r)] == mine) members.push_back(r);
      channels_.push_back(c_.open_channel(members));
      place_.push_back(std::find(members.begin(), members.end(), c_.rank()) - members.begin());
    }
    const Index memory = budget_.most_bytes + budget_.most_bytes / 8;
    send_ = device_.allocate(memory), receive_ = device_.allocate(memory);
    device_.zero(Lane::compute, send_.get(), memory), device_.zero(Lane::compute, receive_.get(), memory);
  }

  std::optional<std::vector<CalibrationCurve>> run() {
    const auto begin = Clock::now();
    choose_points();
    const double left = budget_.seconds - agreed(std::chrono::duration<double>(Clock::now() - begin).count());
    double round_us = 0;
    for (const Point& p : points_) round_us += p.warm_us * p.in_a_row * (p.seldom ? 0.5 : 1);
    const int rounds = std::clamp(static_cast<int>(left * 1e6 / std::max(1.0, round_us)), kLeastRounds, kMostRounds);
    for (int round = 0; round < rounds; ++round)
      for (Point& p : points_)
        if (!p.seldom || round % 2 == 0) p.times_us.push_back(time_us(p.shape, p.bytes, p.in_a_row));
    std::vector<double> mine;
    for (const Point& p : points_) mine.insert(mine.end(), p.times_us.begin(), p.times_us.end());
    const auto all = host_.gather("gather the times", mine);
    if (c_.rank() != 0) return std::nullopt;
    Index at = 0;
    for (Point& p : points_)
      for (double& t : p.times_us) {
        for (const auto& of_rank : all) t = std::max(t, of_rank[at]);
        ++at;
      }
    return curves();
  }

 private:
  // The longest of all ranks' figures, on all ranks.
  double agreed(double mine) {
    double most = mine;
    for (const auto& of_rank : host_.gather_on_all("agree on a time", {mine})) most = std::max(most, of_rank[0]);
    return most;
  }

  // By sizes upward until one takes too long.
  void choose_points() {
    const double longest =
        std::min(kMostLongest_us, budget_.seconds * 1e6 / static_cast<double>(shapes_.size()) * kLongestShare);
    for (Index s = 0; s < shapes_.size(); ++s) {
      const Index least = least_bytes(shapes_[s]);
      time_us(s, least, 1);  // connections
      double alone = 0;
      Index long_row = 0;  // behind which point; the last that fits
      for (Index bytes = least; bytes <= budget_.most_bytes; bytes *= bytes < kDoubling && alone < kFlat_us ? 4 : 2) {
        alone = agreed(time_us(s, bytes, 1));
        points_.push_back({s, bytes, 1, false, alone, {}});
        const int row = alone < kManyLongest_us ? kManyInARow : kInARow;
        const bool fits = bytes * static_cast<Index>(row) <= budget_.most_bytes;
        if (fits && alone < kRowLongest_us) points_.push_back({s, bytes, row, false, alone, {}});
        if (fits && alone >= kRowLongest_us && alone * row <= kLongRowShare * longest) long_row = points_.size();
        if (alone < longest) continue;
        // One larger, and connections have windows that large before anything is timed.
        if (const Index beyond = std::min(2 * bytes, budget_.most_bytes); beyond > bytes)
          points_.push_back({s, beyond, 1, true, std::max(agreed(time_us(s, beyond, 1)), alone), {}});
        break;
      }
      if (long_row == 0) continue;
      const Point one = points_[long_row - 1];
      points_.insert(points_.begin() + static_cast<std::ptrdiff_t>(long_row),
                     {s, one.bytes, kInARow, true, one.warm_us, {}});
    }
  }

  // Per operation, of this rank.
  double time_us(Index s, Index bytes, int in_a_row) {
    std::vector<EventPtr> events;
    device_.synchronize(Clock::now() + budget_.deadline);
    host_.line_up(budget_.ranks_per_host);
    const auto begin = Clock::now();
    for (int i = 0; i < in_a_row; ++i) events.push_back(start(s, bytes, static_cast<Index>(i)));
    for (const EventPtr& e : events) e->wait(Clock::now() + budget_.deadline);
    return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
  }

  // What place `from` of a group sends to place `to`, where a part is `part`. Messages differ by up to 6%, and their
  // sums over a host do not: those of real routing differ too, and all exactly equal keep step. Then 8 exchanges of 128
  // KiB between two hosts at 200 Mbit, each waiting for the others' rendezvous, take 44 or 97 ms (measured); unequal
  // ones 45.
  Index message(const ProfileShape& shape, int group, int from, int to, Index part) const {
    const int turn = shape.operation == "all_gather" ? 0 : 7 * to;
    const double off = ((5 * group + 3 * from + turn) % 8 - 3.5) / 3.5;
    return static_cast<Index>(static_cast<double>(part) * (1 + kUnequal * off));
  }

  EventPtr start(Index s, Index bytes, Index number) {
    const ProfileShape& shape = shapes_[s];
    const bool gather = shape.operation == "all_gather";
    const int group = shape.group_of[static_cast<Index>(c_.rank())], me = static_cast<int>(place_[s]);
    const Index part = bytes / static_cast<Index>(shape.ranks), stride = part + part / 8;
    const Index begin = number * stride * static_cast<Index>(shape.ranks);
    sends_.clear(), receives_.clear();
    for (int peer = 0; peer < shape.ranks; ++peer) {
      const Index at = begin + static_cast<Index>(peer) * stride;
      std::byte *const from = send_.get() + (gather ? begin : at), *const to = receive_.get() + at;
      if (peer == me) {
        device_.copy(Lane::copy, to, from, part);
        continue;
      }
      sends_.push_back({peer, from, message(shape, group, me, peer, part)});
      receives_.push_back({peer, to, message(shape, group, peer, me, part)});
    }
    return c_.exchange(channels_[s], sends_, receives_,
                       {.step = "profile",
                        .lane = shape.nodes > 1 ? Lane::inter_node : Lane::intra_node,
                        .memory = device_.memory_space()});
  }

  std::vector<CalibrationCurve> curves() const {
    std::vector<CalibrationCurve> out;
    for (Index s = 0; s < shapes_.size(); ++s) {
      CalibrationCurve alone{
          .operation = shapes_[s].operation, .gpus = shapes_[s].ranks, .nodes = shapes_[s].nodes, .dtype = "any"};
      CalibrationCurve row = alone;
      std::vector<double> off;
      for (const Point& p : points_) {
        if (p.shape != s) continue;
        const double t = median(p.times_us), bytes = static_cast<double>(p.bytes);
        if (p.in_a_row == 1) {
          alone.knots.push_back({bytes, t});
          for (const double x : p.times_us) off.push_back(std::abs(x / t - 1));
        } else {
          // The first of them takes what one alone takes.
          const double next = (t - alone.knots.back().time_us) / (p.in_a_row - 1);
          row.knots.push_back({bytes, std::max(next, 0.01 * alone.knots.back().time_us)});
        }
      }
      // Twice the bytes take twice as long, and hardly longer: beyond it is the moment's, of which long operations,
      // timed a few times only, have their share. `spread` keeps it.
      for (Index k = 1; k < alone.knots.size(); ++k) {
        const CalibrationKnot& half = alone.knots[k - 1];
        if (alone.knots[k].size == 2 * half.size && half.time_us > kFlows_us)
          alone.knots[k].time_us = std::min(alone.knots[k].time_us, kMostGrowth * half.time_us);
      }
      std::sort(off.begin(), off.end());
      alone.spread = row.spread = off[off.size() * 9 / 10];
      out.push_back(std::move(alone));
      if (row.knots.empty()) continue;
      row.parameters["in_a_row"] = 1;
      out.push_back(std::move(row));
    }
    return out;
  }

  const std::vector<ProfileShape>& shapes_;
  const ProfileBudget& budget_;
  Communicator& c_;
  HostExchange host_;
  Device& device_;
  std::vector<ChannelId> channels_;
  std::vector<std::ptrdiff_t> place_;
  DeviceMemory send_, receive_;
  std::vector<Point> points_;
  std::vector<Outgoing> sends_;
  std::vector<Incoming> receives_;
};

constexpr const char* kOperations[] = {"alltoall", "all_gather"};

}  // namespace

std::vector<ProfileShape> profile_shapes(int world, int ranks_per_node) {
  const int nodes = world / ranks_per_node;
  std::vector<ProfileShape> out;
  for (int n = 1; n <= nodes; ++n)
    for (int per_node = 1; per_node <= ranks_per_node; ++per_node) {
      if (nodes % n != 0 || ranks_per_node % per_node != 0 || n * per_node == 1) continue;
      const bool apart = per_node == 1;
      ProfileShape shape{.ranks = n * per_node, .nodes = n};
      for (int r = 0; r < world; ++r) {
        const int node = r / ranks_per_node, block = apart ? node % (nodes / n) : node / n;
        shape.group_of.push_back(block * (ranks_per_node / per_node) + r % ranks_per_node / per_node);
      }
      for (const char* operation : kOperations) shape.operation = operation, out.push_back(shape);
    }
  return out;
}

std::vector<ProfileShape> profile_shapes(const Layout& layout, int ranks_per_node) {
  const RankGroups groups(layout, ranks_per_node);
  std::vector<ProfileShape> out;
  for (const Role role : {Role::ep, Role::etp, Role::tp, Role::node, Role::rail}) {
    ProfileShape shape{.ranks = groups.size(role)};
    if ((role == Role::node || role == Role::rail) && !even_nodes(layout, ranks_per_node)) continue;
    if (shape.ranks < 2) continue;
    bool even = true;
    for (int r = 0; r < layout.world; ++r) {
      const auto members = groups.members(role, r);
      shape.group_of.push_back(members.front());
      std::vector<int> on_node(static_cast<Index>(layout.world / ranks_per_node), 0);
      for (const int m : members) ++on_node[static_cast<Index>(m / ranks_per_node)];
      std::erase(on_node, 0);
      if (r == 0) shape.nodes = static_cast<int>(on_node.size());
      even = even && static_cast<int>(on_node.size()) == shape.nodes &&
             *std::min_element(on_node.begin(), on_node.end()) == *std::max_element(on_node.begin(), on_node.end());
    }
    const auto same = [&](const ProfileShape& other) {
      return other.ranks == shape.ranks && other.nodes == shape.nodes;
    };
    if (!even || std::any_of(out.begin(), out.end(), same)) continue;
    for (const char* operation : kOperations) shape.operation = operation, out.push_back(shape);
  }
  return out;
}

std::optional<std::vector<CalibrationCurve>> profile_collectives(const std::vector<ProfileShape>& shapes,
                                                                 const ProfileBudget& budget,
                                                                 Communicator& communicator, Device& device) {
  if (shapes.empty())
    throw InvalidInput("ranks", std::to_string(communicator.size()), "nothing travels: there are no groups to profile");
  for (const ProfileShape& s : shapes)
    if (budget.most_bytes < least_bytes(s))
      throw InvalidInput("budget.most_bytes", std::to_string(budget.most_bytes),
                         "at least " + std::to_string(least_bytes(s)));
  return Profiler(shapes, budget, communicator, device).run();
}

}  // namespace topomoe
