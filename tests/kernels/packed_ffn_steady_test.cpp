// Experts with packed weights in their steady state: no allocation in a call that needs no more than the one before. A
// program of its own, as it replaces operator new.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <vector>

#include "kernels/packed_ffn.hpp"

namespace {
std::atomic<long> allocations{0};
}

// Sanitizers bring their own operator new, and want it kept: there nothing is counted.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kCounts = false;
#else
constexpr bool kCounts = true;
// Not inlined: GCC takes free() of what new gave for a mistake.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes > 0 ? bytes : 1)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  ++allocations;
  const auto unit = static_cast<std::size_t>(alignment);
  return std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
#endif

namespace topomoe::test {
namespace {

TEST(PackedFfnSteady, SecondCall_AllocatesNothing) {
  if (!kCounts) GTEST_SKIP() << "a sanitizer's operator new is in place";
  constexpr std::int64_t kHidden = 64, kFfn = 48;
  // By columns, of two experts and of three; and by rows.
  const std::vector<std::int64_t> most{0, 40, 40, 90}, fewer{0, 1, 3, 60}, many{0, 3100, 3100, 3100};
  const std::vector<float> weights(3 * kHidden * kFfn, 0.01F), in(3100 * kHidden, 0.5F);
  std::vector<float> out(in.size());
  kernels::ThreadPool pool(2);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    kernels::GroupedFfn op{.in = in.data(),
                           .out = out.data(),
                           .w_gate = weights.data(),
                           .w_up = weights.data(),
                           .w_down = weights.data(),
                           .offsets = most,
                           .hidden = kHidden,
                           .ffn = kFfn,
                           .dtype = dtype};
    const kernels::PackedFfn packed(op, kernels::best_isa(), pool, {});
    kernels::ProductScratch scratch;
    long before = 0;
    for (const auto* offsets : {&many, &most, &fewer, &most, &many}) {
      if (offsets == &fewer) before = allocations;
      op.offsets = *offsets;
      packed.forward(op, pool, scratch, {});
    }
    EXPECT_GT(before, 0);
    EXPECT_EQ(allocations, before);
  }
}

}  // namespace
}  // namespace topomoe::test
