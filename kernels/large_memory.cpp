#include "kernels/large_memory.hpp"

#include <cstring>
#include <new>
#include <string>

#include "topomoe/error.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace topomoe::kernels {
namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kLargePage = 2 << 20;  // x86-64, and arm64 with 4 KiB pages

}  // namespace

void LargeMemoryFree::operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{kLargePage}); }

LargeMemory allocate_large(std::size_t bytes) {
  const std::size_t unit = bytes < kLargePage ? kLine : kLargePage, whole = (bytes + unit - 1) / unit * unit;
  void* memory = ::operator new (whole, std::align_val_t{kLargePage}, std::nothrow);
  if (memory == nullptr) throw MissingEnvironment("memory: no " + std::to_string(bytes) + " bytes are left");
#if defined(__linux__)
  if (unit == kLargePage) (void)madvise(memory, whole, MADV_HUGEPAGE);  // a wish
#endif
  std::memset(memory, 0, whole);
  return LargeMemory(static_cast<std::byte*>(memory));
}

}  // namespace topomoe::kernels
