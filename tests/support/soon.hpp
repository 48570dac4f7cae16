// The deadline of waits in tests that are not about deadlines: long enough for a machine that others use.
#pragma once

#include <chrono>

namespace topomoe::testing {

inline std::chrono::steady_clock::time_point soon() {
  return std::chrono::steady_clock::now() + std::chrono::seconds(60);
}

}  // namespace topomoe::testing
