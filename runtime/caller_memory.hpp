// Memory of a caller's Allocator as a device hands it out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "topomoe/allocator.hpp"
#include "topomoe/device.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

inline DeviceMemory take_memory(const Allocator& from, std::size_t bytes, std::size_t alignment,
                                const std::string& device) {
  bytes = std::max<std::size_t>(bytes, 1);
  void* const memory = from.allocate(bytes, from.state);
  if (memory == nullptr)
    throw MissingEnvironment(device + ": the caller's allocator has no " + std::to_string(bytes) + " bytes");
  const auto give_back = [from, bytes](std::byte* p) {
    if (from.release != nullptr) from.release(p, bytes, from.state);
  };
  if (reinterpret_cast<std::uintptr_t>(memory) % alignment != 0) {
    give_back(static_cast<std::byte*>(memory));
    throw InvalidInput("allocator", "memory that is not aligned to " + std::to_string(alignment) + " bytes",
                       "kernels and copies need it");
  }
  return {static_cast<std::byte*>(memory), give_back};
}

}  // namespace topomoe
