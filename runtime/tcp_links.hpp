// The connections of one rank and what is under way on them: messages in order, as fast as the sockets take them.
//
// A message is eight bytes of length and the payload, straight from and to the caller's memory. A wrong length is found
// out by the receiver, who reads over it, so that what follows is not disturbed.
#pragma once

#include <poll.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "runtime/socket.hpp"

namespace topomoe {

// The transfers of one exchange.
struct TcpFlight {
  struct Part {
    int peer = -1;  // world rank
    std::size_t bytes = 0;
    bool receive = false, over = false;
  };
  std::string step;
  std::vector<Part> parts;
  std::size_t remaining = 0;
  // The first part that failed, why, and whether the connection broke.
  Part failed;
  std::string failure;
  bool peer_broke = false;
  std::shared_ptr<const void> keeps;  // memory of the transfers that is nobody else's

  bool over() const { return remaining == 0 || !failure.empty(); }
  void finish(std::size_t part) { parts[part].over = true, --remaining; }
  void fail(std::size_t part, const std::string& why, bool broke);
};
using TcpFlightPtr = std::shared_ptr<TcpFlight>;

// One connection to one peer, or, without a socket, to the rank itself.
class TcpLink {
 public:
  TcpLink() = default;
  explicit TcpLink(Socket socket) : socket_(std::move(socket)) {}

  void send(const void* data, std::size_t bytes, const TcpFlightPtr& flight, std::size_t part);
  void receive(void* data, std::size_t bytes, const TcpFlightPtr& flight, std::size_t part);
  bool idle() const { return sends_.empty() && receives_.empty(); }
  int fd() const { return socket_.fd(); }
  short wants() const;  // what to poll for
  void move();          // as much as goes without blocking
  void close();         // what is under way stays undone; the caller's memory is not touched any more

 private:
  struct Message {
    const std::byte* from = nullptr;  // of a send
    std::byte* to = nullptr;          // of a receive
    std::uint64_t bytes = 0;          // of the payload; what is expected, of a receive
    std::uint64_t length = 0;         // the header
    std::uint64_t done = 0;           // header and payload
    TcpFlightPtr flight;
    std::size_t part = 0;
  };
  bool move_out();
  bool move_in();
  void move_self();
  void broken(const std::string& why);

  Socket socket_;
  std::deque<Message> sends_, receives_;
  std::string broken_;
};

// Those with something under way.
class TcpTraffic {
 public:
  void add(TcpLink& link);
  // Moves what can be moved; where nothing can, sleeps until something can, no longer than `patience`.
  void move(std::chrono::milliseconds patience);
  void clear() { busy_.clear(); }

 private:
  std::vector<TcpLink*> busy_;
  std::vector<pollfd> polls_;
};

}  // namespace topomoe
