#include "topomoe/communicator_tcp.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <deque>
#include <optional>
#include <vector>

#include "runtime/channel_agreement.hpp"
#include "runtime/tcp_links.hpp"
#include "runtime/tcp_rendezvous.hpp"
#include "runtime/watch.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// Sent first on every connection: which one it is.
struct LinkHello {
  std::uint64_t job;
  std::int32_t rank, channel;
};

// Assumed: fresh enough for last words.
constexpr auto kRecord = 20ms;
// Longest sleep of a wait, since other ranks' mail comes beside the connections. Assumed.
constexpr auto kNap = 5ms;
// A connection says at once which one it is. Assumed: what is silent is not ours.
constexpr auto kPatience = 5s;

constexpr int kControl = -1;  // the channel of the tree that barriers go along
constexpr const char* kHostMemory = "TCP moves host memory: take the cpu device, or NCCL";

class TcpCommunicator final : public Communicator {
 public:
  TcpCommunicator(const TcpPlace& place, const TcpOptions& options)
      : options_(options), rank_(place.rank), size_(place.size), watch_(place.rank, place.size, options.black_box) {
    if (size_ > 1) {
      const auto deadline = Clock::now() + options_.deadline;
      try {
        listener_ = listen_on(0);
        world_ = meet(place, port_of(listener_), watch_.mine(), deadline);
      } catch (const SocketError& e) {
        throw TransportError(rank_, -1, "meet", 0, e.what());
      }
    } else {
      world_.listeners.resize(1), world_.distress.push_back(watch_.mine());
    }
    watch_.connect(world_.distress, world_.job);
    // A tree: the parent first.
    std::vector<int> neighbours;
    if (rank_ > 0) neighbours.push_back((rank_ - 1) / 2);
    for (const int child : {2 * rank_ + 1, 2 * rank_ + 2})
      if (child < size_) neighbours.push_back(child);
    make_links(kControl, neighbours, tree_);
  }
  TcpCommunicator(const TcpCommunicator&) = delete;
  TcpCommunicator& operator=(const TcpCommunicator&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string refuses(const Device& device) const override {
    return device.memory_space() == MemorySpace::host ? "" : kHostMemory;
  }

  ChannelId open_channel(std::span<const int> members) override {
    watch_.check();
    const ChannelId id = static_cast<ChannelId>(channels_.size());
    require_agreement(sum(agreement_share(members, rank_), "open channel"), members, rank_);
    Channel& channel = channels_.emplace_back();
    channel.members.assign(members.begin(), members.end());
    make_links(id, channel.members, channel.links);
    return id;
  }

  EventPtr exchange(ChannelId id, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                    const ExchangeInfo& info) override;

  void progress() override {
    move(0ms);
    (void)watch_.hear();  // what it is told, the next wait says
  }

  void barrier() override {
    watch_.check();
    (void)sum(0, "barrier");
  }

  void fail(const Failure& failure) noexcept override {
    watch_.fail(failure);
    traffic_.clear();
    for (TcpLink& l : tree_) l.close();
    for (Channel& c : channels_)
      for (TcpLink& l : c.links) l.close();
  }

  bool poll(const TcpFlight& flight) {
    if (!flight.over()) move(0ms);
    return flight.over();
  }
  void wait(const TcpFlight& flight, Clock::time_point deadline);

 private:
  struct Channel {
    std::vector<int> members;
    std::vector<TcpLink> links;  // by member
  };

  void move(std::chrono::milliseconds patience) { traffic_.move(patience); }
  TcpFlightPtr fly(std::span<const int> members, std::vector<TcpLink>& links, std::span<const Outgoing> sends,
                   std::span<const Incoming> receives, std::string_view step);
  void make_links(int channel, std::span<const int> members, std::vector<TcpLink>& links);
  std::uint64_t sum(std::uint64_t mine, const char* step);

  // Into the black box; returns what is missing.
  std::vector<TcpFlight::Part> record(const TcpFlight& flight);
  [[noreturn]] void throw_missing(const TcpFlight& flight, std::optional<int> told);

  TcpOptions options_;
  int rank_, size_;
  Watch watch_;
  Socket listener_;
  TcpWorld world_;
  std::vector<TcpLink> tree_;  // parent, where there is one, then children
  std::deque<Channel> channels_;
  TcpTraffic traffic_;
  // Connections that came before this rank was there to open their channel.
  struct Early {
    LinkHello hello;
    Socket socket;
  };
  std::vector<Early> early_;
};

class TcpEvent final : public Event {
 public:
  TcpEvent(TcpCommunicator& communicator, TcpFlightPtr flight)
      : communicator_(communicator), flight_(std::move(flight)) {}
  bool poll() override { return communicator_.poll(*flight_); }
  void wait(Clock::time_point deadline) override { communicator_.wait(*flight_, deadline); }

 private:
  TcpCommunicator& communicator_;
  TcpFlightPtr flight_;
};

TcpFlightPtr TcpCommunicator::fly(std::span<const int> members, std::vector<TcpLink>& links,
                                  std::span<const Outgoing> sends, std::span<const Incoming> receives,
                                  std::string_view step) {
  auto flight = std::make_shared<TcpFlight>();
  flight->step = step;
  for (const Incoming& r : receives)
    if (r.bytes > 0) flight->parts.push_back({members[static_cast<std::size_t>(r.peer)], r.bytes, true});
  for (const Outgoing& s : sends)
    if (s.bytes > 0) flight->parts.push_back({members[static_cast<std::size_t>(s.peer)], s.bytes, false});
  flight->remaining = flight->parts.size();
  std::size_t part = 0;
  for (const Incoming& r : receives) {
    if (r.bytes == 0) continue;
    TcpLink& link = links.at(static_cast<std::size_t>(r.peer));
    link.receive(r.data, r.bytes, flight, part++);
    traffic_.add(link);
  }
  for (const Outgoing& s : sends) {
    if (s.bytes == 0) continue;
    TcpLink& link = links.at(static_cast<std::size_t>(s.peer));
    link.send(s.data, s.bytes, flight, part++);
    traffic_.add(link);
    link.move();  // the peer may wait for it while this rank computes
  }
  return flight;
}

EventPtr TcpCommunicator::exchange(ChannelId id, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                                   const ExchangeInfo& info) {
  watch_.check();
  if (info.memory != MemorySpace::host)
    throw InvalidInput("exchange " + std::string(info.step), "GPU memory", kHostMemory);
  Channel& channel = channels_.at(static_cast<std::size_t>(id));
  return std::make_shared<TcpEvent>(*this, fly(channel.members, channel.links, sends, receives, info.step));
}

std::vector<TcpFlight::Part> TcpCommunicator::record(const TcpFlight& flight) {
  std::vector<TcpFlight::Part> missing;
  std::vector<int> peers;
  double bytes = 0;
  for (const auto& p : flight.parts) {
    if (p.over) continue;
    missing.push_back(p);
    if (std::find(peers.begin(), peers.end(), p.peer) == peers.end()) peers.push_back(p.peer);
    bytes += static_cast<double>(p.bytes);
  }
  watch_.box().wait_begins(flight.step, peers, bytes);
  return missing;
}

void TcpCommunicator::throw_missing(const TcpFlight& flight, std::optional<int> told) {
  const auto parts = record(flight);
  std::string list;
  double bytes = 0;
  bool one_peer = !parts.empty();
  for (const auto& p : parts) {
    list += (list.empty() ? "" : ", ") + std::to_string(p.bytes) + (p.receive ? " bytes from " : " bytes to ") +
            std::to_string(p.peer);
    bytes += static_cast<double>(p.bytes);
    one_peer = one_peer && p.peer == parts[0].peer;
  }
  throw TransportError({rank_, one_peer ? parts[0].peer : -1, told ? *told : watch_.conclude(), flight.step, bytes,
                        (told ? Watch::kTold + std::string("; missing: ") : "still missing at the deadline: ") + list});
}

void TcpCommunicator::wait(const TcpFlight& flight, Clock::time_point deadline) {
  watch_.check();
  if (!flight.over()) move(0ms);
  if (!flight.over()) {
    record(flight);
    watch_.ask_before(deadline);
    auto next_record = Clock::now() + kRecord;
    while (!flight.over()) {
      const auto now = Clock::now();
      if (now > deadline) throw_missing(flight, std::nullopt);
      if (now > next_record) {
        record(flight);
        watch_.ask_if_due(now);
        next_record = now + kRecord;
      }
      if (const auto culprit = watch_.hear()) throw_missing(flight, culprit);
      move(kNap);
    }
    if (flight.failure.empty()) watch_.box().wait_ends();
  }
  if (flight.failure.empty()) return;
  int culprit = -1;
  if (flight.peer_broke) {  // that peer, unless others know better: it may have given up because of somebody else
    watch_.box().wait_begins(flight.step, {&flight.failed.peer, 1}, static_cast<double>(flight.failed.bytes));
    culprit = watch_.ask();
    if (culprit < 0) culprit = flight.failed.peer;
  }
  throw TransportError(
      {rank_, flight.failed.peer, culprit, flight.step, static_cast<double>(flight.failed.bytes), flight.failure});
}

// The higher rank of each pair connects. Nobody waits for an answer before it accepts, so that no circle of ranks
// waits for each other.
void TcpCommunicator::make_links(int channel, std::span<const int> members, std::vector<TcpLink>& links) {
  links.resize(members.size());
  const auto deadline = Clock::now() + options_.deadline;
  watch_.box().wait_begins("open channel", members, 0);
  std::vector<int> awaited;
  for (std::size_t i = 0; i < members.size(); ++i) {
    const int peer = members[i];
    if (peer > rank_) awaited.push_back(peer);
    if (peer >= rank_) continue;
    try {
      Socket s = connect_to(world_.listeners[static_cast<std::size_t>(peer)], deadline);
      const LinkHello hello{world_.job, rank_, channel};
      send_whole(s, &hello, sizeof hello, deadline);
      links[i] = TcpLink(std::move(s));
    } catch (const SocketError& e) {
      throw TransportError({rank_, peer, watch_.ask(), "open channel", 0, e.what()});
    }
  }
  const auto take = [&](const LinkHello& hello, Socket& socket) {
    const auto at = std::find(awaited.begin(), awaited.end(), hello.rank);
    if (hello.channel != channel || at == awaited.end()) return false;
    const auto i = std::find(members.begin(), members.end(), hello.rank) - members.begin();
    links[static_cast<std::size_t>(i)] = TcpLink(std::move(socket));
    awaited.erase(at);
    return true;
  };
  std::erase_if(early_, [&](Early& e) { return take(e.hello, e.socket); });
  while (!awaited.empty()) {
    const auto now = Clock::now();
    auto s = accept_one(listener_, std::min(deadline, now + kRecord));
    if (!s) {
      const auto culprit = watch_.hear();
      if (culprit || now > deadline)
        throw TransportError({rank_, awaited[0], culprit ? *culprit : watch_.ask(), "open channel", 0,
                              culprit ? Watch::kTold : "it did not connect before the deadline"});
      continue;
    }
    LinkHello hello{};
    try {
      receive_whole(*s, &hello, sizeof hello, std::min(deadline, now + kPatience));
    } catch (const SocketError&) {
      continue;  // not one of us, or gone: who is awaited and gone is missed at the deadline
    }
    if (hello.job == world_.job && !take(hello, *s)) early_.push_back({hello, std::move(*s)});
  }
  watch_.box().wait_ends();
}

// Of all ranks, on all ranks: up the tree and down again.
std::uint64_t TcpCommunicator::sum(std::uint64_t mine, const char* step) {
  const auto deadline = Clock::now() + options_.deadline;
  std::vector<int> members;
  if (rank_ > 0) members.push_back((rank_ - 1) / 2);
  for (const int child : {2 * rank_ + 1, 2 * rank_ + 2})
    if (child < size_) members.push_back(child);
  const int first_child = rank_ > 0 ? 1 : 0;
  // Outlives a wait that throws.
  struct Numbers {
    std::array<std::uint64_t, 2> of_children{};
    std::uint64_t total = 0;
  };
  const auto numbers = std::make_shared<Numbers>();
  const auto move_all = [&](std::span<const Outgoing> sends, std::span<const Incoming> receives) {
    const TcpFlightPtr flight = fly(members, tree_, sends, receives, step);
    flight->keeps = numbers;
    wait(*flight, deadline);
  };
  std::vector<Incoming> from_children;
  std::vector<Outgoing> to_children;
  for (int i = first_child; i < static_cast<int>(members.size()); ++i) {
    from_children.push_back({i, &numbers->of_children[static_cast<std::size_t>(i - first_child)], sizeof mine});
    to_children.push_back({i, &numbers->total, sizeof mine});
  }
  move_all({}, from_children);
  numbers->total = mine + numbers->of_children[0] + numbers->of_children[1];
  if (rank_ > 0) {
    const Outgoing up{0, &numbers->total, sizeof mine};
    move_all({&up, 1}, {});
    const Incoming down{0, &numbers->total, sizeof mine};
    move_all({}, {&down, 1});
  }
  move_all(to_children, {});
  return numbers->total;
}

int port_from(const EnvironmentLookup& lookup, const char* variable) {
  const std::string text = lookup(variable).value_or("");
  int port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port < 1 || port > 65535)
    throw InvalidInput(variable, text.empty() ? "missing" : text, "a port, 1 to 65535");
  return port;
}

}  // namespace

TcpPlace read_tcp_place(const EnvironmentLookup& lookup) {
  const LauncherRank launched = read_launcher_env(lookup);
  TcpPlace place{.rank = launched.rank, .size = launched.size};
  if (place.size == 1) return place;
  const auto set = [&](const char* name) { return !lookup(name).value_or("").empty(); };
  place.address = lookup("MASTER_ADDR").value_or("");
  if (place.address.empty()) throw InvalidInput("MASTER_ADDR", "missing", "the host of rank 0");
  if (!set("TOPOMOE_MASTER_PORT") && lookup("TORCHELASTIC_USE_AGENT_STORE").value_or("") == "True")
    throw InvalidInput("TOPOMOE_MASTER_PORT", "missing",
                       "torchrun's own store listens at MASTER_PORT: name another port, free on rank 0's host");
  place.port = port_from(lookup, set("TOPOMOE_MASTER_PORT") ? "TOPOMOE_MASTER_PORT" : "MASTER_PORT");
  return place;
}

std::unique_ptr<Communicator> make_tcp_communicator(const TcpPlace& place, const TcpOptions& options) {
  if (place.size < 1) throw InvalidInput("size", std::to_string(place.size), "at least 1 rank");
  if (place.rank < 0 || place.rank >= place.size)
    throw InvalidInput("rank", std::to_string(place.rank), "0 to " + std::to_string(place.size - 1));
  if (place.size > 1 && place.address.empty()) throw InvalidInput("address", "missing", "the host of rank 0");
  if (place.size > 1 && (place.port < 1 || place.port > 65535))
    throw InvalidInput("port", std::to_string(place.port), "1 to 65535");
  return std::make_unique<TcpCommunicator>(place, options);
}

}  // namespace topomoe
