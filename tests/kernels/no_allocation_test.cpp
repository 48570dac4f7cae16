// Host kernels that move rows or route them allocate nothing: not in a call, on no thread. A program of its own, as it
// replaces operator new.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "kernels/cpu_context.hpp"
#include "kernels/gather_rows.hpp"
#include "kernels/ordered_sum.hpp"
#include "kernels/router.hpp"
#include "kernels/sum_rows.hpp"

namespace {
std::atomic<long> allocations{0};
}

// Sanitizers bring their own operator new, and want it kept.
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
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
#endif

namespace topomoe::test {
namespace {

template <class Call>
void expect_no_allocation(const char* what, Call call) {
  kernels::ThreadPool pool(2);
  for (const kernels::CpuIsa isa : kernels::usable_isas())
    for (kernels::ThreadPool* const threads : {static_cast<kernels::ThreadPool*>(nullptr), &pool}) {
      const long before = allocations;
      call(kernels::CpuContext(isa, threads));
      EXPECT_EQ(allocations, before) << what << ", " << name(isa);
    }
}

TEST(HostKernels, AllocateNothing) {
  if (!kCounts) GTEST_SKIP() << "a sanitizer brings its own operator new";
  constexpr std::int64_t kRows = 500, kColumns = 700;
  std::vector<float> in(kRows * kColumns, 1.0F), out(kRows * kColumns), dots(2 * kRows), weights(kRows * 4);
  std::vector<std::int32_t> map(2 * kRows, 3), ids(kRows * 4);
  EXPECT_GT(allocations, 0);
  expect_no_allocation("gather", [&](const kernels::CpuContext& cpu) {
    gather_rows_cpu({.out = out.data(), .in = in.data(), .source_row = map.data(), .rows = kRows, .columns = kColumns},
                    cpu);
  });
  expect_no_allocation("sum", [&](const kernels::CpuContext& cpu) {
    sum_rows_cpu(
        {.out = out.data(), .in = in.data(), .position = map.data(), .rows = kRows, .columns = kColumns, .k = 2}, cpu);
  });
  expect_no_allocation("dots", [&](const kernels::CpuContext& cpu) {
    row_dots_cpu({.out = dots.data(),
                  .a = in.data(),
                  .b = in.data(),
                  .position = map.data(),
                  .rows = kRows,
                  .columns = kColumns,
                  .k = 2},
                 cpu);
  });
  expect_no_allocation("ordered sum", [&](const kernels::CpuContext& cpu) {
    ordered_sum_cpu({.out = out.data(), .in = in.data(), .rows = kRows / 4, .columns = kColumns, .blocks = 4}, cpu);
  });
  expect_no_allocation("router", [&](const kernels::CpuContext& cpu) {
    router_cpu({.tokens = in.data(),
                .weight = in.data(),
                .logits = out.data(),
                .ids = ids.data(),
                .weights = weights.data(),
                .rows = kRows,
                .hidden = kColumns,
                .experts = 64,
                .k = 4,
                .options = {.groups = 8, .topk_groups = 4}},
               cpu);
  });
}

}  // namespace
}  // namespace topomoe::test
