#include "runtime/tcp_links.hpp"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace topomoe {
namespace {

constexpr std::uint64_t kHeader = sizeof(std::uint64_t);
// What one link may move before the others have their turn. Assumed: many times what a socket buffer holds is unfair,
// much less costs system calls.
constexpr std::uint64_t kTurn_bytes = std::uint64_t{4} << 20;

bool again(int code) { return code == EAGAIN || code == EWOULDBLOCK || code == EINTR; }

}  // namespace

void TcpFlight::fail(std::size_t part, const std::string& why, bool broke) {
  if (!failure.empty()) return;
  failed = parts[part];
  failure = why;
  peer_broke = broke;
}

void TcpLink::send(const void* data, std::size_t bytes, const TcpFlightPtr& flight, std::size_t part) {
  if (!broken_.empty()) return flight->fail(part, broken_, true);
  sends_.push_back({.from = static_cast<const std::byte*>(data),
                    .bytes = bytes,
                    .length = bytes,
                    .done = 0,
                    .flight = flight,
                    .part = part});
}

void TcpLink::receive(void* data, std::size_t bytes, const TcpFlightPtr& flight, std::size_t part) {
  if (!broken_.empty()) return flight->fail(part, broken_, true);
  receives_.push_back({.to = static_cast<std::byte*>(data), .bytes = bytes, .flight = flight, .part = part});
}

short TcpLink::wants() const {
  return static_cast<short>((sends_.empty() ? 0 : POLLOUT) | (receives_.empty() ? 0 : POLLIN));
}

void TcpLink::broken(const std::string& why) {
  broken_ = why;
  for (auto* queue : {&receives_, &sends_}) {
    for (const Message& m : *queue) m.flight->fail(m.part, why, true);
    queue->clear();
  }
}

void TcpLink::close() {
  sends_.clear();
  receives_.clear();
  broken_ = "this rank gave up";
  socket_ = Socket();
}

// True while there is more to move.
bool TcpLink::move_out() {
  Message& m = sends_.front();
  std::array<iovec, 2> parts{};
  std::size_t count = 0;
  if (m.done < kHeader)
    parts[count++] = {reinterpret_cast<std::byte*>(&m.length) + m.done, static_cast<std::size_t>(kHeader - m.done)};
  const std::uint64_t payload_done = m.done < kHeader ? 0 : m.done - kHeader;
  parts[count++] = {const_cast<std::byte*>(m.from) + payload_done, static_cast<std::size_t>(m.bytes - payload_done)};
  msghdr message{};
  message.msg_iov = parts.data(), message.msg_iovlen = count;
  const ssize_t sent = sendmsg(socket_.fd(), &message, MSG_NOSIGNAL);
  if (sent < 0) {
    if (!again(errno)) broken(std::string("send: ") + std::strerror(errno));
    return false;
  }
  m.done += static_cast<std::uint64_t>(sent);
  if (m.done < kHeader + m.bytes) return true;
  m.flight->finish(m.part);
  sends_.pop_front();
  return !sends_.empty();
}

bool TcpLink::move_in() {
  Message& m = receives_.front();
  std::array<std::byte, 65536> unwanted;
  std::byte* to = nullptr;
  std::uint64_t room = 0;
  if (m.done < kHeader) {
    to = reinterpret_cast<std::byte*>(&m.length) + m.done, room = kHeader - m.done;
  } else if (m.length == m.bytes) {
    to = m.to + (m.done - kHeader), room = kHeader + m.bytes - m.done;
  } else {
    to = unwanted.data(), room = std::min<std::uint64_t>(unwanted.size(), kHeader + m.length - m.done);
  }
  const ssize_t got = recv(socket_.fd(), to, room, 0);
  if (got <= 0) {
    if (got == 0) {
      broken("the peer closed the connection");
    } else if (!again(errno)) {
      broken(std::string("receive: ") + std::strerror(errno));
    }
    return false;
  }
  m.done += static_cast<std::uint64_t>(got);
  if (m.done < kHeader || m.done < kHeader + m.length) return true;
  if (m.length != m.bytes)
    m.flight->fail(m.part,
                   "the peer sends " + std::to_string(m.length) + " bytes, expected are " + std::to_string(m.bytes),
                   false);
  m.flight->finish(m.part);
  receives_.pop_front();
  return !receives_.empty();
}

void TcpLink::move_self() {
  while (!sends_.empty() && !receives_.empty()) {
    const Message &out = sends_.front(), &in = receives_.front();
    if (out.bytes == in.bytes) {
      std::memcpy(in.to, out.from, in.bytes);
    } else {
      in.flight->fail(
          in.part,
          "this rank sends itself " + std::to_string(out.bytes) + " bytes, expected are " + std::to_string(in.bytes),
          false);
    }
    out.flight->finish(out.part), in.flight->finish(in.part);
    sends_.pop_front(), receives_.pop_front();
  }
}

void TcpLink::move() {
  if (!socket_) return move_self();
  const auto turn = [](auto& queue, auto one) {
    for (std::uint64_t moved = 0; !queue.empty() && moved < kTurn_bytes;) {
      const std::uint64_t before = queue.front().done;
      const std::size_t length = queue.size();
      if (!one()) return;
      if (queue.size() == length) moved += queue.front().done - before;
    }
  };
  turn(receives_, [&] { return move_in(); });
  turn(sends_, [&] { return move_out(); });
}

void TcpTraffic::add(TcpLink& link) {
  if (std::find(busy_.begin(), busy_.end(), &link) == busy_.end()) busy_.push_back(&link);
}

void TcpTraffic::move(std::chrono::milliseconds patience) {
  std::erase_if(busy_, [](const TcpLink* l) { return l->idle(); });
  polls_.clear();
  for (const TcpLink* l : busy_) polls_.push_back({l->fd(), l->wants(), 0});  // of a rank to itself -1: passed over
  const int ready = poll(polls_.data(), static_cast<nfds_t>(polls_.size()), static_cast<int>(patience.count()));
  for (std::size_t i = 0; i < busy_.size(); ++i)
    if (busy_[i]->fd() < 0 || (ready > 0 && polls_[i].revents != 0)) busy_[i]->move();
  std::erase_if(busy_, [](const TcpLink* l) { return l->idle(); });
}

}  // namespace topomoe
