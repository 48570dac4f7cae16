#include "topomoe/black_box.hpp"

#include <algorithm>
#include <charconv>

namespace topomoe {

void BlackBox::wait_begins(std::string_view step, std::span<const int> peers, double bytes, TimePoint until) noexcept {
  const unsigned next = 1 - current_.load(std::memory_order_relaxed);
  Wait& w = entries_[next];
  w.count = static_cast<int>(peers.size());
  w.bytes = bytes;
  std::copy_n(peers.begin(), std::min<std::size_t>(peers.size(), Wait::kMostPeers), w.peers.begin());
  const std::size_t length = std::min(step.size(), w.step.size() - 1);
  std::copy_n(step.begin(), length, w.step.begin());
  w.step[length] = 0;
  current_.store(next, std::memory_order_release);
  until_.store(until.time_since_epoch().count(), std::memory_order_release);
}

void BlackBox::wait_ends() noexcept { wait_begins("", {}, 0); }

Wait BlackBox::read() const noexcept { return entries_[current_.load(std::memory_order_acquire)]; }

std::size_t write_last_words(std::span<char> line, int rank, int culprit, const Wait& wait,
                             std::string_view why) noexcept {
  std::size_t at = 0;
  const std::size_t end = line.size() - 1;  // room for the line's end
  const auto text = [&](std::string_view s) {
    const std::size_t n = std::min(s.size(), end - at);
    std::copy_n(s.begin(), n, line.begin() + static_cast<std::ptrdiff_t>(at));
    at += n;
  };
  const auto number = [&](long long n) {
    std::array<char, 24> digits{};
    const auto done = std::to_chars(digits.data(), digits.data() + digits.size(), n);
    text({digits.data(), static_cast<std::size_t>(done.ptr - digits.data())});
  };
  text("topomoe: rank "), number(rank);
  if (wait.count > 0) text(wait.count == 1 ? ", peer" : ", peers");
  for (const int p : wait.named()) text(" "), number(p);
  if (wait.count > Wait::kMostPeers) text(" and more");
  if (culprit >= 0) text(", culprit "), number(culprit);
  text(", step "), text(wait.step[0] != 0 ? std::string_view(wait.step.data()) : "none");
  text(", "), number(static_cast<long long>(wait.bytes)), text(" bytes: "), text(why);
  line[at] = '\n';
  return at + 1;
}

int find_culprit(int me, std::span<const Wait> waits, std::span<const unsigned char> blameless, std::span<int> queue,
                 std::span<unsigned char> seen) noexcept {
  std::fill(seen.begin(), seen.end(), static_cast<unsigned char>(0));
  std::size_t first = 0, last = 0;
  queue[last++] = me, seen[static_cast<std::size_t>(me)] = 1;
  while (first < last) {
    const int rank = queue[first++];
    const Wait& wait = waits[static_cast<std::size_t>(rank)];
    if (rank != me && wait.count == 0 && blameless[static_cast<std::size_t>(rank)] == 0) return rank;
    for (const int p : wait.named()) {
      if (p < 0 || static_cast<std::size_t>(p) >= seen.size() || seen[static_cast<std::size_t>(p)] != 0) continue;
      seen[static_cast<std::size_t>(p)] = 1, queue[last++] = p;
    }
  }
  return -1;
}

}  // namespace topomoe
