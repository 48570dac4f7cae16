// Ranks as threads of one process: the embedded default, and what most tests run on. A transfer is one
// memcpy, done by whichever of the two ranks comes second; nothing is staged.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "topomoe/communicator.hpp"

namespace topomoe {

// One communicator a rank, all of one world. Each may be used from one thread at a time.
std::vector<std::unique_ptr<Communicator>> make_inproc_world(int size);

// Runs body(rank's communicator) on `size` threads and rethrows the first error; the others are aborted.
void run_inproc(int size, const std::function<void(Communicator&)>& body);

}  // namespace topomoe
