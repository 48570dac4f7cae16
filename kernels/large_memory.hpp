// Memory that is read from end to end: on large pages where the system has them (a page walk for every 4 KiB costs a
// tenth of the bandwidth), zeros at first.
#pragma once

#include <cstddef>
#include <memory>

namespace topomoe::kernels {

struct LargeMemoryFree {
  void operator()(std::byte* p) const;
};
using LargeMemory = std::unique_ptr<std::byte, LargeMemoryFree>;

// Aligned to 64 bytes at least. Throws MissingEnvironment where there is none left.
LargeMemory allocate_large(std::size_t bytes);

}  // namespace topomoe::kernels
