#include "runtime/communicator_counting.hpp"

namespace topomoe {

CountingCommunicator::CountingCommunicator(Communicator& inner)
    : inner_(inner), sent_(static_cast<std::size_t>(inner.size())) {}

void CountingCommunicator::reset() { sent_.assign(sent_.size(), {}); }

ChannelId CountingCommunicator::open_channel(std::span<const int> members) {
  inner_channel_.push_back(inner_.open_channel(members));
  members_.emplace_back(members.begin(), members.end());
  return static_cast<ChannelId>(members_.size()) - 1;
}

EventPtr CountingCommunicator::exchange(ChannelId channel, std::span<const Outgoing> sends,
                                        std::span<const Incoming> receives, const ExchangeInfo& info) {
  const auto& members = members_.at(static_cast<std::size_t>(channel));
  EventPtr event = inner_.exchange(inner_channel_[static_cast<std::size_t>(channel)], sends, receives, info);
  if (!info.of_schedule) return event;
  for (const Outgoing& s : sends) {
    const int peer = members.at(static_cast<std::size_t>(s.peer));
    if (s.bytes == 0 || peer == rank()) continue;
    Traffic& t = sent_.at(static_cast<std::size_t>(peer));
    (info.metadata ? t.metadata_bytes : t.payload_bytes) += static_cast<double>(s.bytes);
    ++t.messages;
  }
  return event;
}

}  // namespace topomoe
