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
  const EventPtr event = communicator_.exchange(channel_, sends, receives, {.step = step, .metadata = true});
  if (event) event->wait(std::chrono::steady_clock::now() + deadline_);
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

}  // namespace topomoe
