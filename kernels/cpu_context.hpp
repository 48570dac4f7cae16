// What a host kernel runs with: instructions that it may use, threads that it may use, and the hook that it calls.
//
// Made from a hook alone it is the best instructions on the caller's thread. What a kernel computes depends on neither
// the threads nor, where its contract fixes the order of addition, the instructions.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu_isa.hpp"
#include "kernels/progress.hpp"
#include "kernels/thread_pool.hpp"
#include "topomoe/device.hpp"

namespace topomoe::kernels {

struct CpuContext {
  CpuContext() = default;
  CpuContext(const ProgressHook& progress) : hook(progress) {}  // NOLINT(google-explicit-constructor)
  CpuContext(CpuIsa instructions, ThreadPool* threads, const ProgressHook& progress = {})
      : isa(instructions), pool(threads), hook(progress) {}

  // For kernels that need no more.
  operator const ProgressHook&() const { return hook; }  // NOLINT(google-explicit-constructor)

  int threads() const { return pool == nullptr ? 1 : pool->threads(); }

  CpuIsa isa = best_isa();
  ThreadPool* pool = nullptr;  // borrowed; null: the caller's thread alone
  ProgressHook hook;
};

// Calls f(first, last) for parts of 0..items on whichever threads there are, and the hook between them on the caller's.
// An item is worth `operations` of Progress; parts are small enough for the hook's promise and for threads to end
// together.
template <class F>
void share(const CpuContext& cpu, std::int64_t items, std::int64_t operations, F&& f) {
  const std::int64_t most =
      std::max<std::int64_t>(1, Progress::kOperationsPerCall / std::max<std::int64_t>(1, operations));
  std::int64_t part = most;
  // A part of an eighth still takes some microseconds, ten times what handing it over costs.
  if (cpu.threads() > 1) part = std::clamp(items / (4 * cpu.threads()), std::max<std::int64_t>(1, most / 8), most);
  const auto call = [&](std::int64_t i, int) { f(i * part, std::min(items, (i + 1) * part)); };
  const std::int64_t parts = (items + part - 1) / part;
  if (cpu.pool != nullptr) return cpu.pool->run(parts, cpu.hook, call);
  for (std::int64_t i = 0; i < parts; ++i) call(i, 0), cpu.hook();
}

}  // namespace topomoe::kernels
