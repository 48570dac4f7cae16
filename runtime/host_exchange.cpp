#include "runtime/host_exchange.hpp"

#include <numeric>

namespace topomoe {
namespace {

ChannelId open_world(Communicator& communicator) {
  std::vector<int> all(static_cast<std::size_t>(communicator.size()));
  std::iota(all.begin(), all.end(), 0);
  return communicator.open_channel(all);
}

}  // namespace

HostExchange::HostExchange(Communicator& communicator, std::chrono::seconds deadline)
    : communicator_(communicator), channel_(open_world(communicator)), deadline_(deadline) {}

std::vector<std::vector<double>> HostExchange::exchange(std::string_view step, const Send& send, const Length& length) {
  const auto world = static_cast<std::size_t>(size());
  std::vector<std::vector<double>> sent(world), received(world);
  std::vector<Outgoing> sends;
  std::vector<Incoming> receives;
  for (int peer = 0; peer < size(); ++peer) {
    const auto p = static_cast<std::size_t>(peer);
    sent[p] = send(peer), received[p].resize(length(peer));
    if (peer == rank()) {
      received[p] = sent[p];
      continue;
    }
    sends.push_back({peer, sent[p].data(), sent[p].size() * sizeof(double)});
    receives.push_back({peer, received[p].data(), received[p].size() * sizeof(double)});
  }
  try {
    const EventPtr event = communicator_.exchange(channel_, sends, receives, {.step = step, .metadata = true});
    if (event) event->wait(std::chrono::steady_clock::now() + deadline_);
  } catch (const std::exception& e) {
    communicator_.fail(failure_of(e, rank()));  // before what others may still write to is gone
    throw;
  }
  return received;
}

std::vector<std::vector<double>> HostExchange::gather(std::string_view step, const std::vector<double>& mine,
                                                      int root) {
  return exchange(
      step, [&](int peer) { return peer == root ? mine : std::vector<double>(); },
      [&](int) { return rank() == root ? mine.size() : 0; });
}

std::vector<std::vector<double>> HostExchange::gather_on_all(std::string_view step, const std::vector<double>& mine) {
  return exchange(
      step, [&](int) { return mine; }, [&](int) { return mine.size(); });
}

void HostExchange::line_up(int ranks_per_host) {
  const int me = rank(), leader = me / ranks_per_host * ranks_per_host;
  const auto say = [&](auto to, auto from) {
    exchange(
        "line up", [&](int peer) { return std::vector<double>(to(peer) ? 1 : 0); },
        [&](int peer) -> std::size_t { return from(peer) ? 1 : 0; });
  };
  const auto my_leader = [&](int peer) { return me != leader && peer == leader; };
  const auto my_host = [&](int peer) {
    return me == leader && peer != me && peer / ranks_per_host == me / ranks_per_host;
  };
  const auto the_first = [&](int peer) { return me == leader && me != 0 && peer == 0; };
  const auto other_leaders = [&](int peer) { return me == 0 && peer != 0 && peer % ranks_per_host == 0; };
  say(my_leader, my_host);
  say(the_first, other_leaders);
  say(other_leaders, the_first);
  say(my_host, my_leader);
}

}  // namespace topomoe
