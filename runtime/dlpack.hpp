// Tensors of other frameworks, as DLPack hands them over: checked to be what a call needs, and ours handed out.
//
// Nothing is copied, so that rows must lie one after another. Leading dimensions are rows, however many: [batch,
// sequence, hidden] is as good as [rows, hidden]. Ignored: the producer's stream (hand over what is complete), lanes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "topomoe/device.hpp"
#include "topomoe/dlpack.h"

namespace topomoe {

enum class DlElement : std::uint8_t { f32, bf16, i32 };
inline DlElement dl_element(DType t) { return t == DType::f32 ? DlElement::f32 : DlElement::bf16; }

// Where tensors lie: a device's memory. GPUs are told apart as DLPack and CUDA count them.
struct DlPlace {
  DlPlace(MemorySpace its_memory, int its_ordinal = 0) : memory(its_memory), ordinal(its_ordinal) {}  // NOLINT
  DlPlace(const Device& d) : DlPlace(d.memory_space(), d.ordinal()) {}                                // NOLINT
  MemorySpace memory;
  int ordinal;  // of a GPU
};

struct DlRows {
  void* data = nullptr;
  std::int64_t rows = 0;
};

// Throws InvalidInput named after `name` for another element, width, device, or rows that do not follow one another.
// `written`: what is marked read-only is refused.
DlRows read_dlpack(const DLManagedTensor& tensor, const std::string& name, DlElement element, std::int64_t columns,
                   const DlPlace& place, bool written = false);

// [rows, columns]; `keep` lives until the deleter is called, by whom it is taken.
DLManagedTensor* make_dlpack(const void* data, std::int64_t rows, std::int64_t columns, DlElement element,
                             const DlPlace& place, std::shared_ptr<const void> keep);

// Takes `tensor` over: its deleter is called by that of the result. Throws InvalidInput for a version that is not 1.x,
// and leaves the tensor to the caller.
DLManagedTensor* unversioned(DLManagedTensorVersioned* tensor);

}  // namespace topomoe
