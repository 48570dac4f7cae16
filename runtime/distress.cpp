#include "runtime/distress.hpp"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/errqueue.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <string_view>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Clock = std::chrono::steady_clock;  // clock_gettime: async-signal-safe

std::size_t at(int rank) { return static_cast<std::size_t>(rank); }

bool carries(unsigned flags) { return (flags & IFF_UP) != 0 && (flags & IFF_RUNNING) != 0; }

}  // namespace

std::uint32_t address_between(const DistressAddress& mine, const DistressAddress& theirs) {
  if (theirs.host == mine.host) return htonl(INADDR_LOOPBACK);
  // A network that both are in, else whatever routes to their first address.
  std::uint32_t address = theirs.address[0];
  for (std::uint32_t i = 0; i < theirs.count; ++i)
    for (std::uint32_t k = 0; k < mine.count; ++k)
      if ((theirs.address[i] & mine.mask[k]) == (mine.address[k] & mine.mask[k])) address = theirs.address[i];
  return address;
}

struct Distress::Datagram {
  std::uint64_t job;
  Kind kind;
  std::int32_t from, culprit, cut_off;
  Wait wait;
};

Distress::Distress(int rank, int size, BlackBox& box)
    : rank_(rank),
      box_(box),
      peers_(at(size)),
      waits_(at(size)),
      alive_(at(size)),
      refused_(at(size)),
      cut_off_(at(size)),
      failed_ranks_(at(size)),
      blameless_(at(size)),
      seen_(at(size)),
      queue_(at(size)) {
  socket_ = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_in any{};
  any.sin_family = AF_INET;
  const int yes = 1;
  socklen_t length = sizeof any;
  // IP_RECVERR: who refused a datagram is known by address, though the socket is connected to nobody.
  if (socket_ < 0 || bind(socket_, reinterpret_cast<const sockaddr*>(&any), sizeof any) != 0 ||
      setsockopt(socket_, IPPROTO_IP, IP_RECVERR, &yes, sizeof yes) != 0 ||
      getsockname(socket_, reinterpret_cast<sockaddr*>(&any), &length) != 0) {
    if (socket_ >= 0) close(socket_);
    throw MissingEnvironment("udp: no socket to tell other ranks of a failure by");
  }
  mine_.port = any.sin_port;
  std::array<char, 256> name{};
  (void)gethostname(name.data(), name.size() - 1);
  mine_.host = std::hash<std::string_view>()(name.data());
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return;
  for (const ifaddrs* i = list; i != nullptr && mine_.count < std::size(mine_.address); i = i->ifa_next) {
    if (i->ifa_addr == nullptr || i->ifa_addr->sa_family != AF_INET || i->ifa_netmask == nullptr) continue;
    if ((i->ifa_flags & IFF_LOOPBACK) != 0 || !carries(i->ifa_flags)) continue;
    const std::string_view interface(i->ifa_name);
    std::copy_n(interface.begin(), std::min<std::size_t>(interface.size(), IFNAMSIZ - 1),
                interfaces_[mine_.count].begin());
    mine_.address[mine_.count] = reinterpret_cast<const sockaddr_in*>(i->ifa_addr)->sin_addr.s_addr;
    mine_.mask[mine_.count++] = reinterpret_cast<const sockaddr_in*>(i->ifa_netmask)->sin_addr.s_addr;
  }
  freeifaddrs(list);
}

Distress::~Distress() { close(socket_); }

void Distress::connect(const std::vector<DistressAddress>& all, std::uint64_t job) {
  job_ = job;
  for (std::size_t r = 0; r < all.size(); ++r) {
    const DistressAddress& theirs = all[r];
    Routes& routes = peers_[r];
    const auto add = [&](std::uint32_t address) {
      if (routes.count == routes.to.size()) return;
      sockaddr_in& to = routes.to[routes.count++];
      to.sin_family = AF_INET;
      to.sin_port = theirs.port;
      to.sin_addr.s_addr = address;
    };
    if (theirs.host == mine_.host) {
      add(htonl(INADDR_LOOPBACK));
      continue;
    }
    for (std::uint32_t i = 0; i < theirs.count; ++i)
      for (std::uint32_t k = 0; k < mine_.count; ++k)
        if ((theirs.address[i] & mine_.mask[k]) == (mine_.address[k] & mine_.mask[k])) {
          add(theirs.address[i]);
          break;
        }
    // No network in common: whatever routes to their first address.
    if (routes.count == 0) add(theirs.address[0]);
  }
}

void Distress::send(Kind kind, int to) noexcept {
  const Datagram d{job_, kind, rank_, culprit_, lost_an_interface() ? 1 : 0, box_.read()};
  const Routes& routes = peers_[at(to)];
  for (std::size_t i = 0; i < routes.count; ++i) {
    const auto* address = reinterpret_cast<const sockaddr*>(&routes.to[i]);
    // An earlier datagram's error is reported by whichever send comes next, which then sends nothing.
    for (int attempt = 0; attempt < 3; ++attempt) {
      if (sendto(socket_, &d, sizeof d, 0, address, sizeof routes.to[i]) >= 0) break;
      read_refusals();
    }
  }
}

void Distress::broadcast(Kind kind) noexcept {
  for (int r = 0; r < static_cast<int>(peers_.size()); ++r)
    if (r != rank_ && refused_[at(r)] == 0) send(kind, r);
}

void Distress::read_refusals() noexcept {
  while (true) {
    sockaddr_in whose{};
    std::array<char, 512> control{};
    msghdr message{};
    message.msg_name = &whose, message.msg_namelen = sizeof whose;
    message.msg_control = control.data(), message.msg_controllen = control.size();
    if (recvmsg(socket_, &message, MSG_ERRQUEUE) < 0) return;
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
      if (c->cmsg_level != IPPROTO_IP || c->cmsg_type != IP_RECVERR) continue;
      if (reinterpret_cast<const sock_extended_err*>(CMSG_DATA(c))->ee_errno != ECONNREFUSED) continue;
      for (std::size_t r = 0; r < peers_.size(); ++r)
        for (std::size_t i = 0; i < peers_[r].count; ++i) {
          const sockaddr_in& to = peers_[r].to[i];
          if (to.sin_port == whose.sin_port && to.sin_addr.s_addr == whose.sin_addr.s_addr) refused_[r] = 1;
        }
    }
  }
}

int Distress::look() noexcept {
  Datagram d{};
  // Errors of datagrams sent earlier come between the mail; the bound is against one that never ends.
  for (int errors = 0; errors < 1000;) {
    const auto got = recv(socket_, &d, sizeof d, 0);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    if (got < 0) {
      ++errors;
      read_refusals();
      continue;
    }
    const int size = static_cast<int>(peers_.size());
    if (got != static_cast<ssize_t>(sizeof d) || d.job != job_ || d.from < 0 || d.from >= size || d.culprit >= size)
      continue;
    alive_[at(d.from)] = 1;
    waits_[at(d.from)] = d.wait;
    cut_off_[at(d.from)] = static_cast<unsigned char>(d.cut_off != 0);
    if (d.kind == Kind::failed) failed_ranks_[at(d.from)] = 1;
    if (d.culprit >= 0 && culprit_ < 0) culprit_ = d.culprit;
    if (d.kind == Kind::ask) send(failed_ ? Kind::failed : Kind::state, d.from);
  }
  return culprit_;
}

// Ranks that failed are no culprits even where their sockets are closed by now.
int Distress::dead_culprit() noexcept {
  for (std::size_t r = 0; r < refused_.size(); ++r) {
    blameless_[r] = static_cast<unsigned char>(refused_[r] == 0 || failed_ranks_[r] != 0);
    if (refused_[r] != 0) waits_[r].count = 0;  // whatever it said before
  }
  return search();
}

// By name, as an interface that is gone has no number; an ioctl, as getifaddrs is not async-signal-safe.
bool Distress::lost_an_interface() const noexcept {
  for (std::uint32_t i = 0; i < mine_.count; ++i) {
    ifreq request{};
    std::copy(interfaces_[i].begin(), interfaces_[i].end(), request.ifr_name);
    if (ioctl(socket_, SIOCGIFFLAGS, &request) != 0 || !carries(static_cast<unsigned short>(request.ifr_flags)))
      return true;
  }
  return false;
}

// The first of those that say so, so that all name the same one of a host.
int Distress::cut_off_culprit() const noexcept {
  const bool mine = lost_an_interface();
  for (std::size_t r = 0; r < cut_off_.size(); ++r)
    if (r == at(rank_) ? mine : cut_off_[r] != 0) return static_cast<int>(r);
  return -1;
}

int Distress::search() noexcept {
  if (waits_[at(rank_)].count > 0) return find_culprit(rank_, waits_, blameless_, queue_, seen_);
  for (std::size_t r = 0; r < blameless_.size(); ++r)
    if (blameless_[r] == 0 && r != at(rank_)) return static_cast<int>(r);
  return -1;
}

void Distress::sleep_until_mail() noexcept {
  pollfd p{socket_, POLLIN, 0};
  (void)poll(&p, 1, 10);
}

void Distress::start_asking() noexcept {
  std::fill(alive_.begin(), alive_.end(), static_cast<unsigned char>(0));
  for (Wait& w : waits_) w.count = 0;
  asked_ = Clock::now();
  broadcast(Kind::ask);
}

int Distress::dead_or_silent(std::chrono::milliseconds patience) noexcept {
  waits_[at(rank_)] = box_.read();
  for (bool again = false;;) {
    if (const int named = look(); named >= 0) return named;
    if (const int dead = dead_culprit(); dead >= 0) return dead;
    if (const int cut_off = cut_off_culprit(); cut_off >= 0) return cut_off;
    const auto waited = Clock::now() - asked_;
    if (waited > patience) break;
    if (!again && waited > patience / 2) {  // what got lost
      again = true;
      broadcast(Kind::ask);
    }
    sleep_until_mail();
  }
  // Who is silent may wait for the dead and be stuck inside its transport.
  for (std::size_t r = 0; r < refused_.size(); ++r)
    if (refused_[r] != 0 && failed_ranks_[r] == 0) return static_cast<int>(r);
  for (std::size_t r = 0; r < alive_.size(); ++r)
    blameless_[r] = static_cast<unsigned char>(alive_[r] != 0 || failed_ranks_[r] != 0);
  return search();
}

int Distress::ask(std::chrono::milliseconds patience, Blame blame) noexcept {
  start_asking();
  const int culprit = dead_or_silent(patience);
  if (culprit >= 0 || blame == Blame::the_silent) return culprit;
  return find_culprit(rank_, waits_, failed_ranks_, queue_, seen_);
}

int Distress::conclude(std::chrono::milliseconds patience, Blame blame) noexcept {
  const int culprit = dead_or_silent(patience);
  return culprit >= 0 || blame == Blame::the_silent ? culprit : ask(patience, blame);
}

void Distress::tell(int culprit) noexcept {
  if (culprit_ < 0) culprit_ = culprit;
  failed_ = true;
  broadcast(Kind::failed);
}

void Distress::linger(std::chrono::milliseconds time) noexcept {
  for (const auto end = Clock::now() + time; Clock::now() < end;) {
    (void)look();
    sleep_until_mail();
  }
}

}  // namespace topomoe
