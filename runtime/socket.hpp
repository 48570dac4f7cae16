// TCP over IPv4 as far as ranks need it: sockets that close themselves, whole messages with a deadline.
//
// All sockets are nonblocking, and a broken connection is an error of the call, never SIGPIPE. The functions with a
// deadline block until it; they are for coming together, not for moving payload. Ignored: IPv6.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

namespace topomoe {

// What went wrong with a connection; who it concerns is the caller's to say.
class SocketError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Socket();
  int fd() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

struct Ipv4 {
  std::uint32_t address = 0;  // network byte order
  std::uint16_t port = 0;     // host byte order
};

using SocketDeadline = std::chrono::steady_clock::time_point;

// Throws InvalidInput for a name that has no IPv4 address.
std::uint32_t resolve_ipv4(const std::string& host);
// "10.0.0.1:29500"
std::string text_of(const Ipv4& place);

// On all addresses of this host; port 0: any that is free. Throws SocketError.
Socket listen_on(std::uint16_t port);
std::uint16_t port_of(const Socket& listener);
// Tries again while nobody listens there yet. Throws SocketError at the deadline.
Socket connect_to(const Ipv4& place, SocketDeadline deadline);
// Nothing at the deadline. `from` is the peer's address.
std::optional<Socket> accept_one(const Socket& listener, SocketDeadline deadline, Ipv4* from = nullptr);
// Throw SocketError when the peer is gone or the deadline passes.
void send_whole(const Socket& to, const void* data, std::size_t bytes, SocketDeadline deadline);
void receive_whole(const Socket& from, void* data, std::size_t bytes, SocketDeadline deadline);
// Whether the peer has closed the connection, or does by the deadline.
bool is_closed(const Socket& s, SocketDeadline deadline);

}  // namespace topomoe
