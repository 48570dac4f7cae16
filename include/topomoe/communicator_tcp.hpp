// Ranks as plain processes that exchange host memory over TCP: what torchrun, ssh or a shell loop starts, no MPI.
//
// A channel has a connection of its own between each two members, made when it is opened, so that channels are
// independent and nothing is buffered here: who is not ready to receive makes the sender wait. Transfers move while
// the rank's thread is inside a call: waits sleep in poll(), long kernels must call progress(). Every wait has a
// deadline, opening a channel too. A process that dies breaks its connections, and is named at once; of one that is
// silent, ranks ask each other at the deadline (runtime/distress.hpp). Slower than MPI's shared memory inside a host.
// After a TransportError call fail(): until then buffers belong to the communicator.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "topomoe/communicator.hpp"
#include "topomoe/launcher_env.hpp"

namespace topomoe {

class BlackBox;

// Which rank this is, and where rank 0 is to be found.
struct TcpPlace {
  int rank = 0, size = 1;
  std::string address;  // of rank 0, in the network that ranks are to use; none needed for one rank
  int port = 0;         // at which rank 0 listens until all have come
};

// Rank and size as the launcher says, MASTER_ADDR, and TOPOMOE_MASTER_PORT or MASTER_PORT. Throws InvalidInput by
// variable; also where torchrun keeps its own store at MASTER_PORT and TOPOMOE_MASTER_PORT is missing.
TcpPlace read_tcp_place(const EnvironmentLookup& lookup);

struct TcpOptions {
  std::chrono::milliseconds deadline = std::chrono::seconds(30);  // of coming together, opening channels, barriers
  // Told of every wait; for whoever speaks a process's last words. Must outlive the communicator.
  BlackBox* black_box = nullptr;
};

// Collective over all ranks.
std::unique_ptr<Communicator> make_tcp_communicator(const TcpPlace& place, const TcpOptions& options = {});

}  // namespace topomoe
