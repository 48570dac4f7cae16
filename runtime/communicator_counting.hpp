// Counts what a rank hands to its transport, whatever the transport is: an adaptor over any Communicator.
//
// Counted where the exchange starts, by world rank of the peer. A transfer to oneself is no traffic, and one
// of zero bytes is no message. Payload and metadata are apart, since a schedule is judged by its payload.
// Ignored: barriers, what a backend adds by itself (headers, retransmissions), and exchanges of no schedule.
#pragma once

#include <vector>

#include "topomoe/communicator.hpp"

namespace topomoe {

struct Traffic {
  double payload_bytes = 0, metadata_bytes = 0;
  long messages = 0;
  bool operator==(const Traffic&) const = default;
};

class CountingCommunicator final : public Communicator {
 public:
  // `inner` must outlive it. Channels opened on `inner` directly are not known here.
  explicit CountingCommunicator(Communicator& inner);

  // By world rank of the peer; the own entry stays zero.
  const std::vector<Traffic>& sent() const { return sent_; }
  void reset();

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  std::string refuses(const Device& device) const override { return inner_.refuses(device); }
  ChannelId open_channel(std::span<const int> members) override;
  EventPtr exchange(ChannelId channel, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                    const ExchangeInfo& info) override;
  void progress() override { inner_.progress(); }
  void barrier() override { inner_.barrier(); }
  void fail(const Failure& failure) noexcept override { inner_.fail(failure); }

 private:
  Communicator& inner_;
  std::vector<std::vector<int>> members_;  // world ranks, by channel opened through this adaptor
  std::vector<ChannelId> inner_channel_;
  std::vector<Traffic> sent_;
};

}  // namespace topomoe
