#include "runtime/socket.hpp"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

std::string reason(int code) { return std::strerror(code); }

Socket tcp_socket() {
  Socket s(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!s) throw SocketError("no socket: " + reason(errno));
  return s;
}

// Small messages must not wait for the acknowledgement of those before them.
void no_delay(const Socket& s) {
  const int yes = 1;
  (void)setsockopt(s.fd(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

// False at the deadline.
bool wait_for(const Socket& s, short what, SocketDeadline deadline) {
  while (true) {
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - Clock::now()).count();
    pollfd p{s.fd(), what, 0};
    const int got = poll(&p, 1, static_cast<int>(std::clamp<long long>(left + 1, 0, 1000)));
    if (got > 0) return true;
    if (got < 0 && errno != EINTR) throw SocketError("poll: " + reason(errno));
    if (Clock::now() >= deadline) return false;
  }
}

sockaddr_in address_of(const Ipv4& place) {
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_addr.s_addr = place.address;
  a.sin_port = htons(place.port);
  return a;
}

// 0, or why not.
int try_connect(const Socket& s, const Ipv4& place, SocketDeadline deadline) {
  const sockaddr_in a = address_of(place);
  if (connect(s.fd(), reinterpret_cast<const sockaddr*>(&a), sizeof a) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  if (!wait_for(s, POLLOUT, deadline)) return ETIMEDOUT;
  int error = 0;
  socklen_t length = sizeof error;
  if (getsockopt(s.fd(), SOL_SOCKET, SO_ERROR, &error, &length) != 0) return errno;
  return error;
}

}  // namespace

Socket::~Socket() {
  if (fd_ >= 0) close(fd_);
}

std::uint32_t resolve_ipv4(const std::string& host) {
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int code = getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (code != 0 || found == nullptr)
    throw InvalidInput("address", host, std::string("a host with an IPv4 address is needed: ") + gai_strerror(code));
  const std::uint32_t address = reinterpret_cast<const sockaddr_in*>(found->ai_addr)->sin_addr.s_addr;
  freeaddrinfo(found);
  return address;
}

std::string text_of(const Ipv4& place) {
  char text[INET_ADDRSTRLEN] = {};
  const in_addr address{place.address};
  (void)inet_ntop(AF_INET, &address, text, sizeof text);
  return std::string(text) + ":" + std::to_string(place.port);
}

Socket listen_on(std::uint16_t port) {
  Socket s = tcp_socket();
  const int yes = 1;
  (void)setsockopt(s.fd(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);  // a job that just ended is no hindrance
  const sockaddr_in any = address_of({htonl(INADDR_ANY), port});
  if (bind(s.fd(), reinterpret_cast<const sockaddr*>(&any), sizeof any) != 0 || listen(s.fd(), SOMAXCONN) != 0)
    throw SocketError("port " + std::to_string(port) + ": " + reason(errno));
  return s;
}

std::uint16_t port_of(const Socket& listener) {
  sockaddr_in a{};
  socklen_t length = sizeof a;
  if (getsockname(listener.fd(), reinterpret_cast<sockaddr*>(&a), &length) != 0)
    throw SocketError("getsockname: " + reason(errno));
  return ntohs(a.sin_port);
}

Socket connect_to(const Ipv4& place, SocketDeadline deadline) {
  while (true) {
    Socket s = tcp_socket();
    const int error = try_connect(s, place, deadline);
    if (error == 0) {
      no_delay(s);
      return s;
    }
    if (Clock::now() >= deadline) throw SocketError(text_of(place) + ": " + reason(error) + " until the deadline");
    std::this_thread::sleep_for(milliseconds(10));
  }
}

std::optional<Socket> accept_one(const Socket& listener, SocketDeadline deadline, Ipv4* from) {
  while (wait_for(listener, POLLIN, deadline)) {
    sockaddr_in a{};
    socklen_t length = sizeof a;
    Socket s(accept4(listener.fd(), reinterpret_cast<sockaddr*>(&a), &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (s) {
      no_delay(s);
      if (from != nullptr) *from = {a.sin_addr.s_addr, ntohs(a.sin_port)};
      return s;
    }
    // Who is gone again before it was accepted is no error of the listener.
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) throw SocketError("accept: " + reason(errno));
  }
  return std::nullopt;
}

void send_whole(const Socket& to, const void* data, std::size_t bytes, SocketDeadline deadline) {
  const auto* at = static_cast<const std::byte*>(data);
  while (bytes > 0) {
    const ssize_t sent = send(to.fd(), at, bytes, MSG_NOSIGNAL);
    if (sent > 0) {
      at += sent, bytes -= static_cast<std::size_t>(sent);
      continue;
    }
    if (errno != EAGAIN && errno != EINTR) throw SocketError("send: " + reason(errno));
    if (!wait_for(to, POLLOUT, deadline)) throw SocketError("send: the deadline has passed");
  }
}

void receive_whole(const Socket& from, void* data, std::size_t bytes, SocketDeadline deadline) {
  auto* at = static_cast<std::byte*>(data);
  while (bytes > 0) {
    const ssize_t got = recv(from.fd(), at, bytes, 0);
    if (got > 0) {
      at += got, bytes -= static_cast<std::size_t>(got);
      continue;
    }
    if (got == 0) throw SocketError("the connection was closed");
    if (errno != EAGAIN && errno != EINTR) throw SocketError("receive: " + reason(errno));
    if (!wait_for(from, POLLIN, deadline)) throw SocketError("receive: the deadline has passed");
  }
}

bool is_closed(const Socket& s, SocketDeadline deadline) {
  while (true) {
    std::byte next{};
    const ssize_t got = recv(s.fd(), &next, 1, MSG_PEEK);
    if (got > 0) return false;
    if (got == 0) return true;
    if (errno != EAGAIN && errno != EINTR) return true;
    if (Clock::now() >= deadline || !wait_for(s, POLLIN, deadline)) return false;
  }
}

}  // namespace topomoe
