#include "tests/runtime/communicator_conformance.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "tests/support/soon.hpp"

namespace topomoe::testing {
namespace {

using Clock = std::chrono::steady_clock;
using Bytes = std::vector<std::byte>;

std::uint64_t mix(std::uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15U;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

// What `from` sends to `to` in round `salt`: known to both, different for each.
std::uint64_t seed_of(int from, int to, int salt) {
  return mix(static_cast<std::uint64_t>(from) * 1'000'003U + static_cast<std::uint64_t>(to) * 1009U +
             static_cast<std::uint64_t>(salt));
}

Bytes contents(int from, int to, int salt, std::size_t size) {
  Bytes out(size);
  std::uint64_t x = seed_of(from, to, salt);
  for (std::size_t i = 0; i < size; i += sizeof x) {
    x = mix(x);
    std::memcpy(&out[i], &x, std::min(sizeof x, size - i));
  }
  return out;
}

using SizeOf = std::function<std::size_t(int from, int to, int salt)>;
// 0 to 4999 bytes, a quarter of them 0.
std::size_t any_size(int from, int to, int salt) {
  const std::uint64_t x = seed_of(from, to, salt);
  return x % 4 == 0 ? 0 : static_cast<std::size_t>(x / 4 % 5000);
}
std::size_t same_size(int, int, int) { return 64; }
std::size_t no_size(int, int, int) { return 0; }

std::vector<int> everyone(const Communicator& c) {
  std::vector<int> members(static_cast<std::size_t>(c.size()));
  std::iota(members.begin(), members.end(), 0);
  return members;
}

// A channel and who is in it.
struct Group {
  Group(Communicator& c, std::vector<int> ranks)
      : communicator(c), members(std::move(ranks)), channel(c.open_channel(members)) {}
  Communicator& communicator;
  std::vector<int> members;
  ChannelId channel;
};

// One all-to-all over a group, oneself included: started when made, checked by finish().
class Round {
 public:
  Round(const Group& group, Device& device, int salt, const SizeOf& size_of = any_size, bool metadata = false,
        Lane lane = Lane::inter_node)
      : device_(device), rank_(group.communicator.rank()), salt_(salt), on_host_(metadata), lane_(lane) {
    std::vector<Outgoing> sends;
    std::vector<Incoming> receives;
    for (std::size_t i = 0; i < group.members.size(); ++i) {
      const int peer = group.members[i];
      out_.push_back(place(contents(rank_, peer, salt, size_of(rank_, peer, salt))));
      in_.push_back(place(Bytes(size_of(peer, rank_, salt))));
      peers_.push_back(peer);
      sends.push_back({static_cast<int>(i), out_.back().memory.get(), out_.back().bytes});
      receives.push_back({static_cast<int>(i), in_.back().memory.get(), in_.back().bytes});
    }
    event_ = group.communicator.exchange(group.channel, sends, receives,
                                         {.step = "round",
                                          .lane = lane,
                                          .metadata = metadata,
                                          .memory = on_host_ ? MemorySpace::host : device.memory_space()});
  }

  bool poll() { return !event_ || event_->poll(); }
  void finish() {
    if (event_) event_->wait(soon());
    for (std::size_t i = 0; i < peers_.size(); ++i) {
      EXPECT_TRUE(fetch(in_[i]) == contents(peers_[i], rank_, salt_, in_[i].bytes))
          << in_[i].bytes << " bytes from rank " << peers_[i] << " to rank " << rank_ << " in round " << salt_;
    }
  }

 private:
  struct Memory {
    DeviceMemory memory;
    std::size_t bytes;
  };
  Memory place(const Bytes& data) {
    const std::size_t bytes = std::max<std::size_t>(1, data.size());
    if (!on_host_) {
      Memory m{device_.allocate(bytes), data.size()};
      device_.to_device(lane_, m.memory.get(), data.data(), data.size());
      return m;
    }
    Memory m{DeviceMemory(new std::byte[bytes], [](std::byte* p) { delete[] p; }), data.size()};
    std::copy(data.begin(), data.end(), m.memory.get());
    return m;
  }
  Bytes fetch(const Memory& m) {
    Bytes out(m.bytes);
    if (on_host_) {
      std::copy_n(m.memory.get(), m.bytes, out.begin());
    } else {
      device_.to_host(lane_, out.data(), m.memory.get(), m.bytes, soon());
    }
    return out;
  }

  Device& device_;
  int rank_, salt_;
  bool on_host_;
  Lane lane_;
  std::vector<Memory> out_, in_;
  std::vector<int> peers_;
  EventPtr event_;
};

void rank_and_size(Communicator& c, Device&) {
  ASSERT_GE(c.rank(), 0);
  ASSERT_LT(c.rank(), c.size());
}

void world(Communicator& c, Device& d) {
  const Group all(c, everyone(c));
  for (int salt = 0; salt < 5; ++salt) Round(all, d, salt).finish();
}

void metadata_of_host_memory(Communicator& c, Device& d) {
  const Group all(c, everyone(c));
  Round first(all, d, 1, any_size, true), payload(all, d, 2), second(all, d, 3, any_size, true);
  second.finish(), payload.finish(), first.finish();
}

// Odd and even ranks apart, the members in descending order; then everyone alone.
void split_channels(Communicator& c, Device& d) {
  std::vector<int> members;
  for (int r = c.size() - 1; r >= 0; --r)
    if (r % 2 == c.rank() % 2) members.push_back(r);
  const Group half(c, members), alone(c, {c.rank()}), all(c, everyone(c));
  for (int salt = 0; salt < 3; ++salt) {
    Round in_half(half, d, salt), in_alone(alone, d, salt + 100), in_all(all, d, salt + 200);
    in_all.finish(), in_alone.finish(), in_half.finish();
  }
}

void many_outstanding(Communicator& c, Device& d) {
  const Group all(c, everyone(c));
  std::vector<std::unique_ptr<Round>> rounds;
  for (int salt = 0; salt < 32; ++salt) rounds.push_back(std::make_unique<Round>(all, d, salt));
  for (auto r = rounds.rbegin(); r != rounds.rend(); ++r) (*r)->finish();
}

// Equal sizes: only the order tells which message belongs to which exchange.
void matched_in_order_of_start(Communicator& c, Device& d) {
  const Group all(c, everyone(c));
  std::vector<std::unique_ptr<Round>> rounds;
  if (c.rank() % 2 == 1) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  for (int salt = 0; salt < 8; ++salt) rounds.push_back(std::make_unique<Round>(all, d, salt, same_size));
  for (const std::size_t i : {3U, 0U, 7U, 1U, 2U, 6U, 5U, 4U}) rounds[i]->finish();
}

// Even ranks use a, to its end, before b; odd ones start on b. Lanes are in order, hence two of them.
void channels_are_independent(Communicator& c, Device& d) {
  const Group a(c, everyone(c)), b(c, everyone(c));
  if (c.rank() % 2 == 0) {
    Round(a, d, 1, same_size).finish();
    Round(b, d, 2, same_size, false, Lane::intra_node).finish();
  } else {
    Round on_b(b, d, 2, same_size, false, Lane::intra_node), on_a(a, d, 1, same_size);
    on_b.finish(), on_a.finish();
  }
}

void self_transfer(Communicator& c, Device& d) {
  const Group alone(c, {c.rank()});
  Round none(alone, d, 0, no_size), first(alone, d, 1), second(alone, d, 2, same_size);
  second.finish(), first.finish(), none.finish();
}

void nothing_to_move(Communicator& c, Device& d) {
  const Group all(c, everyone(c));
  Round(all, d, 0, no_size).finish();
  const EventPtr event = c.exchange(all.channel, {}, {}, {.step = "nothing", .memory = d.memory_space()});
  if (event) event->wait(soon());
}

// 8 MiB to the next rank, past what any transport buffers.
void big_message(Communicator& c, Device& d) {
  const Group all(c, everyone(c));
  const int ranks = c.size();
  Round(all, d, 0, [&](int from, int to, int) { return (from + 1) % ranks == to ? std::size_t{8} << 20 : 0; }).finish();
}

void progress_completes_it(Communicator& c, Device& d) {
  const Group all(c, everyone(c));
  Round round(all, d, 0, [](int, int, int) { return std::size_t{1} << 18; });
  const auto deadline = soon();
  while (!round.poll()) {
    ASSERT_LT(Clock::now(), deadline);
    c.progress();
    std::this_thread::yield();
  }
  round.finish();
}

// Nobody leaves before the last has come. On one machine the steady clock is the same for all.
void barrier(Communicator& c, Device&) {
  const Group all(c, everyone(c));
  for (int turn = 0; turn < 3; ++turn) {
    std::this_thread::sleep_for(std::chrono::milliseconds((c.rank() + turn) % c.size()));
    const auto came = Clock::now();
    c.barrier();
    const auto left = Clock::now();
    std::vector<Clock::time_point> others(all.members.size());
    std::vector<Outgoing> sends;
    std::vector<Incoming> receives;
    for (int i = 0; i < c.size(); ++i) {
      sends.push_back({i, &came, sizeof came});
      receives.push_back({i, &others[static_cast<std::size_t>(i)], sizeof came});
    }
    c.exchange(all.channel, sends, receives, {.step = "times", .metadata = true})->wait(soon());
    for (const auto& other : others) EXPECT_GE(left, other);
  }
}

constexpr ConformanceCase kCases[] = {
    {"RankAndSize", rank_and_size},
    {"World", world},
    {"MetadataOfHostMemory", metadata_of_host_memory},
    {"SplitChannels", split_channels},
    {"ManyOutstanding", many_outstanding},
    {"MatchedInOrderOfStart", matched_in_order_of_start},
    {"ChannelsAreIndependent", channels_are_independent},
    {"SelfTransfer", self_transfer},
    {"NothingToMove", nothing_to_move},
    {"BigMessage", big_message},
    {"ProgressCompletesIt", progress_completes_it},
    {"Barrier", barrier},
};

}  // namespace

std::span<const ConformanceCase> conformance_cases() { return kCases; }
void PrintTo(const ConformanceCase& c, std::ostream* out) { *out << c.name; }

}  // namespace topomoe::testing
