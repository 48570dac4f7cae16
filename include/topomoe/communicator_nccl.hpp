// Ranks with a GPU each that exchange GPU memory by NCCL: one group of sends and receives per exchange, on
// the stream of the lane. Metadata in host memory is staged through the GPU.
//
// A channel is an ncclComm of its own, split off once; connections are made then, by a first small
// exchange, so that a later one does not wait for its peers on the host. Exchanges on one channel run in
// the order of their start, also when they come on different lanes. Called from one thread a rank.
// GPU memory: the event is the lane's (Device::record), so that other lanes wait for it on the GPU; a
// transport that fails meanwhile is noticed by the next exchange, progress() or barrier().
// Our comms are NCCL's non-blocking ones: joining, splitting, connecting, starting and ending have a deadline (those of
// a caller's blocking comm, which is split from once, do not). fail() aborts our comms and no other. NCCL does not tell
// who failed: an error names the peer where there is one, else those that it may be.
// nccl.h is not included here; where NCCL is not built in, the factories throw MissingEnvironment.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "topomoe/bootstrap.hpp"
#include "topomoe/communicator.hpp"

namespace topomoe {

struct NcclOptions {
  // Of barriers, of joining, opening and ending, and of what a start waits for on the host.
  std::chrono::milliseconds barrier_deadline = std::chrono::seconds(30);
};

// Collective. `broadcast` hands rank 0's unique id to all and is not kept; `device` (CUDA) must outlive it.
// Throws NcclError when NCCL refuses, TransportError at the deadline, InvalidInput for a device without GPU memory or a
// rank out of range.
std::unique_ptr<Communicator> make_nccl_communicator(Device& device, int rank, int size, const Broadcast& broadcast,
                                                     const NcclOptions& options = {});

// Collective over the caller's ncclComm_t, which is split once and not used after that, nor ever aborted: where the
// split fails it may still be under way, and the comm is the caller's to abort.
std::unique_ptr<Communicator> make_nccl_communicator(Device& device, void* nccl_comm, const NcclOptions& options = {});

// One line for `topomoe --version`: NCCL as compiled and as loaded. Never throws.
std::string nccl_description();

}  // namespace topomoe
