// How processes that only know rank 0's address find each other: all tell rank 0 where they listen, rank 0 tells all.
//
// Rank 0 listens at the address's port until all ranks are there; what speaks another language there is ignored. A rank
// whose process ends before that counts as not come: one that is started again takes its place. Two that live are
// refused.
// A rank is reached at the address that rank 0 saw it come from, so that the network is the one that the master
// address names; where that is loopback and the hosts differ, at an address in a network that both are in.
// Ignored: ranks of unlike byte order, translated addresses that only rank 0 sees.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "runtime/distress.hpp"
#include "runtime/socket.hpp"
#include "topomoe/communicator_tcp.hpp"

namespace topomoe {

struct TcpWorld {
  std::vector<Ipv4> listeners;            // by rank, as this rank reaches them
  std::vector<DistressAddress> distress;  // by rank
  std::uint64_t job = 0;                  // a random number that only this job's ranks know
};

// Collective. `listener` is the port of this rank's own. Throws TransportError when ranks are missing at the deadline,
// InvalidInput where they disagree on who they are, or rank 0's port is taken.
TcpWorld meet(const TcpPlace& place, std::uint16_t listener, const DistressAddress& mine, SocketDeadline deadline);

}  // namespace topomoe
