// Ranks as threads of one process: the embedded default, and what most tests run on. A transfer is one
// copy, done by whichever of the two ranks comes second; nothing is staged.
//
// Host memory is copied at once. GPU memory is copied on the lane of the rank that comes second, once the lanes of both
// have got to their exchange; the end is then waited for by the host, as no event exists before the other rank came.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "topomoe/communicator.hpp"

namespace topomoe {

// One communicator a rank, all of one world. Each may be used from one thread at a time. Waits in barriers end at
// `barrier_deadline`; the default is for ranks that share few cores with others' work.
std::vector<std::unique_ptr<Communicator>> make_inproc_world(
    int size, std::chrono::milliseconds barrier_deadline = std::chrono::minutes(10));

// The rank's GPU, before its first exchange of GPU memory; it must outlive the communicator. `inproc` is one of
// make_inproc_world's, else InvalidInput.
void use_device(Communicator& inproc, Device& device);

// Runs body(rank's communicator) on `size` threads and rethrows the first error; the others are aborted.
void run_inproc(int size, const std::function<void(Communicator&)>& body);

}  // namespace topomoe
