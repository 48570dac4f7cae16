// Walking tensors whose element type is known at run time, and rows sorted by expert.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "topomoe/device.hpp"

namespace topomoe::kernels {

inline const void* element_at(const void* base, std::int64_t element, DType dtype) {
  return static_cast<const std::byte*>(base) + element * static_cast<std::int64_t>(size_of(dtype));
}
inline void* element_at(void* base, std::int64_t element, DType dtype) {
  return static_cast<std::byte*>(base) + element * static_cast<std::int64_t>(size_of(dtype));
}

// Calls f(expert, first row, row count) for each expert that has rows.
template <class F>
void for_each_expert(std::span<const std::int64_t> offsets, F&& f) {
  for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
    const std::int64_t rows = offsets[e + 1] - offsets[e];
    if (rows > 0) f(static_cast<std::int64_t>(e), offsets[e], rows);
  }
}

}  // namespace topomoe::kernels
