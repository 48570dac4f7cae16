// Where one matrix of each of a rank's experts lies: in one block, expert after expert, or each by itself, as
// frameworks hold them (Megatron's grouped GEMM one tensor an expert, Hugging Face a list of modules; of a fused gate
// and up, one after the other, up begins behind gate's rows). Views: `each` is read during calls only, what it points
// at like any tensor. Each matrix is contiguous.
#pragma once

#include <cstddef>
#include <cstdint>

#include "topomoe/device.hpp"

namespace topomoe {

struct ExpertMatrices {
  ExpertMatrices(const void* block = nullptr) : first(block) {}  // NOLINT: a pointer to one block is meant to convert
  // One pointer an expert, in the order of local experts; the array is host memory.
  static ExpertMatrices one_by_one(const void* const* pointers) {
    ExpertMatrices m;
    m.each = pointers;
    return m;
  }
  explicit operator bool() const { return first != nullptr || each != nullptr; }
  const void* of(std::int64_t expert, std::int64_t elements, DType dtype) const {
    if (each != nullptr) return each[expert];
    return static_cast<const std::byte*>(first) + expert * elements * static_cast<std::int64_t>(size_of(dtype));
  }

  const void* first;
  const void* const* each = nullptr;
};

// The same of fp32 gradients, which are added to.
struct ExpertGradients {
  ExpertGradients(float* block = nullptr) : first(block) {}  // NOLINT
  static ExpertGradients one_by_one(float* const* pointers) {
    ExpertGradients g;
    g.each = pointers;
    return g;
  }
  explicit operator bool() const { return first != nullptr || each != nullptr; }
  float* of(std::int64_t expert, std::int64_t elements) const {
    return each != nullptr ? each[expert] : first + expert * elements;
  }

  float* first;
  float* const* each = nullptr;
};

}  // namespace topomoe
