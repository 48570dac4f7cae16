// Ranks in need ask each other who waits for whom, by UDP beside the transport that failed: only so does a survivor
// tell the rank that is gone from one that itself only waits for it.
//
// A rank that gives up asks all others. Whoever is alive and looks at its mail (waits and progress() do) says whom it
// waits for; the operating system of a killed process refuses the datagram; a stopped one is silent. The culprit is
// the nearest rank that is waited for and dead, else one whose host lost a network interface that was up at the start,
// else silent, else alive but not waiting. It is then told to all, who fail with it. Mail goes over all networks that
// two hosts share, as one of them may be what failed. Datagrams may be lost: then the nearest rank that was not heard
// of is blamed. Ignored: liars (a random number keeps other jobs' mail out, not an attacker's), hosts without IPv4
// routes to each other.
// Everything but the constructor is async-signal-safe, since the last words of a dying process need it.
#pragma once

#include <net/if.h>
#include <netinet/in.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <vector>

#include "topomoe/black_box.hpp"

namespace topomoe {

// Whether a rank that lives and merely waits for nobody can be the culprit: at a deadline it has had its time.
enum class Blame { the_silent, the_busy_too };

// How a rank is reached: all its IPv4 addresses, since the hosts' networks may be several.
struct DistressAddress {
  static constexpr std::size_t kMost = 8;
  std::uint64_t host = 0;  // a hash of its name: the same host is reached by loopback
  std::uint32_t count = 0;
  std::uint32_t address[kMost] = {}, mask[kMost] = {};  // network byte order
  std::uint16_t port = 0;
};
// Where I reach them: network byte order.
std::uint32_t address_between(const DistressAddress& mine, const DistressAddress& theirs);

class Distress {
 public:
  // `box` must outlive it. Throws MissingEnvironment where there is no socket to be had.
  Distress(int rank, int size, BlackBox& box);
  ~Distress();
  Distress(const Distress&) = delete;
  Distress& operator=(const Distress&) = delete;

  const DistressAddress& mine() const { return mine_; }
  // Of all ranks, by rank, and a number that only this job's ranks know.
  void connect(const std::vector<DistressAddress>& all, std::uint64_t job);

  // Reads the mail and answers it. Returns the culprit that another rank has named, -1 while none has.
  int look() noexcept;
  // Asks, waits for answers no longer than `patience`, returns the culprit, -1 if there is none to be found. A rank
  // that itself waits for nobody looks at all others.
  int ask(std::chrono::milliseconds patience, Blame blame) noexcept;
  // The same in two parts, for whoever has better to do than to wait for the answers: look() takes them in.
  void start_asking() noexcept;
  // Waits for what is left of `patience` since the start. Asks again if all that answered had blamed the busy.
  int conclude(std::chrono::milliseconds patience, Blame blame) noexcept;
  // Names the culprit to all; from now on that is the answer to whoever asks.
  void tell(int culprit) noexcept;
  // Answers mail for so long.
  void linger(std::chrono::milliseconds time) noexcept;

 private:
  enum class Kind : std::int32_t { ask, state, failed };
  struct Datagram;
  struct Routes {
    std::size_t count = 0;
    std::array<sockaddr_in, DistressAddress::kMost> to{};
  };
  void send(Kind kind, int to) noexcept;
  void broadcast(Kind kind) noexcept;
  void read_refusals() noexcept;
  void sleep_until_mail() noexcept;
  int dead_culprit() noexcept;
  int cut_off_culprit() const noexcept;
  bool lost_an_interface() const noexcept;
  int dead_or_silent(std::chrono::milliseconds patience) noexcept;
  int search() noexcept;

  int rank_;
  BlackBox& box_;
  int socket_ = -1;
  std::uint64_t job_ = 0;
  int culprit_ = -1;     // that somebody named
  bool failed_ = false;  // this rank has told
  std::chrono::steady_clock::time_point asked_{};
  DistressAddress mine_;
  std::array<std::array<char, IFNAMSIZ>, DistressAddress::kMost> interfaces_{};  // of the addresses of mine_
  std::vector<Routes> peers_;
  // By rank; scratch of the search below.
  std::vector<Wait> waits_;
  std::vector<unsigned char> alive_, refused_, cut_off_, failed_ranks_, blameless_, seen_;
  std::vector<int> queue_;
};

}  // namespace topomoe
