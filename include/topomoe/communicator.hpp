// A Communicator moves bytes between ranks. Three are real: inproc (ranks are threads), mpi (host
// memory, several machines), nccl (GPU memory, streams). Backends are thin: there is one operation,
// a nonblocking exchange over a channel, from which every collective of a Schedule is made.
//
// Contract, proven by the conformance suite of tests/runtime: exchanges on one channel are matched in the
// order in which each rank starts them; channels are independent; starting never blocks on a peer. What
// each backend must prove for itself: deadlines, failing, wrong sizes.
// Spans and names are read during the call only; data pointers until the event. An event must not outlive
// its communicator. Not thread-safe: a rank calls its communicator from one thread.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "topomoe/device.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

// A set of ranks, in an order that all of them agree on, that exchange with one another.
using ChannelId = int;

// `peer` is an index into the channel's members. Zero bytes are legal and move nothing; both sides
// know the size (a receive always states exactly what the peer sends).
struct Outgoing {
  int peer;
  const void* data;
  std::size_t bytes;
};
struct Incoming {
  int peer;
  void* data;
  std::size_t bytes;
};

// What an exchange is for. `metadata` (counts, ids, weights, scales) is counted apart from payload.
struct ExchangeInfo {
  std::string_view step;  // name in error messages
  Lane lane = Lane::inter_node;
  bool metadata = false;
  MemorySpace memory = MemorySpace::host;  // of the data pointers
  bool of_schedule = true;                 // false: what ranks tell each other beside it, which is not counted
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Why tensors of this device cannot be exchanged; empty: they can. Layers ask before they open a channel. An adaptor
  // asks whom it adapts.
  virtual std::string refuses(const Device& device) const {
    (void)device;
    return {};
  }

  // Collective over all ranks of the communicator: each passes the world ranks of the channel that it
  // is itself in (the channels of one call partition the world). Called at start, never in a step.
  virtual ChannelId open_channel(std::span<const int> members) = 0;

  // Starts all transfers and returns at once; the event happens when every byte has arrived and left.
  // Buffers belong to the communicator until then. A transfer to oneself is allowed and is a copy.
  // With GPU memory the work is ordered on the device's lane `info.lane`.
  virtual EventPtr exchange(ChannelId channel, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                            const ExchangeInfo& info) = 0;

  // Drives outstanding exchanges; never blocks. Called from inside host kernels.
  virtual void progress() = 0;
  // Waits at most as long as the backend was told when it was made (30 s by default, inproc: 10 min).
  virtual void barrier() = 0;
  // This rank gives up. Tells the others, as far as the backend can, so that their waits throw TransportError with
  // the same culprit; ends nothing but this communicator, whose calls throw from now on. noexcept: called on failure.
  virtual void fail(const Failure& failure) noexcept = 0;
};

// What a caller's own host kernels call between pieces of their work, at least every millisecond, so that exchanges go
// on beside them; from the rank's own thread. The communicator must outlive it. A layer hooks its kernels up itself.
inline ProgressHook progress_hook(Communicator& communicator) {
  return {[](void* c) { static_cast<Communicator*>(c)->progress(); }, &communicator};
}

}  // namespace topomoe
