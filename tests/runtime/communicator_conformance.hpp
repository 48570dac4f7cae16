// What every Communicator promises, as test bodies that each rank of a world runs at the same time: ranks
// that are threads (inproc), processes (mpi) or GPUs (nccl). A new backend is proven by running them all.
//
// Bodies are collective: each opens channels of its own, so that a failed one does not disturb the next.
// What only one backend can promise (a wrong size is found out, fail() unblocks) is in that backend's test.
#pragma once

#include <ostream>
#include <span>

#include "topomoe/communicator.hpp"
#include "topomoe/device.hpp"

namespace topomoe::testing {

struct ConformanceCase {
  const char* name;
  void (*body)(Communicator&, Device&);  // reports through GoogleTest, or throws
};

std::span<const ConformanceCase> conformance_cases();

// For INSTANTIATE_TEST_SUITE_P.
void PrintTo(const ConformanceCase& c, std::ostream* out);

}  // namespace topomoe::testing
