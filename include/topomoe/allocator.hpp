// A device's memory from whoever embeds us: a framework's caching allocator, so that two pools do not starve each
// other.
//
// Asked for arenas, seldom (runtime/layer_memory.hpp): in a layer's first steps, and where counts grow.
#pragma once

#include <cstddef>

namespace topomoe {

struct Allocator {
  // At least `bytes` (never 0) of the device's memory, 64-byte aligned, on CUDA 256; null: there is none left. On CUDA
  // usable by all streams at once, as cudaMalloc's is.
  void* (*allocate)(std::size_t bytes, void* state) = nullptr;
  // By the thread that drops the last user: the rank's own, or whoever frees a handle. No work is under way in it.
  void (*release)(void* memory, std::size_t bytes, void* state) = nullptr;
  void* state = nullptr;
  explicit operator bool() const { return allocate != nullptr; }
};

}  // namespace topomoe
