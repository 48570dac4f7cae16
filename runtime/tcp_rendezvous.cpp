#include "runtime/tcp_rendezvous.hpp"

#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <type_traits>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr std::uint64_t kMagic = 0x31454f4d4f504f54;  // "TOPOMOE1"

// What travels, as its bytes.
struct Hello {
  std::uint64_t magic = kMagic;
  std::int32_t rank = 0, size = 0;
  std::uint32_t port = 0;  // of the listener
  DistressAddress distress;
};
struct Entry {
  std::uint32_t address = 0, port = 0;
  DistressAddress distress;
};
struct Answer {
  std::uint64_t magic = kMagic, job = 0;
  std::array<char, 240> refusal{};  // empty: the entries of all ranks follow
};
static_assert(std::is_trivially_copyable_v<Hello> && std::is_trivially_copyable_v<Entry>);

bool is_loopback(std::uint32_t address) { return ntohl(address) >> 24 == 127; }

// Assumed: who connects and is ours says so at once. A port scanner is not waited for longer.
constexpr auto kPatience = 5s;

std::optional<Hello> read_hello(const Socket& s, SocketDeadline deadline) {
  Hello hello;
  try {
    receive_whole(s, &hello, sizeof hello, std::min(deadline, Clock::now() + kPatience));
  } catch (const SocketError&) {
    return std::nullopt;
  }
  return hello.magic == kMagic ? std::optional(hello) : std::nullopt;
}

struct Table {
  std::uint64_t job = 0;
  std::vector<Entry> entries;
};

// Assumed: until rank 0 hears that a process is gone, whose successor is already here.
constexpr auto kHearsay = 200ms;

// Those that are gone again: they may be started anew. Returns how many are left.
int forget_the_dead(std::vector<Socket>& ranks) {
  int alive = 0;
  for (Socket& s : ranks) {
    if (s && is_closed(s, Clock::now())) s = Socket();
    if (s) ++alive;
  }
  return alive;
}

std::string missing_ranks(const std::vector<Socket>& here) {
  std::string list;
  for (std::size_t r = 1; r < here.size(); ++r)
    if (!here[r]) list += (list.empty() ? "" : ", ") + std::to_string(r);
  return list;
}

Table gather_at_rank_0(const TcpPlace& place, std::uint16_t port, const DistressAddress& mine,
                       SocketDeadline deadline) {
  Table table;
  table.job = (std::uint64_t{std::random_device()()} << 32) + std::random_device()();
  table.entries.resize(static_cast<std::size_t>(place.size));
  table.entries[0] = {0, port, mine};
  std::vector<Socket> ranks(table.entries.size());
  Answer answer{.job = table.job};
  std::string refusal;
  {
    Socket listener;
    try {
      listener = listen_on(static_cast<std::uint16_t>(place.port));
    } catch (const SocketError& e) {
      throw InvalidInput("MASTER_PORT", e.what(),
                         "rank 0 listens there until all ranks have come: name one that is free, by "
                         "TOPOMOE_MASTER_PORT where MASTER_PORT serves something else");
    }
    const int others = place.size - 1;
    int come = 0;
    while (refusal.empty() && (come < others || (come = forget_the_dead(ranks)) < others)) {
      Ipv4 from;
      auto s = accept_one(listener, deadline, &from);
      if (!s) {
        forget_the_dead(ranks);
        throw TransportError(0, -1, "meet", 0, "ranks that did not come before the deadline: " + missing_ranks(ranks));
      }
      const auto hello = read_hello(*s, deadline);
      if (!hello) continue;
      const auto r = static_cast<std::size_t>(hello->rank);
      if (hello->size != place.size) {
        refusal = "rank " + std::to_string(hello->rank) + " is one of " + std::to_string(hello->size) + ", rank 0 of " +
                  std::to_string(place.size);
      } else if (hello->rank < 1 || hello->rank >= place.size) {
        refusal = "rank " + std::to_string(hello->rank) + " of " + std::to_string(place.size) + " came to rank 0";
      } else if (ranks[r] && !is_closed(ranks[r], Clock::now() + kHearsay)) {
        refusal = "two processes are rank " + std::to_string(hello->rank);
      } else {
        table.entries[r] = {from.address, hello->port, hello->distress};
        if (!ranks[r]) ++come;
        ranks[r] = std::move(*s);
      }
      if (!refusal.empty()) ranks.push_back(std::move(*s));  // who is refused hears why
    }
  }  // nobody listens now: who comes for a later communicator of this job waits for that
  std::copy_n(refusal.begin(), std::min(refusal.size(), answer.refusal.size() - 1), answer.refusal.begin());
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    if (!ranks[r]) continue;
    try {
      send_whole(ranks[r], &answer, sizeof answer, deadline);
      if (refusal.empty()) send_whole(ranks[r], table.entries.data(), table.entries.size() * sizeof(Entry), deadline);
    } catch (const SocketError& e) {
      if (refusal.empty()) throw TransportError(0, static_cast<int>(r), "meet", 0, e.what());
    }
  }
  if (!refusal.empty()) throw InvalidInput("RANK, WORLD_SIZE", refusal, "each process is another rank of as many");
  return table;
}

Table ask_rank_0(const TcpPlace& place, std::uint32_t address, std::uint16_t port, const DistressAddress& mine,
                 SocketDeadline deadline) {
  const Ipv4 master{address, static_cast<std::uint16_t>(place.port)};
  const Hello hello{.rank = place.rank, .size = place.size, .port = port, .distress = mine};
  while (true) {
    try {
      const Socket s = connect_to(master, deadline);
      Answer answer;
      Table table;
      send_whole(s, &hello, sizeof hello, deadline);
      receive_whole(s, &answer, sizeof answer, deadline);
      if (answer.magic != kMagic)
        throw InvalidInput("MASTER_PORT", text_of(master),
                           "something else answers there: set TOPOMOE_MASTER_PORT to a port of our own");
      if (answer.refusal[0] != 0)
        throw InvalidInput("RANK, WORLD_SIZE", answer.refusal.data(), "each process is another rank of as many");
      table.job = answer.job;
      table.entries.resize(static_cast<std::size_t>(place.size));
      receive_whole(s, table.entries.data(), table.entries.size() * sizeof(Entry), deadline);
      return table;
    } catch (const SocketError& e) {
      // Closed on us: rank 0 has just finished with an earlier communicator.
      if (Clock::now() >= deadline) throw TransportError(place.rank, 0, "meet", 0, e.what());
      std::this_thread::sleep_for(10ms);
    }
  }
}

}  // namespace

TcpWorld meet(const TcpPlace& place, std::uint16_t port, const DistressAddress& mine, SocketDeadline deadline) {
  const std::uint32_t master = place.size > 1 && place.rank > 0 ? resolve_ipv4(place.address) : 0;
  Table table =
      place.rank == 0 ? gather_at_rank_0(place, port, mine, deadline) : ask_rank_0(place, master, port, mine, deadline);
  table.entries[0].address = master;
  TcpWorld world;
  world.job = table.job;
  for (const Entry& e : table.entries) {
    const bool elsewhere = e.distress.host != mine.host;
    const std::uint32_t address = is_loopback(e.address) && elsewhere ? address_between(mine, e.distress) : e.address;
    world.listeners.push_back({address, static_cast<std::uint16_t>(e.port)});
    world.distress.push_back(e.distress);
  }
  return world;
}

}  // namespace topomoe
