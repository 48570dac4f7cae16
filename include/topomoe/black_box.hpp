// What a rank is doing, kept where a signal handler can read it: which step it waits in, for whom, for how much.
//
// Fixed memory, no locks, no allocation. One thread writes (the rank's), any may read, also from a signal handler:
// entries alternate between two places, and a reader that is overtaken by two writes during its copy may see a mix
// of them. Ranks beyond kMostPeers of one wait are counted, not named.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <span>
#include <string_view>

namespace topomoe {

class Distress;

// One wait. `count` 0: none under way.
struct Wait {
  static constexpr int kMostPeers = 64;
  int count = 0;     // of peers waited for
  double bytes = 0;  // still missing when it was written
  std::array<int, kMostPeers> peers{};
  std::array<char, 64> step{};  // ends with 0, cut where it is longer

  std::span<const int> named() const {
    return {peers.data(), static_cast<std::size_t>(count < kMostPeers ? count : kMostPeers)};
  }
};

class BlackBox {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // `until`: when the wait gives up, if it still can: a transport may be stuck.
  void wait_begins(std::string_view step, std::span<const int> peers, double bytes,
                   TimePoint until = TimePoint::max()) noexcept;
  void wait_ends() noexcept;
  // Async-signal-safe, both.
  Wait read() const noexcept;
  TimePoint until() const noexcept { return TimePoint(TimePoint::duration(until_)); }

  std::atomic<int> rank{-1};
  std::atomic<Distress*> distress{nullptr};  // asks the other ranks; null where there is no such channel

 private:
  std::array<Wait, 2> entries_{};
  std::atomic<unsigned> current_{0};
  std::atomic<TimePoint::rep> until_{TimePoint::max().time_since_epoch().count()};
};

// "topomoe: rank 2, peers 1 3, culprit 3, step dispatch, 4096 bytes: why\n" into `line`, cut to fit; its length.
// Unknown ranks are left out. Async-signal-safe.
std::size_t write_last_words(std::span<char> line, int rank, int culprit, const Wait& wait,
                             std::string_view why) noexcept;

// Who is to blame if `me` waits for `waits[me]`, those for theirs, and so on: the nearest rank that is waited for and
// waits for nobody itself; `blameless` ranks (they failed because of another) are passed over. -1: all wait for each
// other. `queue` and `seen` are scratch, one entry a rank. Async-signal-safe.
int find_culprit(int me, std::span<const Wait> waits, std::span<const unsigned char> blameless, std::span<int> queue,
                 std::span<unsigned char> seen) noexcept;

}  // namespace topomoe
