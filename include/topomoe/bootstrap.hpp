// How ranks that cannot talk yet agree on a few bytes, such as NCCL's unique id: rank 0 has them, and after
// the call all have. What MPI's or torchrun's rendezvous is to others.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <string>

#include "topomoe/communicator.hpp"

namespace topomoe {

// Collective: rank 0's `bytes` bytes of host memory overwrite everyone's. Throws TransportError.
using Broadcast = std::function<void(void* data, std::size_t bytes)>;

// Over any communicator of host memory (mpi, inproc), which must outlive it. Opens a channel right away,
// so that making it is collective.
Broadcast broadcast_over(Communicator& communicator);

// Through files that all ranks see: the n-th call uses path.n. Rank 0 writes, the others wait for it to appear.
// `path` must be new to the job (put the job's id in it), since a file of an earlier job would be believed;
// rank 0 refuses one that is there. The files stay.
Broadcast broadcast_through_file(std::string path, int rank,
                                 std::chrono::milliseconds deadline = std::chrono::seconds(30));

}  // namespace topomoe
